"""Our configuration file as keys and values: YAML that is refused, with its line, where it is doubtful."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml

from mcp_server.errors import Code, Refused

MAX_FILE_BYTES = 1_000_000
SHOWN_CHARS = 80


def read_mapping(path: Path) -> dict[str, Any]:
    """The file's keys and values, none when it is missing or empty. Refuses (`bad_config`) anything else."""
    other = path.with_suffix(".yml")
    if other.exists() and not path.exists():
        raise Refused(Code.BAD_CONFIG, f"{other} is not read.", f"Rename it to {path.name}.")
    try:
        raw = path.read_bytes() if path.exists() else b""
        if len(raw) > MAX_FILE_BYTES:
            raise Refused(Code.BAD_CONFIG, f"{path} has {len(raw)} bytes.", f"Keep it below {MAX_FILE_BYTES}.")
        document: object = yaml.load(raw.decode("utf-8-sig"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(
            Code.BAD_CONFIG, f"{path} cannot be read: {error}.", "Make it a small YAML file in utf-8."
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = getattr(error, "problem", None) or str(error)
        raise Refused(Code.BAD_CONFIG, f"{path} is no YAML: {where}{what}.", "Correct that line.") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        why = f"{path} holds {shown(document)}, not keys with values."
        raise Refused(Code.BAD_CONFIG, why, "Begin it with 'epic:'.")
    return {str(key): value for key, value in cast("dict[object, Any]", document).items()}


class _Loader(yaml.SafeLoader):
    """YAML in which a key that is there twice is an error, and not the last one's silent victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def shown(value: object) -> str:
    """A value as a refusal quotes it."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 3]}..."
