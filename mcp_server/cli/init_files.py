"""A file of the user's project and what of it is ours: put in, or taken back, with nothing else of it changed.

Nothing is recorded anywhere. What is ours is known by its content: an entry, a line or a file that equals what this
epicwave writes. So `--remove` works in every clone, and what somebody has edited since is theirs.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pathspec import GitIgnoreSpec

from mcp_server.cli import init_json
from mcp_server.cli.init_json import NotJsonError
from mcp_server.errors import Code, Fault, FaultCause, Refused


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a file becomes; None: no file. `left` says what in it was left alone, and why."""

    content: bytes | None
    left: tuple[str, ...] = ()


class ProjectFile(Protocol):
    """A file that we have a part in. Content None stands for no file."""

    @property
    def path(self) -> str:
        """From the top of the repository, with `/`."""
        ...

    def put(self, content: bytes | None, *, force: bool) -> Outcome:
        """With our part in it. Raises `Refused` when it cannot be read."""
        ...

    def take(self, content: bytes | None, *, force: bool) -> Outcome:
        """Without our part. Raises `Refused` when it cannot be read."""
        ...


def _differs(what: str) -> str:
    return f"{what} differs from what this epicwave writes; --force replaces it"


def _edited(what: str) -> str:
    return f"{what} differs from what this epicwave writes; --force takes it away"


