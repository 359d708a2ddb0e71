"""What is refused before anybody reads it, and how a file's content decides its format."""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.adapters.formats.detect import MAX_BYTES, read_epic, read_text
from mcp_server.adapters.formats.reading import Reading
from mcp_server.core.planning import plan
from mcp_server.errors import Code, Refused

EPIC = "# Epic 1: X\n\n### Story 1.1: A\n\n**Dependencies:** None\n"
NATIVE = "stories:\n  - id: a\n"
PIECES = [
    *(
        "# Epic 1: X",
        "## Stories",
        "### Story 1.1: A",
        "1. **Story 1.2: B** ✅",
        "   - Acceptance criteria: a; b",
        "```",
        "~~~",
    ),
    *(
        "Depends on Story 1.1",
        "**Dependencies:** 1.1-1.3, Epic 4 (x",
        "**Files:** `a`, (b), https://x",
        "  - nested",
        "---",
        "",
    ),
    *(
        "**Checks:** `a && b`",
        "- [x] **Story 1.1**: again",
        "<!-- c",
        "-->",
        "| a | b |",
        "**Story ID:** X-1",
        "\t* tab",
        "stories:",
    ),
    *(
        "  - id: a",
        "    depends_on: [a",
        "epic: {",
        "**Points:** many",
        "#### Files to Create",
        "**Status:**",
        "- `x",
        "**",
        "[]((",
    ),
]


def refusal(act: Callable[[], Reading]) -> str:
    with pytest.raises(Refused) as refused:
        act()
    assert refused.value.code is Code.UNREADABLE_EPIC
    assert refused.value.remedy
    return str(refused.value)


def outcome(text: str) -> Code | None:
    """None for a text that can be planned; anything but a plan or a refusal fails the test."""
    try:
        plan(read_text(text).draft)
    except Refused as refused:
        return refused.code
    return None


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "is empty"),
        (b" \r\n\t\n", "is empty"),
        (codecs.BOM_UTF8, "is empty"),
        (bytes(range(256)), "binary"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary"),
        (EPIC.encode("utf-16"), "UTF-16"),
        (EPIC.encode("utf-16-be"), "UTF-16 without its mark"),
        (EPIC.encode("utf-16-le"), "UTF-16 without its mark"),
        (EPIC.encode("utf-32"), "UTF-32"),
        ("# Epic\n\n### Story 1.1: Café\n".encode("latin-1"), "not UTF-8: byte 0xe9 on line 3"),
        (b"<<<<<<< HEAD\n# A\n=======\n# B\n>>>>>>> b\n", "merge markers"),
        (b"# Notes\n\n## Monday\n\nNothing.\n", "Its first headings: Notes; Monday"),
        (b"just words\n", "It has no headings"),
        (b"# Guide\n\n```markdown\n### Story 1.1: A\n```\n", "stand in code blocks"),
        (b"# Order\n\n1. **Story 7.2** (x) - Depends on 7.1\n2. **Story 7.3**\n", "No stories were found"),
        (b"# E\n\n### ~~Story 1.1: A~~\n", "crossed out"),
        (b"# E\n\n" + b"x\n" * 100_001, "more than 100000 lines"),
    ],
)
def test_what_is_no_epic_is_refused_in_words(raw: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "epic.md").write_bytes(raw)
    assert says in refusal(lambda: read_epic(tmp_path / "epic.md"))


def test_fifty_megabytes_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "big.md"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    before = time.process_time()
    with pytest.raises(Refused, match=r"50\.0 MB"):
        read_epic(path)
    assert time.process_time() - before < 0.1
    assert "MB" in refusal(lambda: read_text("a" * (MAX_BYTES + 1)))


def test_missing_files_folders_and_devices_are_refused(tmp_path: Path) -> None:
    assert "no file" in refusal(lambda: read_epic(tmp_path / "none.md"))
    assert "is a folder" in refusal(lambda: read_epic(tmp_path))
    assert "a\\x00b" in refusal(lambda: read_epic(Path("a\0b")))
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(Refused, match="not a regular file"):
            read_epic(tmp_path / "pipe")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "epic.md"
    path.write_text(EPIC, encoding="utf-8")
    path.chmod(0)
    with pytest.raises(Refused, match="cannot be read"):
        read_epic(path)


@pytest.mark.parametrize("text", [EPIC, NATIVE])
def test_marks_and_line_ends_of_windows_are_fine(text: str, tmp_path: Path) -> None:
    (tmp_path / "epic").write_bytes(codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode())
    windows, unix = read_epic(tmp_path / "epic").draft, read_text(text).draft
    assert windows.stories == unix.stories
    assert windows.source == str(tmp_path / "epic")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (EPIC, "markdown"),
        (NATIVE, "epicwave-yaml"),
        ("---\n" + NATIVE, "epicwave-yaml"),
        ("# a comment\n## another\n" + NATIVE, "epicwave-yaml"),
        ("---\nstories: 4\ntitle: x\n---\n\n" + EPIC, "markdown"),
        (EPIC + "\n```yaml\nstories:\n  - id: a\n```\n", "markdown"),
        ("Goal: warmth\n\n1. **Story 1.1: A**\n", "markdown"),
        ('{"stories": [{"id": "a"}]}', "epicwave-yaml"),
        ("title: t\nstorys:\n  - id: a\n", "epicwave-yaml"),
    ],
)
def test_the_content_decides_the_format(text: str, name: str) -> None:
    assert read_text(text).format == name


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=25).map("\n".join)))
@settings(max_examples=400)
def test_any_text_is_read_or_refused(text: str) -> None:
    assert outcome(text) in {None, Code.UNREADABLE_EPIC, Code.BAD_EPIC}


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-bytes"
    path.write_bytes(raw)
    try:
        reading = read_epic(path)
    except Refused as refused:
        code = refused.code
    else:
        code = None if reading.draft.stories or reading.draft.errors else Code.BAD_EPIC
    assert code in {None, Code.UNREADABLE_EPIC}


@pytest.mark.parametrize(
    "text",
    [
        "# E\n" + "### Story 1.1: x\n- a: b **c** `d`\n" * 45_000,
        "# E\n### Story 1.1: x\n" + ("Files: " + "[a](" * 1900 + "\n") * 300,
        "# E\n### Story 1.1: x\n" + ("Depends on: " + "1.1 - " * 1300 + "\n") * 300,
        "# E\n### Story 1.1: x" + (" " * 7900 + "x\n") * 300,
        "# E\n" + "".join(f"### Story 1.{n}: x\n**Dependencies:** 1.1-1.1999\n" for n in range(1, 2000)),
    ],
    ids=["repeats", "links", "ranges", "blanks", "edges"],
)
def test_no_document_makes_the_reader_slow(text: str) -> None:
    before = time.process_time()
    outcome(text)
    assert time.process_time() - before < 8
