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

Started as `leash.py --adoptable FOLDER WINDOW_S LOG ROOM_BYTES GRACE_S STDIN_FILE COMMAND...` it can outlive its
engine. The engine then speaks through the FIFO `FOLDER/control` (`.` is "end it", `+` "from here on you may be
adopted"; its end "the engine is dead"), and 1 is a copy of the output, which goes to LOG besides, up to ROOM_BYTES:
without its engine it only goes there. When nobody opens the FIFO again within WINDOW_S, the tree is ended. A command
that came to its end by itself leaves `FOLDER/exit.json`, written before this process goes.
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
LOOK_S = 0.05
"""How often it is looked whether another engine has come: a FIFO without a writer cannot be waited for."""
CHUNK_BYTES = 65_536
TAIL_BYTES = 65_536
"""So much of the end of what found no room in the log is kept in the exit record."""
AHEAD_BYTES = 1_000_000
"""So far an engine may be behind with listening before the command has to wait for it."""
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


class Link:
    """The engine on the other side of descriptor 0. Stores what it has said, and since when it is gone."""

    def __init__(self, wake: int) -> None:
        self.wake = wake
        self.asked = False
        self.gone_s: float | None = None

    @property
    def is_over(self) -> bool:
        """The command is to be ended."""
        return self.asked or self.gone_s is not None

    def command_output(self) -> int:
        """What the command gets as stdout and stderr."""
        return 1

    def wait(self, at_most_s: float | None) -> None:
        """Wait for a word, a signal, or the time; deal with it."""
        watched = [self.wake] if self.gone_s is not None else [0, self.wake]
        ready = select.select(watched, [], [], at_most_s)[0]
        drain(self.wake, ready)
        if 0 in ready:
            self.hear(os.read(0, 64))

    def hear(self, word: bytes) -> None:
        if word:
            self.asked = True
        elif self.gone_s is None:
            self.gone_s = time.monotonic()

    def end(self, code: int | None) -> None:
        """The tree is gone; `code` is the command's exit code when it ended by itself."""


class AdoptableLink(Link):
    """An engine that another one may follow. Stores the output that it has not taken yet, and the log's state."""

    def __init__(self, wake: int, folder: str, window_s: float, log: str, room: int) -> None:
        super().__init__(wake)
        self.folder = folder
        self.window_s = window_s
        self.claimed = False
        self.control = os.open(f"{folder}/control", os.O_RDONLY | os.O_NONBLOCK)
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self.room = room
        self.left_out = 0
        self.last = bytearray()
        self.errno = 0
        self.source, self.inner = os.pipe()
        os.set_blocking(self.source, False)
        os.set_blocking(1, False)
        self.is_open = self.is_heard = True
        self.ahead = bytearray()

    @property
    def is_over(self) -> bool:
        if self.asked or self.gone_s is None:
            return self.asked
        return not self.claimed or time.monotonic() > self.gone_s + self.window_s

    def command_output(self) -> int:
        return self.inner

    def wait(self, at_most_s: float | None) -> None:
        watched = [self.wake]
        if self.gone_s is None:
            watched.append(self.control)
        else:
            at_most_s = min(at_most_s if at_most_s is not None else LOOK_S, LOOK_S)
        if self.is_open and len(self.ahead) < AHEAD_BYTES:
            watched.append(self.source)
        ready, _, _ = select.select(watched, [1] if self.ahead else [], [], at_most_s)
        drain(self.wake, ready)
        if self.control in ready or self.gone_s is not None:
            self.listen()
        if self.source in ready:
            self.take()
        self.pass_on()

    def listen(self) -> None:
        try:
            self.hear(os.read(self.control, 64))
        except BlockingIOError:  # somebody has it open and says nothing: all is well
            self.gone_s = None

    def hear(self, word: bytes) -> None:
        self.claimed = self.claimed or b"+" in word
        self.asked = self.asked or b"." in word
        if word:
            self.gone_s = None
        elif self.gone_s is None:
            self.gone_s = time.monotonic()

    def take(self) -> bool:
        """Take the next output of the command's. False when there is none now."""
        try:
            chunk = os.read(self.source, CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self.is_open = False
            return False
        if self.is_heard:
            self.ahead += chunk
        fits, rest = chunk[: self.room], chunk[self.room :]
        self.room -= len(fits)
        self.left_out += len(rest)
        self.last = (self.last + rest)[-TAIL_BYTES:] if rest else self.last
        self.keep(fits)
        return True

    def keep(self, chunk: bytes) -> None:
        """Into the log; when that cannot be written the work goes on."""
        try:
            while chunk and not self.errno:
                chunk = chunk[os.write(self.log, chunk) :]
        except OSError as error:
            self.errno = error.errno or 5

    def pass_on(self) -> None:
        """As much to the engine as it takes now; an engine that is gone is not spoken to any more."""
        try:
            while self.ahead:
                del self.ahead[: os.write(1, self.ahead)]
        except BlockingIOError:
            return
        except OSError:
            self.is_heard = False
            self.ahead.clear()

    def end(self, code: int | None) -> None:
        until_s = time.monotonic() + KILL_BOUND_S
        while self.is_open and time.monotonic() < until_s and self.take():
            self.pass_on()
        while self.ahead and time.monotonic() < until_s:
            select.select([], [1], [], LOOK_S)
            self.pass_on()
        if code is None:
            return
        size, path = os.fstat(self.log).st_size, f"{self.folder}/exit.json"
        record = f'{{"leash": {os.getpid()}, "exit_code": {code}, "log_end": {size}, "left_out": {self.left_out}, '
        record += f'"last": "{self.last.hex()}", "errno": {self.errno}}}'
        with contextlib.suppress(OSError):  # the engine then takes the end for a crash
            with open(f"{path}.new", "w") as file:  # noqa: PTH123 - pathlib is slow to import
                file.write(record)
            os.replace(f"{path}.new", path)  # noqa: PTH105 - the same


class Tree:
    """The command and all it started. Stores its pid, and its wait status once it has ended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None

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

    def end(self, grace_s: float, link: Link) -> None:
        """TERM, grace, KILL until nothing is left. A dead engine shortens the grace."""
        if self.reap():
            return
        began = time.monotonic()
        deadline = began + grace_s
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)  # a stopped process could not act on it
        while not self.reap():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            link.wait(min(left_s, 0.05))
            if link.gone_s is not None:
                deadline = min(deadline, max(link.gone_s, began) + ORPHAN_GRACE_S)
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


def start(command: list[str], stdin: str, output: int) -> int | None:
    """Fork and exec; None (and the reason told) when the command cannot be started."""
    failed, report = os.pipe()  # closed by a successful exec, so an empty read means that it runs
    leash = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            become(command, stdin, output, leash)
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


def become(command: list[str], stdin: str, output: int, leash: int) -> None:
    """In the child: own session, death with the leash, the brief as stdin, signals as a program expects them."""
    os.setsid()
    if LINUX:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != leash:
            os._exit(NOT_STARTED)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # python ignores them, and what is ignored is inherited
    os.dup2(os.open(stdin, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(1, 2)
    os.environ["EPICWAVE_LEASH"] = f"{leash}:{start_s(leash)}"  # strays are found by it, see tree.py
    os.execvp(command[0], command)  # noqa: S606 - that no shell is between is the point


def _wake_only(number: int, frame: object) -> None:
    """The byte in the wake-up pipe is all that is wanted of this signal."""


def main(arguments: list[str]) -> int:
    """Run the command to its end. Returns its exit code, 128 + n for a signal."""
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    told: list[int] = []
    signal.signal(signal.SIGCHLD, _wake_only)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: told.append(number))
    if LINUX:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    link = Link(wake)
    if arguments[0] == "--adoptable":
        folder, window_s, log, room = arguments[1:5]
        link, arguments = AdoptableLink(wake, folder, float(window_s), log, int(room)), arguments[5:]
    grace_s, stdin, *command = arguments
    pid = start(command, stdin, link.command_output())
    if pid is None:
        return NOT_STARTED
    if link.command_output() != 1:
        os.close(link.command_output())
    tell(f"started {pid}")
    tree = Tree(pid)
    by_itself = False
    while not (told or link.is_over or tree.status is not None):
        link.wait(None)
        tree.reap()
        by_itself = tree.status is not None and not (told or link.is_over)
    tree.end(ORPHAN_GRACE_S if by_itself else float(grace_s), link)
    code = os.waitstatus_to_exitcode(tree.status) if tree.status is not None else -signal.SIGKILL
    code = code if code >= 0 else 128 - code
    link.end(code if by_itself else None)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
