"""A command that somebody wrote as one string, as the argument list it is run as. No shell ever sees it."""

from __future__ import annotations

import re
import shlex

_OPERATOR = re.compile(r"[();<>|&]+")
_EXPANSION = re.compile(r"\$[A-Za-z_{(]|`")
_QUOTED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.""", re.DOTALL)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_WRAP = "Commands are run without a shell; wrap it: [sh, -c, '...'], or give a list of words."


class ShellSyntaxError(ValueError):
    """The string needs a shell. `why` says what stands in the way, `remedy` how to write it instead."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(f"{why} {remedy}")
        self.why = why
        self.remedy = remedy


def split(text: str) -> tuple[str, ...]:
    """Words by the rules of a POSIX shell's quoting, on every system, nothing expanded. Raises `ShellSyntaxError`."""
    command = text.strip()
    if not command:
        raise ShellSyntaxError("The command is empty.", "Name a program and its arguments.")
    if "\n" in _QUOTED.sub("", command):
        raise ShellSyntaxError(f"{command.splitlines()[0]!r} and more is a script of several lines.", _WRAP)
    try:
        words = tuple(shlex.split(command))
        raw = shlex.shlex(command, posix=False, punctuation_chars=True)
        raw.whitespace_split = True
        raw.commenters = ""
        quoted = list(raw)
    except ValueError as error:
        why = f"{command!r} cannot be split into words: {str(error).lower()}."
        raise ShellSyntaxError(why, "Close the quotes, or give a list of words.") from error
    for word in quoted:
        if _OPERATOR.fullmatch(word):
            raise ShellSyntaxError(f"{command!r} uses the shell's {word!r}.", _WRAP)
        if not word.startswith("'") and (found := _EXPANSION.search(word)):
            raise ShellSyntaxError(f"{command!r} uses the shell's {found[0][0]!r}.", _WRAP)
    if _ASSIGNMENT.match(words[0]):
        raise ShellSyntaxError(f"{command!r} begins with an assignment.", f"Write 'env {shlex.join(words)}'.")
    return words


def quoted(word: str) -> str:
    r"""The word as a shell would take it back; what is not seen when it is printed is escaped, as in `$'a\nb'`."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(_escaped(letter) for letter in word) + "'"


def _escaped(letter: str) -> str:
    if letter in "\\'":
        return "\\" + letter
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
