"""Odd files and odd attributes: each kind lands as `git rebase` would have it, and is rescued byte for byte."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from pathlib import Path

import pytest

from tests.contracts.odd_worlds import Hand, Odd, begun, landed_as_by_hand, rescued, writes

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("no_user_config"),
    pytest.mark.skipif(sys.platform == "win32", reason="modes, links, shell scripts and names that Windows has not"),
]

LINES = b"".join(b"%d\n" % number for number in range(20))
CRLF = LINES.replace(b"\n", b"\r\n")
ALL_BYTES = bytes(range(256)) * 8
NAMES = [
    " begins with a space",
    "ends with a space ",
    "two\nlines",
    "tab\tand\r",
    "quoted \"twice\" and 'once'",
    "back\\slash",
    "-dash",
    "--all",
    ":(glob)*",
    "[a-z]?*!",
    "#hash",
    "%n$HOME`x`",
    unicodedata.normalize("NFC", "café"),
    unicodedata.normalize("NFD", "café"),
    "日本語/ファイル",
    "emoji 🦆",
    "HEAD",
    "~tilde^{tree}",
    "n" * 255,
    "/".join(["deep" * 20] * 12),
]


def writes_names(at: Path, content: bytes) -> None:
    for name in NAMES:
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(content)


def links(at: Path) -> None:
    (at / "to_file").symlink_to("a.txt")
    (at / "to_folder").symlink_to("dir")
    (at / "to_nowhere").symlink_to("/nowhere/at all\n")
    (at / "becomes_file").symlink_to("b.txt")


def other_links(at: Path) -> None:
    (at / "to_file").unlink()
    (at / "to_file").symlink_to("b.txt")
    (at / "becomes_file").unlink()
    (at / "becomes_file").write_bytes(b"a file now\n")
    (at / "b.txt").unlink()
    (at / "b.txt").symlink_to("a.txt")
    (at / "to_folder").unlink()
    (at / "to_folder").mkdir()
    (at / "to_folder" / "x").write_bytes(b"x\n")
    (at / "new").symlink_to("../outside")


def programs(at: Path) -> None:
    (at / "run.sh").write_bytes(LINES)
    (at / "run.sh").chmod(0o755)
    (at / "text").write_bytes(LINES)


def other_modes(at: Path) -> None:
    (at / "run.sh").chmod(0o644)
    (at / "text").chmod(0o755)
    (at / "new.sh").write_bytes(b"#!/bin/sh\n")
    (at / "new.sh").chmod(0o755)


def chmod(name: str, mode: int) -> Hand:
    return lambda at: (at / name).chmod(mode)


def a_folder_of_files(at: Path) -> None:
    (at / "old").mkdir()
    for name in ("one", "two", "three"):
        (at / "old" / name).write_bytes(name.encode() * 40 + b"\n" + LINES)


def moves_the_folder(at: Path) -> None:
    (at / "old").rename(at / "new")
    with (at / "new" / "one").open("ab") as file:
        file.write(b"changed on its way\n")


def changes_in_the_folder(at: Path) -> None:
    (at / "old" / "two").write_bytes(b"two" * 40 + b"\n" + LINES + b"last\n")


def deletes(at: Path) -> None:
    shutil.rmtree(at / "dir")
    (at / "a.txt").unlink()
    (at / "empty").mkdir()


def attributes(text: bytes) -> dict[str, bytes]:
    return {"__gitattributes": text}


KINDS = [
    Odd("names-changed", lambda at: writes_names(at, b"new\n"), start=lambda at: writes_names(at, b"old\n")),
    Odd("links", other_links, start=links),
    Odd("modes", other_modes, start=programs, meanwhile=writes(text=b"meanwhile\n" + LINES)),
    Odd("renames", moves_the_folder, start=a_folder_of_files, meanwhile=changes_in_the_folder),
    Odd("deletions", deletes),
    Odd("mode-beside-content", chmod("a.txt", 0o755), meanwhile=writes(a__txt=b"changed\n")),
    Odd("binary", writes(blob=ALL_BYTES, nul=b"\0", empty=b""), start=writes(blob=ALL_BYTES[::-1])),
    Odd(
        "crlf-as-it-is",
        writes(dos=b"first\r\n" + CRLF),
        start=writes(dos=CRLF),
        meanwhile=writes(dos=CRLF + b"last\r\n"),
    ),
    Odd("mixed-ends", writes(mixed=b"first\n" + CRLF + LINES), start=writes(mixed=CRLF + LINES)),
    Odd(
        "autocrlf",
        writes(dos=b"first\r\n" + CRLF, new=CRLF),
        start=writes(dos=CRLF),
        meanwhile=writes(dos=CRLF + b"last\r\n"),
        settings={"core.autocrlf": "true"},
    ),
    Odd(
        "autocrlf-input", writes(unix=b"first\n" + LINES), start=writes(unix=LINES), settings={"core.autocrlf": "input"}
    ),
    Odd(
        "eol",
        writes(dos=b"first\r\n" + CRLF),
        start=writes(dos=CRLF, **attributes(b"* text=auto\n")),
        meanwhile=writes(dos=CRLF + b"last\r\n"),
        settings={"core.eol": "crlf"},
    ),
    Odd(
        "attributes-eol",
        writes(dos=b"first\r\n" + CRLF, unix=b"first\n" + LINES),
        start=writes(dos=CRLF, unix=LINES, **attributes(b"dos text eol=crlf\nunix text eol=lf\n")),
        meanwhile=writes(dos=CRLF + b"last\r\n"),
    ),
    Odd(
        "encoding",
        writes(wide="Schlüssel\n".encode("utf-16")),
        start=writes(wide="Tür\n".encode("utf-16"), **attributes(b"wide working-tree-encoding=UTF-16\n")),
    ),
    Odd(
        "union",
        writes(log=LINES + b"ours\n"),
        start=writes(log=LINES, **attributes(b"log merge=union\n")),
        meanwhile=writes(log=LINES + b"theirs\n"),
    ),
    Odd(
        "union-that-came-meanwhile",
        writes(log=LINES + b"ours\n"),
        start=writes(log=LINES),
        meanwhile=writes(log=LINES + b"theirs\n", **attributes(b"log merge=union\n")),
    ),
    Odd(
        "driver",
        writes(log=LINES + b"ours\n"),
        start=writes(log=LINES, **attributes(b"log merge=both\n")),
        meanwhile=writes(log=LINES + b"theirs\n"),
        settings={"merge.both.driver": "cat %B > %A.x && mv %A.x %A"},
    ),
]


@pytest.mark.parametrize("odd", KINDS, ids=lambda odd: odd.name)
async def test_it_lands_as_git_rebase_would_have_it_and_is_rescued_byte_for_byte(tmp_path: Path, odd: Odd) -> None:
    world = await begun(tmp_path, odd.start, odd.settings)
    await rescued(world, odd.work)
    await landed_as_by_hand(world, odd.work, odd.meanwhile)
