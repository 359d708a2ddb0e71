"""Bytes between an editor and an engine: whole, in order, no faster than the slower of both, and ended in time."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from pathlib import Path

import pytest

from mcp_server import __version__
from tests.front.stage import TOKEN, Editor, Engine, Wire, line_of, request, until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is a front where there are Unix sockets")

MEGABYTE = 2**20
HELD = 16 * MEGABYTE
"""More than all that the system's buffers and a pump that keeps its measure hold."""


def test_the_first_line_says_who_asks_and_from_where(wire: Wire, repo: Path) -> None:
    assert wire.hello == {"token": TOKEN, "version": __version__, "start": str(repo), "plugin": ""}


def test_lines_pass_as_they_are_both_ways(editor: Editor, wire: Wire) -> None:
    """Whatever they say: the engine and the editor know better what is JSON."""
    lines = [b'{ "jsonrpc":"2.0",  "id":1,"method":"x" }\n', b"not JSON\n", b"\xff\xfe\n", b"\n", b"[]\n", b"7\r\n"]
    editor.write(b"".join(lines))
    assert [wire.line() for _ in lines] == lines
    wire.socket.sendall(b"".join(lines))
    assert [editor.line() for _ in lines] == lines


def test_a_part_of_a_line_waits_for_its_rest(editor: Editor, wire: Wire) -> None:
    editor.write(b'{"jsonrpc":"2.0","me')
    assert wire.hears_nothing()
    editor.write(b'thod":"a"}\n{"half')
    assert wire.hears() == {"jsonrpc": "2.0", "method": "a"}
    wire.socket.sendall(b'{"jsonrpc":"2.0","me')
    assert editor.hears_nothing()
    wire.socket.sendall(b'thod":"b"}\n{"half')
    assert editor.hears() == {"jsonrpc": "2.0", "method": "b"}


def test_ten_megabytes_pass_both_ways(editor: Editor, wire: Wire) -> None:
    large = request(1, "tools/list", text="x" * 10 * MEGABYTE)
    editor.say(large)
    assert wire.hears() == large
    wire.answer(large, text="y" * 10 * MEGABYTE)
    assert len(editor.hears()["result"]["text"]) == 10 * MEGABYTE


def test_an_editor_that_does_not_read_holds_up_the_engine_and_not_the_memory(editor: Editor, wire: Wire) -> None:
    piece = line_of({"jsonrpc": "2.0", "method": "notifications/message", "params": {"text": "x" * 30_000}})
    before = editor.memory()
    sent = 0
    while sent < HELD and select.select([], [wire.socket], [], 1.0)[1]:
        sent += wire.socket.send(piece[sent % len(piece) :], socket.MSG_DONTWAIT)
    assert MEGABYTE // 16 < sent < HELD
    assert editor.memory() - before < 4 * MEGABYTE
    whole = sent // len(piece)
    assert all(editor.line() == piece for _ in range(whole)), "nothing is lost meanwhile"


def test_an_engine_that_does_not_read_holds_up_the_editor_and_not_the_memory(editor: Editor, wire: Wire) -> None:
    piece = line_of({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"text": "x" * 30_000}})
    before = editor.memory()
    os.set_blocking(editor.to.fileno(), False)
    sent = 0
    while sent < HELD and select.select([], [editor.to], [], 1.0)[1]:
        sent += os.write(editor.to.fileno(), piece[sent % len(piece) :])
    assert MEGABYTE // 16 < sent < HELD
    assert editor.memory() - before < 4 * MEGABYTE
    assert all(wire.line() == piece for _ in range(sent // len(piece)))


def test_what_was_asked_before_the_editor_closed_its_end_is_still_answered(editor: Editor, wire: Wire) -> None:
    asked = request(1, "tools/list")
    editor.say(asked)
    editor.to.close()
    assert wire.hears() == asked
    assert wire.line() == b"", "the engine hears of the end"
    wire.answer(asked, tools=[])
    assert editor.hears()["result"] == {"tools": []}
    assert editor.ends() == 0


def test_a_last_line_without_an_end_is_closed(editor: Editor, wire: Wire) -> None:
    editor.write(b'{"jsonrpc":"2.0","id":1,"method":"x"}')
    editor.to.close()
    assert wire.line() == b'{"jsonrpc":"2.0","id":1,"method":"x"}\n'


def test_an_editor_that_reads_no_more_ends_it(editor: Editor, wire: Wire) -> None:
    editor.out.close()
    wire.say({"jsonrpc": "2.0", "method": "x"})
    assert editor.ends() == 0


HOW = [
    pytest.param(None, id="end of input"),
    pytest.param(signal.SIGTERM, id="SIGTERM"),
    pytest.param(signal.SIGINT, id="SIGINT"),
]


def _end(editor: Editor, how: signal.Signals | None) -> None:
    began_s = time.monotonic()
    if how is None:
        editor.to.close()
    else:
        editor.process.send_signal(how)
    assert editor.ends() == 0
    assert editor.err.read() == b"", f"after {time.monotonic() - began_s} s"


@pytest.mark.parametrize("how", HOW)
def test_it_ends_within_a_second(editor: Editor, wire: Wire, how: signal.Signals | None) -> None:
    editor.ask(1, "tools/list")
    wire.hears()
    _end(editor, how)


@pytest.mark.parametrize("how", HOW)
def test_it_ends_within_a_second_while_an_engine_is_being_started(repo: Path, how: signal.Signals | None) -> None:
    with Editor(repo) as editor:
        editor.ask(1, "tools/list")
        until(editor.launched.exists)
        _end(editor, how)


@pytest.mark.parametrize("how", HOW)
def test_it_ends_within_a_second_while_nobody_reads_its_answers(
    editor: Editor, wire: Wire, how: signal.Signals | None
) -> None:
    wire.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        wire.socket.sendall(b"x" * 30_000 * 1000 + b"\n" * HELD)
    _end(editor, how)


@pytest.mark.parametrize("how", HOW)
def test_it_ends_within_a_second_while_the_engine_takes_nothing(
    editor: Editor, wire: Wire, how: signal.Signals | None
) -> None:
    os.set_blocking(editor.to.fileno(), False)
    while select.select([], [editor.to], [], 0.5)[1]:
        os.write(editor.to.fileno(), b'"text"\n' * 500)
    _end(editor, how)
    assert wire.line() == b'"text"\n'


@pytest.mark.parametrize("how", HOW)
def test_it_ends_within_a_second_while_the_engine_says_nothing_to_a_repeated_handshake(
    repo: Path, editor: Editor, engine: Engine, wire: Wire, how: signal.Signals | None
) -> None:
    editor.ask(1, "initialize")
    wire.answer(wire.hears())
    editor.hears()
    engine.dies()
    with Engine(repo) as silent:
        silent.meets().hears()
        _end(editor, how)


def test_an_editor_on_a_socket_is_as_good_as_one_on_a_pipe(repo: Path, engine: Engine) -> None:
    """Node gives its children sockets."""
    ours, theirs = socket.socketpair()
    with ours, theirs, Editor(repo, stdin=theirs.fileno()) as editor:
        theirs.close()
        wire = engine.meets()
        ours.sendall(b"one\n")
        assert wire.line() == b"one\n"
        ours.shutdown(socket.SHUT_WR)
        assert wire.line() == b""
        assert editor.ends() == 0
