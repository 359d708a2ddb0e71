"""Logs are bounded, tails are readable."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_server.adapters.agents.output import TAIL_BYTES, Output, tail_of
from mcp_server.errors import Fault


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", ""),
        (b"\n\none\n\n", "one"),
        (b"\x1b[1;31mred\x1b[0m and \x1b]8;;http://x\x07link\x1b]8;;\x1b\\", "red and link"),
        (b"  1%\r 50%\r100%\ndone\r\n", "100%\ndone"),
        (b"bell\x07 nul\x00 tab\tend", "bell nul tab\tend"),
        ("caf\u00e9 \U0001f600".encode() + b" \xff\xfe", "caf\u00e9 \U0001f600 \ufffd\ufffd"),
    ],
)
def test_a_tail_is_plain_text(raw: bytes, text: str) -> None:
    assert tail_of(raw) == text


def test_a_tail_has_the_last_40_lines_and_4000_characters() -> None:
    assert tail_of(b"".join(b"%d\n" % n for n in range(100))) == "\n".join(map(str, range(60, 100)))
    assert tail_of(b"a" * 3000 + b"b" * 4000) == "b" * 4000


def test_a_log_below_its_limit_is_whole(tmp_path: Path) -> None:
    with Output(tmp_path / "deep" / "log", limit_bytes=10) as output:
        output.write(b"0123456789")
        output.end("over")
    assert (tmp_path / "deep" / "log").read_bytes() == b"0123456789\n[epicwave] over\n"


@pytest.mark.parametrize("size", [11, 10 + TAIL_BYTES, 10 + 5 * TAIL_BYTES])
@pytest.mark.parametrize("chunk", [7, 100_000])
def test_a_log_over_its_limit_keeps_head_and_tail_and_counts_the_rest(tmp_path: Path, size: int, chunk: int) -> None:
    raw = bytes(n % 251 for n in range(size))
    with Output(tmp_path / "log", limit_bytes=10) as output:
        for start in range(0, size, chunk):
            output.write(raw[start : start + chunk])
        output.end("over")
    kept = min(size - 10, TAIL_BYTES)
    cut = b"\n[epicwave] %d bytes left out\n" % (size - 10 - kept)
    assert (tmp_path / "log").read_bytes().startswith(raw[:10] + cut + raw[-kept:])


def test_a_log_that_is_full_already_gets_no_second_head(tmp_path: Path) -> None:
    for _ in range(2):
        with Output(tmp_path / "log", limit_bytes=10) as output:
            output.write(b"0123456789")
            output.end("over")
    assert (tmp_path / "log").stat().st_size < 200


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_does_not_stop_the_work_but_is_told(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to("/dev/full")
    with Output(tmp_path / "log") as output:
        output.write(b"important\n")
        assert output.tail().startswith("important\n[epicwave] the log is incomplete: ")


def test_a_log_that_cannot_be_opened_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="cannot be written"):
        Output(tmp_path)
