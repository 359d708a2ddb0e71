"""One string becomes the words it is run as, or is refused with a way out."""

from __future__ import annotations

import pytest

from mcp_server.core.argv import ShellSyntaxError, split


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pytest -q", ("pytest", "-q")),
        ("'/opt/my tools/run' --name=\"a b\"", ("/opt/my tools/run", "--name=a b")),
        ("python -c 'print(1); x = 2 > 1'", ("python", "-c", "print(1); x = 2 > 1")),
        ("grep '#' notes # not a comment", ("grep", "#", "notes", "#", "not", "a", "comment")),
        ("tool '$HOME' ~ *.py {a} ''", ("tool", "$HOME", "~", "*.py", "{a}", "")),
        ("tool --flag=x caf\u00e9", ("tool", "--flag=x", "caf\u00e9")),
        ("python -c 'a = 1\nb = 2'", ("python", "-c", "a = 1\nb = 2")),
    ],
)
def test_quotes_group_and_nothing_is_expanded(text: str, words: tuple[str, ...]) -> None:
    assert split(text) == words


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("ruff check && pytest", "'&&'"),
        ("cat x|wc", r"'\|'"),
        ("pytest >log", "'>'"),
        ("pytest 2>&1", "'>&'"),
        ("a; b", "';'"),
        ("sleep 9 &", "'&'"),
        ("(a)", r"'\('"),
        ("CI=1 pytest", "begins with an assignment.*env CI=1 pytest"),
        ("say 'hello", "no closing quotation"),
        ("  ", "empty"),
        ("cd src\nmake", "script of several lines"),
        ("echo $HOME", r"'\$'"),
        ("echo `x`", "'`'"),
    ],
)
def test_what_needs_a_shell_is_refused(text: str, what: str) -> None:
    with pytest.raises(ShellSyntaxError, match=what):
        split(text)
