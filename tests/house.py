"""The rules of the house, each a function from a source tree to findings; `test_house.py` keeps them.

A finding is one line, `path:line: what. Remedy.`, so that whoever reads a red test knows the next move.
"""

from __future__ import annotations

import ast
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

Tree = Mapping[str, str]
"""Repository-relative path, with `/` between parts, to text."""
Rule = Callable[[Tree], list[str]]

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

_MEASURED = ("mcp_server/", "tests/", "benchmarks/")
_NOT_OURS = frozenset({".git", ".venv", ".cache", "__pycache__", "build", "dist", "node_modules", "worktrees"})
"""Folders that tools make; nothing below them is read."""
_NOT_OURS_ENDINGS = (".egg-info", "_cache", ".hypothesis")


def read_tree(root: Path) -> dict[str, str]:
    """All text files of the checkout; what is not utf-8 is no text."""
    tree: dict[str, str] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f not in _NOT_OURS and not f.endswith(_NOT_OURS_ENDINGS)]
        for name in names:
            path = Path(folder, name)
            try:
                tree[path.relative_to(root).as_posix()] = path.read_text("utf-8")
            except UnicodeDecodeError:
                continue
    return tree


def _modules(tree: Tree, *under: str) -> Iterator[tuple[str, ast.Module]]:
    for path, text in sorted(tree.items()):
        if path.endswith(".py") and path.startswith(under or _MEASURED):
            yield path, ast.parse(text, path)


def _nodes(tree: Tree, *under: str) -> Iterator[tuple[str, ast.AST, int]]:
    """Every node that has a line, with its path and that line."""
    for path, module in _modules(tree, *under):
        for node in ast.walk(module):
            yield path, node, getattr(node, "lineno", 0)


def _imports(path: str, module: ast.Module) -> Iterator[tuple[str, int]]:
    """Dotted names that a module imports, relative ones resolved, with their lines; `from a import b` gives `a.b`."""
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(module):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield alias.name, node.lineno
            case ast.ImportFrom(module=source, names=names, level=level):
                above = package[: len(package) - level + 1] if level else []
                stem = ".".join([*above, *([source] if source else [])])
                for alias in names:
                    yield f"{stem}.{alias.name}", node.lineno
            case _:
                pass


def _dotted(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


# --- sizes -----------------------------------------------------------------------------------------------------------


def small_files(tree: Tree) -> list[str]:
    """No file over 400 lines."""
    return [
        f"{path}:{lines}: {lines} lines, {MAX_FILE_LINES} are allowed. Split it by subject: one noun, one file."
        for path, text in sorted(tree.items())
        if path.startswith(_MEASURED) and path.endswith(".py") and (lines := text.count("\n")) > MAX_FILE_LINES
    ]


def small_functions(tree: Tree) -> list[str]:
    """No function over 60 lines, docstring included."""
    return [
        f"{path}:{line}: {node.name} has {size} lines, {MAX_FUNCTION_LINES} are allowed. "
        "Give its steps names: one function a step."
        for path, node, line in _nodes(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or line) - line + 1) > MAX_FUNCTION_LINES
    ]


# --- layers ----------------------------------------------------------------------------------------------------------

_LAYERS = {
    "__init__": 0,
    "errors": 0,
    "front": 0,
    "core": 1,
    "probe": 2,
    "land_port": 2,
    "ports": 3,
    "adapters": 4,
    "engine": 4,
    "server": 5,
    "cli": 6,
    "testing": 7,
    "__main__": 8,
}
_MAY_IMPORT_TESTING = ("mcp_server/cli/demo", "mcp_server/cli/simulate")


