"""What `faults.py` breaks a run with: a git that kills, a disk that is full, a clock that jumps."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from leak_world import Place

GIT = """#!/bin/sh
# The first git on the PATH of a run. An order names a command of the engine's own; the first such call carries it out.
case "$*" in *no-hooks*)
for order in {orders}/armed-*; do
  [ -e "$order" ] || break
  name=${{order##*/armed-}}
  case " $* " in *" ${{name%-*}} "*)
    mv "$order" "{orders}/fired-$name" 2>/dev/null || continue
    read -r how who delay_s < "{orders}/fired-$name"
    case $how in
      during) {git} "$@" <&0 & sleep "$delay_s"; [ "$who" = engine ] || kill -9 $! ;;
      after) {git} "$@" ;;
    esac
    [ "$who" = engine ] && kill -9 $PPID && wait
    kill -9 $$
  esac
done
esac
exec {git} "$@"
"""
CALLS = (
    *("rebase", "checkout", "update-ref", "worktree add", "worktree remove", "rev-parse HEAD"),
    *("epicwave: merged", "epicwave: merged", "epicwave: done", "epicwave: rescued"),
)
"""Words of commands in a merge and around it; the last ones are why refs are moved."""
CLOCK = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long ahead(void) {
  char text[32] = {0};
  const char *path = getenv("EPICWAVE_FAULT_CLOCK");
  int kept = errno, file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file >= 0 && read(file, text, sizeof text - 1) < 0) text[0] = 0;
  if (file >= 0) close(file);
  errno = kept;
  return atol(text);
}
int clock_gettime(clockid_t which, struct timespec *at) {
  int code = syscall(SYS_clock_gettime, which, at);
  if (code == 0 && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) at->tv_sec += ahead();
  return code;
}
int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
"""
"""A library that is loaded before the C library: the wall clock is ahead by the seconds that a file says."""
BOOT = """
import os, psutil._pslinux as linux
def ahead():
    return int(open(os.environ["EPICWAVE_FAULT_CLOCK"]).read())
booted = linux.boot_time
linux.boot_time = lambda: booted() + ahead()  # the kernel moves it along when the clock is set
"""
PYTHON_CLOCK = """
import os, time
def ahead():
    return int(open(os.environ["EPICWAVE_FAULT_CLOCK"]).read())
really = time.time
time.time = lambda: really() + ahead()
time.time_ns = lambda: int(time.time() * 1e9)
"""


class DeadlyGit:
    """A wrapper around git, first on the PATH of a run, and the orders that it has."""

    def __init__(self, place: Place) -> None:
        self._orders = place.folder / "orders"
        folder = place.folder / "bin"
        folder.mkdir()
        self._orders.mkdir()
        real = shutil.which("git")
        assert real is not None
        wrapper = folder / "git"
        wrapper.write_text(GIT.format(orders=self._orders, git=real), "utf-8")
        wrapper.chmod(0o755)
        place.more["PATH"] = f"{folder}:{os.environ['PATH']}"

    def order(self, number: int, call: str, how: str, who: str, delay_s: float) -> None:
        """The next call of this command kills itself or the engine, before, during or after its work."""
        hidden = self._orders / "new"
        hidden.write_text(f"{how} {who} {delay_s:.4f}\n", "utf-8")
        hidden.rename(self._orders / f"armed-{call}-{number}")

    @property
    def fired(self) -> list[str]:
        """Orders that were carried out."""
        return sorted(
            f"{p.name.removeprefix('fired-')} {p.read_text('utf-8').split()[:2]}" for p in self._orders.glob("fired-*")
        )

    def disarm(self) -> None:
        """From now on it is git."""
        for order in self._orders.glob("armed-*"):
            order.unlink(missing_ok=True)


class FullDisk:
    """A file that takes all there is of a small disk."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "filler"

    def fill(self, spare_bytes: int) -> None:
        """Take all but so much."""
        with self._file.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue
            file.truncate(max(0, file.tell() - spare_bytes))

    def free(self) -> None:
        """Give it all back."""
        self._file.unlink(missing_ok=True)


class Clock:
    """The wall clock of everything that a run starts."""

    def __init__(self, place: Place) -> None:
        self._file = place.folder / "clock"
        self.set(0)
        place.more["EPICWAVE_FAULT_CLOCK"] = str(self._file)
        library = clock_library()
        if library is not None:
            place.more["LD_PRELOAD"] = str(library)
        place.prelude = PYTHON_CLOCK if library is None else BOOT

    def set(self, ahead_s: int) -> None:
        """So far ahead of the real time it is from now on."""
        hidden = self._file.with_name("clock-new")
        hidden.write_text(str(ahead_s), "utf-8")
        hidden.rename(self._file)


@functools.cache
def clock_library() -> Path | None:
    """Our own clock, compiled; None where there is no C compiler, or on another system than Linux."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    folder = Path(tempfile.gettempdir()) / f"epicwave-fault-clock-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    library = folder / f"{hashlib.sha256(CLOCK.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        made = library.with_name(f"{os.getpid()}.so")
        command = [compiler, "-shared", "-fPIC", "-O1", "-x", "c", "-o", str(made), "-"]
        if subprocess.run(command, input=CLOCK.encode(), check=False, capture_output=True).returncode:
            return None
        made.replace(library)
    return library


@functools.cache
def can_mount() -> bool:
    """True when a small disk can be had."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=65536", "epicwave-faults", folder]
        if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode:
            return False
        return subprocess.run(["umount", folder], check=False, capture_output=True).returncode == 0
