"""The supervisor between the engine and one agent or check: whatever happens, nothing of its process tree is left.

Started as `python -I -S leash.py GRACE_S STDIN_FILE COMMAND...`. Stdlib only and POSIX only; it never imports the rest
of the project, so that it is up in 20 ms.

Its descriptors: 0 is a pipe that the engine holds open (a byte on it means "end it", its end "the engine is dead"), 1
is the output, which the command inherits as stdout and stderr, 2 tells the engine how the start went, in one line:
`started PID` or `failed REASON`, and at the end `left PID...` when something could not be ended.

Whatever ends first, the command, the engine, or this process by TERM, the command's process tree is gone when it exits.
On Linux that includes daemonised grandchildren: it is their subreaper, so they become its children when they detach.
Elsewhere it ends the command's process group, and what left the group is the engine's to find (see `tree.py`).
Ended itself by SIGKILL it can do nothing more, but on Linux the command gets SIGKILL with it (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LINUX = sys.platform == "linux"
ORPHAN_GRACE_S = 1.0
"""Time to end by TERM for what the command left behind, and for everything when the engine is dead."""
KILL_BOUND_S = 10.0
"""After so long in the kernel's hands (a hung network mount) a killed process is reported, not waited for."""
NOT_STARTED = 127


def prctl(option: int, value: int) -> None:
    """Linux only; a kernel or a C library without it leaves us with the process group."""
    import ctypes  # noqa: PLC0415 - only Linux needs it

    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def tell(line: str) -> None:
    """One line to the engine; it may be dead already, and that changes nothing."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="replace"))


class Tree:
    """The command and all it started. Stores its pid, its wait status once it has ended, and the wake-up pipe."""

    def __init__(self, pid: int, wake: int) -> None:
        self.pid = pid
        self.status: int | None = None
        self.wake = wake

    def reap(self) -> bool:
        """Collect the dead. True when nothing of the tree is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return LINUX or not self.group_alive()
            if pid == 0:
                return False
            if pid == self.pid:
                self.status = status

    def group_alive(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
            return False
        return True

    def members(self) -> list[int]:
        """Every descendant of this process, by /proc; empty where there is none."""
        children: dict[int, list[int]] = {}
        for name in os.listdir("/proc") if LINUX else ():  # noqa: PTH208 - pathlib is slow to import
            if not name.isdigit():
                continue
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - pathlib is slow to import
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
        found = [os.getpid()]
        for pid in found:
            found.extend(children.get(pid, ()))
        return found[1:]

    def signal(self, number: int) -> None:
        """Send to the command's group and to all descendants, inside it or not."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def end(self, grace_s: float) -> None:
        """TERM, grace, KILL until nothing is left. A dead engine shortens the grace."""
        if self.reap():
            return
        deadline = time.monotonic() + grace_s
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)  # a stopped process could not act on it
        watched = [0, self.wake]
        while not self.reap():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            ready = select.select(watched, [], [], min(left_s, 0.05))[0]
            drain(self.wake, ready)
            if 0 in ready and not os.read(0, 64):
                watched.remove(0)
                deadline = min(deadline, time.monotonic() + ORPHAN_GRACE_S)
        deadline = time.monotonic() + KILL_BOUND_S
        while not self.reap():
            if time.monotonic() > deadline:
                tell("left " + " ".join(map(str, self.members() or [self.pid])))
                return
            self.signal(signal.SIGKILL)
            time.sleep(0.005)


def drain(wake: int, ready: list[int]) -> None:
    if wake in ready:
        os.read(wake, 512)


def start(command: list[str], stdin: str) -> int | None:
    """Fork and exec; None (and the reason told) when the command cannot be started."""
    failed, report = os.pipe()  # closed by a successful exec, so an empty read means that it runs
    leash = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            become(command, stdin, leash)
        except (OSError, ValueError) as error:
            os.write(report, (getattr(error, "strerror", None) or str(error)).encode(errors="replace"))
        os._exit(NOT_STARTED)
    os.close(report)
    with os.fdopen(failed, "rb") as pipe:
        reason = pipe.read()
    if not reason:
        return pid
    os.waitpid(pid, 0)
    tell("failed " + reason.decode(errors="replace").replace("\n", " "))
    return None


def start_s(pid: int) -> float:
    """When it started, in seconds since the boot, which no setting of the clock moves; elsewhere about now."""
    if not LINUX:
        return time.time()
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - pathlib is slow to import
        return int(file.read().rpartition(b")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def become(command: list[str], stdin: str, leash: int) -> None:
    """In the child: own session, death with the leash, the brief as stdin, signals as a program expects them."""
    os.setsid()
    if LINUX:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != leash:
            os._exit(NOT_STARTED)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # python ignores them, and what is ignored is inherited
    os.dup2(os.open(stdin, os.O_RDONLY), 0)
    os.dup2(1, 2)
    os.environ["EPICWAVE_LEASH"] = f"{leash}:{start_s(leash)}"  # strays are found by it, see tree.py
    os.execvp(command[0], command)  # noqa: S606 - that no shell is between is the point


def _wake_only(number: int, frame: object) -> None:
    """The byte in the wake-up pipe is all that is wanted of this signal."""


def main(arguments: list[str]) -> int:
    """Run the command to its end. Returns its exit code, 128 + n for a signal."""
    grace_s, stdin, *command = arguments
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    told: list[int] = []
    signal.signal(signal.SIGCHLD, _wake_only)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: told.append(number))
    if LINUX:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    pid = start(command, stdin)
    if pid is None:
        return NOT_STARTED
    tell(f"started {pid}")
    tree = Tree(pid, wake)
    while True:
        tree.reap()
        if tree.status is not None:
            tree.end(ORPHAN_GRACE_S)
            break
        ready = [] if told else select.select([0, wake], [], [])[0]
        drain(wake, ready)
        if told or 0 in ready:  # which of the two things it is that the engine says, `end` reads
            tree.end(float(grace_s))
            break
    if tree.status is None:
        return 128 + signal.SIGKILL
    code = os.waitstatus_to_exitcode(tree.status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
