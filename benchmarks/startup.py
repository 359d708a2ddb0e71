"""How soon a server answers `initialize`, how long a status call takes, and what an idle engine process costs.

`python benchmarks/startup.py [--rounds 15] [--calls 2000] [--stories 200] [--idle-s 30]`

All of it is measured in one run, in turns, on this machine: `epicwave serve` with an engine process that is there
already (warm) and with none (cold), beside a server with one tool made of the same `mcp` package, and one made of the
TypeScript SDK (installed with npm into the user's cache folder; left out where there is no npm). What counts are the
ratios. The exit code is 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml
from platformdirs import user_cache_path

TYPESCRIPT = ("@modelcontextprotocol/server@2.4.0", "zod@4")
MINIMAL_PYTHON = """\
from mcp.server import MCPServer
server = MCPServer("mini")
@server.tool()
async def echo(x: str) -> str:
    "Echo."
    return x
server.run()
"""
MINIMAL_TYPESCRIPT = """\
import { McpServer } from "@modelcontextprotocol/server";
import { StdioServerTransport } from "@modelcontextprotocol/server/stdio";
import { z } from "zod";
const server = new McpServer({ name: "mini", version: "1" });
const answer = async ({ x }) => ({ content: [{ type: "text", text: x }] });
server.registerTool("echo", { description: "Echo.", inputSchema: z.object({ x: z.string() }) }, answer);
await server.connect(new StdioServerTransport());
"""
HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "benchmark", "version": "0"}}


class Client:
    """One server on pipes, asked line by line."""

    def __init__(self, command: Sequence[str], cwd: Path) -> None:
        began = time.perf_counter()
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=cwd, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        self._number = 0
        answer = self.ask("initialize", HELLO)
        self.start_s = time.perf_counter() - began
        assert "result" in answer, answer
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The answer, notifications passed over."""
        self._number += 1
        self._send({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            if answer.get("id") == self._number:
                return answer
        raise EOFError(method)

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """A tool's reply."""
        result = self.ask("tools/call", {"name": tool, "arguments": arguments})["result"]
        assert not result.get("isError"), result
        return result

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """The end of its input, and its end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


class Place:
    """A scratch repository and its engine process."""

    def __init__(self, folder: Path) -> None:
        self.repo = folder / "repo"
        self.repo.mkdir()
        for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "Begin"]):
            who = ["-c", "user.name=b", "-c", "user.email=b@localhost"]
            subprocess.run(["git", *who, *words], cwd=self.repo, check=True)
        script = Path(sys.executable).with_name("epicwave")
        self.serve = [str(script), "serve"] if script.exists() else [sys.executable, "-m", "mcp_server.cli", "serve"]

    def engine(self) -> psutil.Process:
        """The engine process that is alive now."""
        return psutil.Process(json.loads((self.repo / ".git/epicwave/door.json").read_text("utf-8"))["pid"])

    def end_engine(self) -> None:
        """End it in order, if there is one."""
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            engine = self.engine()
            engine.terminate()
            engine.wait(20)

    def plan(self, client: Client, stories: int) -> None:
        """An epic of that many stories."""
        lines = [{"id": f"S{n}", "title": f"Story {n}", "files": [f"f{n}.py"]} for n in range(stories)]
        client.call("plan_epic", epic_text=yaml.safe_dump({"id": "many", "title": "Many", "stories": lines}))


def typescript() -> list[str] | None:
    """The command of the minimal TypeScript server; None where it cannot be had."""
    home = user_cache_path("epicwave", appauthor=False) / "benchmark-typescript"
    home.mkdir(parents=True, exist_ok=True)
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        return None
    if not (home / "node_modules" / "@modelcontextprotocol" / "server").exists():
        subprocess.run([npm, "install", "--silent", "--no-audit", "--no-fund", *TYPESCRIPT], cwd=home, check=True)
    (home / "mini.mjs").write_text(MINIMAL_TYPESCRIPT, "utf-8")
    return [node, str(home / "mini.mjs")]


def starts(place: Place, servers: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Seconds to the answer of `initialize`, in turns."""
    took: dict[str, list[float]] = {name: [] for name in ("warm", "cold", *servers)}

    def one(name: str, command: Sequence[str]) -> None:
        client = Client(command, place.repo)
        took[name].append(client.start_s)
        client.close()

    for name, command in servers.items():
        one(name, command)  # compiled and cached, for all alike
        took[name].clear()
    for _ in range(rounds):
        place.end_engine()
        one("cold", place.serve)
        one("warm", place.serve)
        for name, command in servers.items():
            one(name, command)
    return took


def calls(client: Client, number: int) -> list[float]:
    """Seconds of each status call of the epic with many stories."""
    took: list[float] = []
    for _ in range(number):
        began = time.perf_counter()
        client.call("story_status", epic="many")
        took.append(time.perf_counter() - began)
    return sorted(took)


def idle(engine: psutil.Process, seconds: float) -> tuple[float, float]:
    """Share of a core, and MiB, of an engine process with one client that asks nothing."""
    before = engine.cpu_times()
    time.sleep(seconds)
    after = engine.cpu_times()
    used = after.user + after.system - before.user - before.system
    return used / seconds, engine.memory_info().rss / 2**20


def main() -> int:
    """Measure, print, and say whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--stories", type=int, default=200)
    parser.add_argument("--idle-s", type=float, default=30.0)
    asked = parser.parse_args()
    met: list[bool] = []

    def goal(text: str, value: float, limit: float, show: Callable[[float], str]) -> None:
        met.append(value <= limit)
        print(f"{text}: {show(value)} (goal: at most {show(limit)}){'' if met[-1] else '  MISSED'}")

    with tempfile.TemporaryDirectory(prefix="epicwave-startup-") as folder:
        place = Place(Path(folder))
        servers = {"minimal Python": [sys.executable, "-c", MINIMAL_PYTHON]}
        node = typescript()
        if node is None:
            print("minimal TypeScript: not measured, there is no npm here")
        else:
            servers["minimal TypeScript"] = node
        print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {asked.rounds} rounds in turns")
        try:
            took = starts(place, servers, asked.rounds)
            for name, seconds in took.items():
                middle = statistics.median(seconds) * 1e3
                print(
                    f"  {name:20} initialize after {middle:7.1f} ms ({min(seconds) * 1e3:.0f}-{max(seconds) * 1e3:.0f})"
                )
            ratio = {n: statistics.median(w / m for w, m in zip(took["warm"], took[n], strict=True)) for n in servers}
            goal("warm / minimal Python", ratio["minimal Python"], 0.1, "{:.3f}".format)
            if node is not None:
                goal("warm / minimal TypeScript", ratio["minimal TypeScript"], 0.5, "{:.3f}".format)
            client = Client(place.serve, place.repo)
            place.plan(client, asked.stories)
            status = calls(client, asked.calls)
            print(f"status of {asked.stories} stories over the pump, {asked.calls} calls:")
            goal("  p50", status[len(status) // 2] * 1e3, 2.0, "{:.2f} ms".format)
            goal("  p99", status[int(len(status) * 0.99)] * 1e3, 10.0, "{:.2f} ms".format)
            time.sleep(3)
            share, memory_mib = idle(place.engine(), asked.idle_s)
            goal("idle engine process, share of a core", share, 0.005, "{:.2%}".format)
            print(f"its memory: {memory_mib:.0f} MiB")
            client.close()
        finally:
            place.end_engine()
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