@dataclass(frozen=True, slots=True)
class OwnEntry:
    """A member of an object, or an element of a list (`key` is None), in a JSON file."""

    name: str
    """What the user is told it is."""
    path: tuple[str, ...]
    key: str | None
    value: object
    mark: str | None = None
    """Words that show an element of the list to be about us although it differs."""
    same: Callable[[object], bool] | None = None
    """True for a value that only an init can have written, on another machine or with another --command."""

    def is_it(self, found: init_json.Entry) -> bool:
        """True for the very entry."""
        return found.key == self.key and found.value == self.value

    def is_rival(self, found: init_json.Entry) -> bool:
        """True for one that stands where ours would, or does what ours does."""
        if self.key is not None:
            return found.key == self.key
        return self.mark is not None and self.mark in json.dumps(found.value, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class JsonFile:
    """Entries of ours among the user's."""

    path: str
    entries: tuple[OwnEntry, ...]
    needs: tuple[str, object] | None = None
    """A member without which the file is none for its reader. Written last, and only when the file is made: found
    first, or beside others, it is the user's."""

    def put(self, content: bytes | None, *, force: bool) -> Outcome:
        """Each entry is added behind the user's own; a rival stays, unless forced."""
        text = None if content is None else self._text(content)
        left: list[str] = []
        for entry in self.entries:
            inside = [] if text is None else self._inside(text, entry)
            rivals = self._rivals(entry, inside)
            if any(entry.is_it(found) for found in inside):
                continue
            if text is None or not rivals:
                text = init_json.added(text, entry.path, entry.key, entry.value)
            elif force:
                text = init_json.replaced(text, rivals[-1], entry.value)
            else:
                left.append(_differs(entry.name))
        if content is None and self.needs is not None:
            text = init_json.added(text, (), *self.needs)
        return Outcome(None if text is None else text.encode("utf-8"), tuple(left))

    def take(self, content: bytes | None, *, force: bool) -> Outcome:
        """Entries that are ours go, and what was made for them; a rival stays, unless forced."""
        text = None if content is None else self._text(content)
        needed_ours = text is not None and self._needed_is_ours(text)
        left: list[str] = []
        for entry in self.entries:
            if text is None:
                break
            inside = self._inside(text, entry)
            ours = [e for e in inside if entry.is_it(e) or (e.key == entry.key and entry.same and entry.same(e.value))]
            rivals = [] if ours else self._rivals(entry, inside)
            if ours or (rivals and force):
                text = init_json.cut(text, entry.path, (ours or rivals)[-1])
            elif rivals:
                left.append(_edited(entry.name))
        if text is not None and needed_ours and len(init_json.entries(text, (), listed=False)) == 1:
            text = None
        return Outcome(None if text is None else text.encode("utf-8"), tuple(left))

    def _rivals(self, entry: OwnEntry, inside: Iterable[init_json.Entry]) -> list[init_json.Entry]:
        return [e for e in inside if entry.is_rival(e) and not any(own.is_it(e) for own in self.entries)]

    def _needed_is_ours(self, text: str) -> bool:
        behind = init_json.entries(text, (), listed=False)[1:]
        return any((found.key, found.value) == self.needs for found in behind)

    def _text(self, content: bytes) -> str:
        try:
            return init_json.checked(content)
        except NotJsonError as error:
            raise self._refused(error) from error

    def _inside(self, text: str, entry: OwnEntry) -> list[init_json.Entry]:
        try:
            return init_json.entries(text, entry.path, listed=entry.key is None)
        except NotJsonError as error:
            raise self._refused(error) from error

    def _refused(self, error: NotJsonError) -> Refused:
        why = f"{self.path}, line {error.line}: {error.why}."
        return Refused(Code.BAD_CONFIG, why, f"Mend {self.path} so that it is plain JSON, and run again.")


@dataclass(frozen=True, slots=True)
class IgnoreFile:
    """A pattern in `.gitignore`, below a comment line that says it is ours."""

    path: str
    comment: str
    pattern: str
    example: str
    """A path that has to be ignored: when it is already, by whatever pattern, there is nothing to do."""

    def put(self, content: bytes | None, *, force: bool) -> Outcome:
        """At the end; a last line without its end stays without."""
        del force
        text = (content or b"").decode("utf-8", "surrogateescape")
        if self._ignores(text):
            return Outcome(content)
        newline = _newline(text)
        ours = f"{self.comment}{newline}{self.pattern}"
        if content is None or text.endswith("\n"):
            ours += newline
        elif text:
            ours = newline + ours
        return Outcome((text + ours).encode("utf-8", "surrogateescape"))

    def take(self, content: bytes | None, *, force: bool) -> Outcome:
        """Both lines together, else neither."""
        del force
        text = (content or b"").decode("utf-8", "surrogateescape")
        ours = re.search(rf"^{re.escape(self.comment)}\r?\n{re.escape(self.pattern)}(\r?\n|\Z)", text, re.MULTILINE)
        if ours is None:
            alone = self.pattern in re.split(r"\r?\n", text)
            return Outcome(content, (f"its line {self.pattern} is not below our comment",) if alone else ())
        before, after = text[: ours.start()], text[ours.end() :]
        if ours[1] and not before + after:
            return Outcome(None)
        if not ours[1] and before:
            before = before.removesuffix(_newline(before[:-1]))
        return Outcome((before + after).encode("utf-8", "surrogateescape"))

    def _ignores(self, text: str) -> bool:
        lines = [line.removesuffix("\r") for line in text.split("\n")]
        try:
            return GitIgnoreSpec.from_lines(lines).match_file(self.example)
        except ValueError:  # a pattern that is none, which git just passes over
            return self.pattern in lines


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


@dataclass(frozen=True, slots=True)
class WholeFile:
    """A file that is ours from end to end, until the user edits it."""

    path: str
    ours: bytes

    def put(self, content: bytes | None, *, force: bool) -> Outcome:
        """Made; one that is there and differs stays, unless forced."""
        if content is None or (force and not self._is_ours(content)):
            return Outcome(self.ours)
        return Outcome(content, () if self._is_ours(content) else (_differs("it"),))

    def take(self, content: bytes | None, *, force: bool) -> Outcome:
        """Gone; one that differs stays, unless forced."""
        if content is None or force or self._is_ours(content):
            return Outcome(None)
        return Outcome(content, (_edited("it"),))

    def _is_ours(self, content: bytes) -> bool:
        """True also when git has checked it out with the line ends of Windows."""
        return content.replace(b"\r\n", b"\n") == self.ours.replace(b"\r\n", b"\n")


def real(top: Path, path: str) -> Path:
    """Where a file of the project really lies, seen through links. Raises `Fault(disk)`."""
    try:
        return (top / path).resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise _disk(path, error) from error


def read(target: Path, path: str) -> bytes | None:
    """What is there. Raises `Refused` when a folder or a file is in the way, `Fault(disk)`."""
    try:
        return target.read_bytes()
    except FileNotFoundError:
        return None
    except (IsADirectoryError, NotADirectoryError) as error:
        why = f"{path} cannot be a file here: {error.strerror}."
        raise Refused(Code.BAD_CONFIG, why, "Move what is in the way, and run again.") from error
    except OSError as error:
        raise _disk(path, error) from error


def write(top: Path, changes: dict[str, bytes | None]) -> None:
    """Make the files so; None removes one, with the folders that are empty then. Of a link the target is written.

    Every new content lies whole beside its place before the first file is changed. Raises `Fault(disk)`.
    """
    staged: dict[Path, Path] = {}
    path = ""
    try:
        for path, content in changes.items():
            if content is not None:
                target = real(top, path)
                staged[target] = target.with_name(f".{target.name}.epicwave-new")
                _stage(staged[target], target, content)
        for target, new in staged.items():
            path = str(target)
            new.replace(target)
        for path, content in changes.items():
            if content is None:
                real(top, path).unlink(missing_ok=True)
                _remove_empty(top, (top / path).parent)
    except OSError as error:
        raise _disk(path, error) from error
    finally:
        for new in staged.values():
            with suppress(OSError):
                new.unlink()


def _stage(new: Path, target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    new.write_bytes(content)
    if target.exists():
        shutil.copymode(target, new)


def _remove_empty(top: Path, folder: Path) -> None:
    while folder != top and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _disk(path: str, error: Exception) -> Fault:
    return Fault(FaultCause.DISK, f"{path}: {error}")
