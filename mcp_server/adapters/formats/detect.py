"""From a file to a reading: what is no epic is refused here; the content, not the name, decides how it is read."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from mcp_server.adapters.formats.markdown import read_markdown
from mcp_server.adapters.formats.native import read_native
from mcp_server.adapters.formats.reading import SHAPES, Reading, unreadable
from mcp_server.errors import Refused

MAX_BYTES = 10_000_000
_SAVE = "Save the file as plain UTF-8 text."
_BOMS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_FRONT_MATTER = re.compile(r"---[ \t]*\n(?:(?!---).*\n){0,200}---[ \t]*\n(?=(?:[ \t]*\n|<!--.*\n)*#)")
_FENCED = re.compile(r"^(```|~~~).*?(^\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_TOP_KEY = re.compile(r"""^["']?(stories|epic)["']?[ \t]*:""", re.MULTILINE)
_HEADING = re.compile(r"^#{2,6}[ \t]+\S", re.MULTILINE)
_STORY = re.compile(r"^[^\n:]{0,40}\bStory[ \t]+[^\s:]{0,64}\d", re.MULTILINE | re.IGNORECASE)
_ANY_KEY = re.compile(r"""["']?[A-Za-z_][\w -]{0,40}["']?[ \t]*:([ \t]|$)""")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MERGE_MARKS = re.compile(r"^<<<<<<< .*^=======$.*^>>>>>>> ", re.MULTILINE | re.DOTALL)


def read_epic(path: Path) -> Reading:
    """Read an epic file. Raises `Refused` (unreadable_epic) when no epic can be found in it."""
    try:
        if path.is_dir():
            raise unreadable(f"{str(path)!r} is a folder.", "Name the epic's file.")
        if not path.exists():
            raise unreadable(f"There is no file {str(path)!r}.", "Give the path of an epic file, relative or absolute.")
        if not path.is_file():
            raise unreadable(f"{str(path)!r} is not a regular file.", "Name the epic's file.")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise _too_large(size)
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise unreadable(f"{str(path)!r} cannot be read: {error}.", "Give the path of an epic file.") from None
    return read_text(_decode(raw), source=str(path.absolute()))


def read_text(text: str, *, source: str = "inline") -> Reading:
    """Read an epic from its text. Raises `Refused` (unreadable_epic) when no epic can be found in it."""
    if len(text) > MAX_BYTES:
        raise _too_large(len(text))
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise unreadable("The epic is empty.", SHAPES)
    if "\0" in text:
        raise unreadable("The epic contains NUL characters: it is binary, not text.", _SAVE)
    if _SURROGATE.search(text):
        raise unreadable("The epic contains half a surrogate pair.", _SAVE)
    if "<<<<<<< " in text and _MERGE_MARKS.search(text):
        raise unreadable("The epic contains git's merge markers.", "Resolve the conflict first.")
    return read_native(text, source) if _is_native(text) else read_markdown(text, source)


def _is_native(text: str) -> bool:
    """True for YAML and JSON: a `stories:` or `epic:` key at the margin, or any key where Markdown has headings."""
    front = _FRONT_MATTER.match(text)
    body = _FENCED.sub("", text[front.end() :] if front else text)
    if _TOP_KEY.search(body):
        return True
    if _HEADING.search(body) or _STORY.search(body):
        return False
    lines = (line for line in body.splitlines() if line.strip() and not line.startswith(("#", "---")))
    first = next(lines, "")
    return first[:1] in {"{", "["} or _ANY_KEY.match(first) is not None


def _decode(raw: bytes) -> str:
    if len(raw) > MAX_BYTES:
        raise _too_large(len(raw))
    for mark, name in _BOMS:
        if raw.startswith(mark):
            raise unreadable(f"The file is encoded as {name}.", _SAVE)
    if b"\0" in raw:
        head = raw[:2000]
        few, many = sorted((head[::2].count(0), head[1::2].count(0)))
        wide = many * 6 > len(head) and few * 10 <= many  # every second byte of Latin text in UTF-16 is NUL
        what = "looks like UTF-16 without its mark" if wide else "contains NUL bytes: it is binary, not text"
        raise unreadable(f"The file {what}.", _SAVE)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise unreadable(f"The file is not UTF-8: byte 0x{raw[error.start]:02x} on line {line}.", _SAVE) from None


def _too_large(size: int) -> Refused:
    return unreadable(f"The epic has {size / 1e6:.1f} MB; {MAX_BYTES // 1_000_000} MB are read at most.", "Split it.")
