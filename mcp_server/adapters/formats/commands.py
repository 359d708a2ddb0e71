"""A check as its author wrote it, one string, made into the argument list it is run by: no shell ever sees it."""

from __future__ import annotations

import re
import shlex

_OPERATOR = re.compile(r"[();<>|&]+")
_EXPANSION = re.compile(r"\$[A-Za-z_{(]|`")
_WRAP = "Checks are run without a shell; wrap it: [sh, -c, '...'], or give a list of arguments"


def argv(command: str) -> tuple[str, ...]:
    """Split a command as a shell would. Raises ValueError, with the remedy, for what only a shell can do."""
    text = command.strip()
    if not text:
        raise ValueError("the command is empty")
    if "\n" in text:
        raise ValueError(f"{text.splitlines()[0]!r} and more is a script of several lines. {_WRAP}")
    try:
        words = shlex.split(text)
        raw = shlex.shlex(text, posix=False, punctuation_chars=True)
        raw.whitespace_split = True
        raw.commenters = ""
        quoted = list(raw)
    except ValueError as error:
        raise ValueError(f"{text!r} cannot be split into arguments ({str(error).lower()})") from None
    for word in quoted:
        if _OPERATOR.fullmatch(word):
            raise ValueError(f"{text!r} uses the shell's {word!r}. {_WRAP}")
        if not word.startswith("'") and (found := _EXPANSION.search(word)):
            raise ValueError(f"{text!r} uses the shell's {found[0][0]!r}. {_WRAP}")
    if re.match(r"[A-Za-z_]\w*=", words[0]):
        raise ValueError(f"{text!r} sets a variable. Checks are run without a shell; begin it with `env`")
    return tuple(words)