def _room(dotted: str) -> str:
    """`mcp_server.core.model` is in the room core; the package itself, which holds the version, is in none."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "mcp_server" else ""


def rooms_are_known(tree: Tree) -> list[str]:
    """Every module lies in a room of the table, so that the next rule sees it."""
    return [
        f"{path}:1: the room {room!r} has no layer. Move the module to a room that has one."
        for path, _ in _modules(tree, "mcp_server/")
        if (room := _room(_dotted(path))) not in _LAYERS
    ]


def imports_go_downward(tree: Tree) -> list[str]:
    """core < probe < ports < adapters | engine < server < cli; siblings never meet; demo and simulate use testing."""
    findings: list[str] = []
    for path, module in _modules(tree, "mcp_server/"):
        own = _room(_dotted(path))
        for name, line in _imports(path, module):
            room = _room(name)
            if room == own or room not in _LAYERS or own not in _LAYERS:
                continue
            if room == "testing" and path.startswith(_MAY_IMPORT_TESTING):
                continue
            if _LAYERS[room] >= _LAYERS[own]:
                findings.append(
                    f"{path}:{line}: {own} imports {name}. Imports go downward only: "
                    "ask through a Protocol of ports.py, or move the code to its room."
                )
    return findings


# --- bans ------------------------------------------------------------------------------------------------------------

_CORE_IS_PURE = frozenset(
    {"time", "random", "datetime", "os", "pathlib", "anyio", "logging", "sqlite3", "asyncio", "subprocess"}
)
_ONLY_IN = {
    "networkx": ("mcp_server/core/planning.py",),
    "git": ("mcp_server/adapters/git/",),
    "mcp": ("mcp_server/server/",),
    "mcp_types": ("mcp_server/server/",),
}
_BANNED_CALLS = {
    "os.chdir": "Pass cwd= to the one call that needs it",
    "contextlib.chdir": "Pass cwd= to the one call that needs it",
    "os.system": "Start an argv list",
    "os.popen": "Start an argv list",
    "asyncio.create_subprocess_shell": "Start an argv list",
    "asyncio.gather": "Use an anyio task group, which owns what it starts",
    "asyncio.create_task": "Use an anyio task group, which owns what it starts",
    "asyncio.ensure_future": "Use an anyio task group, which owns what it starts",
}
_MAY_SLEEP = (
    "benchmarks/outlive.py",
    "benchmarks/startup.py",
    "benchmarks/torture.py",
    "benchmarks/torture_engine.py",
    "mcp_server/front/",
    "mcp_server/testing/",
    "mcp_server/adapters/agents/",
    "mcp_server/front/",
    "tests/agents/",
    "tests/contracts/",
    "tests/front/",
    "tests/journeys/",
)
"""Where real processes are polled, in a thread or a process of its own."""


_MAY_GATHER = "benchmarks/claim/plain.py"
"""The runner that we are measured against."""


def core_is_pure(tree: Tree) -> list[str]:
    """core takes values: no clock, no chance, no I/O."""
    return [
        f"{path}:{line}: core imports {name}. Take the value as an argument."
        for path, module in _modules(tree, "mcp_server/core/")
        for name, line in _imports(path, module)
        if name.split(".")[0] in _CORE_IS_PURE
    ]


def libraries_stay_home(tree: Tree) -> list[str]:
    """Each big library has one room, so that it can be changed there."""
    return [
        f"{path}:{line}: {name} is imported here. Only {home[0]} may; ask that room."
        for path, module in _modules(tree, "mcp_server/")
        for name, line in _imports(path, module)
        for library, home in _ONLY_IN.items()
        if _within(name, library) and not path.startswith(home)
    ]


def no_banned_calls(tree: Tree) -> list[str]:
    """No change of directory, no shell, no task that nobody owns, no waiting for time."""
    findings: list[str] = []
    for path, module in _modules(tree):
        banned = dict(_BANNED_CALLS)
        if not path.startswith(_MAY_SLEEP):
            banned["time.sleep"] = "Wait for the thing itself, or take a clock"
        if path == _MAY_GATHER:
            del banned["asyncio.gather"]
        used = {(name, line) for name, line in _imports(path, module) if name in banned}
        used |= {(ast.unparse(n), n.lineno) for n in ast.walk(module) if isinstance(n, ast.Attribute)}
        findings += [f"{path}:{line}: {name}. {banned[name]}." for name, line in sorted(used) if name in banned]
    return findings


def no_shell(tree: Tree) -> list[str]:
    """`shell=` is never true."""
    return [
        f"{path}:{line}: shell=True. Start an argv list."
        for path, node, line in _nodes(tree)
        if isinstance(node, ast.keyword) and node.arg == "shell" and ast.unparse(node.value) != "False"
    ]


def _caught(node: ast.AST) -> set[str]:
    """Names of the errors that a handler or a `suppress` catches; `everything` for a bare except."""
    match node:
        case ast.ExceptHandler(type=None):
            return {"everything"}
        case ast.ExceptHandler(type=ast.expr() as caught):
            return {ast.unparse(n) for n in ast.walk(caught) if isinstance(n, ast.expr)}
        case ast.Call(func=func, args=args) if ast.unparse(func) in {"suppress", "contextlib.suppress"}:
            return {ast.unparse(a) for a in args}
        case _:
            return set()


def no_wide_except(tree: Tree) -> list[str]:
    """Only named errors are caught; BaseException may be seen on its way, where the handler ends in `raise`."""
    findings: list[str] = []
    for path, node, line in _nodes(tree):
        wide = _caught(node) & {"everything", "Exception", "BaseException"}
        last = node.body[-1] if isinstance(node, ast.ExceptHandler) else None
        if wide == {"BaseException"} and isinstance(last, ast.Raise) and last.exc is None:
            continue
        if wide:
            findings.append(f"{path}:{line}: catches {', '.join(wide)}. Name the error you expect.")
    return findings


# --- words -----------------------------------------------------------------------------------------------------------

_CI = ".ci/run"
"""The one file that may know what lies beside the checkout."""
ELSEWHERE = tuple(name.replace("|", "") for name in ("../sha|red", "/work/sha|red", "/work/ma|in", ".libr|ary/"))
REGISTRIES = tuple(name.replace("|", "") for name in ("pypi.o|rg", "pythonhosted.o|rg", "npmjs.o|rg", "npmjs.c|om"))
"""Both spelled with a bar, else this file would be their first finding."""


def _lines_with(tree: Tree, words: tuple[str, ...]) -> Iterator[tuple[str, int, str]]:
    for path, text in sorted(tree.items()):
        for number, line in enumerate(text.splitlines(), 1):
            for word in words:
                if word in line:
                    yield path, number, word


def nothing_beside_the_checkout(tree: Tree) -> list[str]:
    """The project stands alone: what lies beside one checkout is named in `.ci/run` and nowhere else."""
    return [
        f"{path}:{line}: mentions {word}. Take it from the environment (EPICWAVE_CORPUS), or make a small fixture."
        for path, line, word in _lines_with(tree, ELSEWHERE)
        if path != _CI
    ]


def no_registry_host(tree: Tree) -> list[str]:
    """Package clients know their registry from the machine."""
    return [
        f"{path}:{line}: names the registry {word}. Name the package, not where it comes from."
        for path, line, word in _lines_with(tree, REGISTRIES)
    ]


PLUGINS = (".claude-plugin/plugin.json", ".cursor-plugin/plugin.json")


def one_version(tree: Tree) -> list[str]:
    """pyproject.toml, the package and the plugins say the same."""
    in_package = re.search(r'^__version__ = "([^"]+)"', tree["mcp_server/__init__.py"], re.MULTILINE)
    versions = {
        "pyproject.toml": tomllib.loads(tree["pyproject.toml"])["project"]["version"],
        "mcp_server/__init__.py": in_package[1] if in_package else None,
        **{path: json.loads(tree[path])["version"] for path in PLUGINS},
    }
    if len(set(versions.values())) == 1:
        return []
    return [f"{path}:1: the version is {version}. Make all the same." for path, version in versions.items()]


RULES: tuple[Rule, ...] = (
    small_files,
    small_functions,
    rooms_are_known,
    imports_go_downward,
    core_is_pure,
    libraries_stay_home,
    no_banned_calls,
    no_shell,
    no_wide_except,
    nothing_beside_the_checkout,
    no_registry_host,
    one_version,
)
