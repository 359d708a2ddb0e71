"""`.epicwave/config.yaml`: the defaults, what it takes, and how it refuses."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from mcp_server.adapters.agents.profiles import BUILT_IN
from mcp_server.adapters.agents.signs import Format, Signs
from mcp_server.core.limits import Budget, Environment, Policy, Strategy
from mcp_server.core.merge_rules import DEFAULTS, MergeRule, Way
from mcp_server.core.spec import Sharing
from mcp_server.errors import Code, Refused
from mcp_server.server.settings import Settings, load_settings


def load(top: Path, text: str | bytes) -> Settings:
    path = top / ".epicwave" / "config.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_settings(top)


def refusal(top: Path, text: str | bytes) -> str:
    with pytest.raises(Refused) as caught:
        load(top, text)
    assert caught.value.code is Code.BAD_CONFIG
    return caught.value.why


def test_without_a_file_the_defaults_are_the_documented_ones(tmp_path: Path) -> None:
    settings = load_settings(tmp_path)
    assert settings.epic.model_dump() == {
        "max_parallel_stories": 3,
        "parallel_strategy": "sequential",
        "fail_fast": True,
        "overlap": "exclusive",
        "footprint_exempt": (),
        "attempts": 2,
        "attempt_timeout_s": 1800.0,
        "stall_timeout_s": 600.0,
        "check_timeout_s": 600.0,
        "batch": 4,
        "repairs": 2,
        "lease_s": 900.0,
        "agent": "claude",
        "checks": (),
        "setup": None,
        "setup_timeout_s": 600.0,
        "port_base": 20_000,
        "port_block": 10,
        "worktree_quota_mb": None,
        "min_free_mb": 500,
        "merge_rules": tuple(asdict(rule) for rule in DEFAULTS),
        "worktree_pool": 4,
        "worktree_keep": (),
        "worktrees_dir": None,
        "fallback_agent": None,
        "breaker_faults": 3,
        "breaker_cooldown_s": 30.0,
        "epic_timeout_s": None,
        "budget_usd": None,
        "budget_tokens": None,
        "story_budget_usd": None,
        "story_budget_tokens": None,
        "adaptive_slots": False,
    }
    assert settings.agents == {}
    assert settings.policy() == Policy(merge_rules=DEFAULTS)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "epic:\n", "epic:\nagents:\n", b"\xef\xbb\xbfepic: {}\n"])
def test_an_empty_file_means_the_defaults(tmp_path: Path, text: str | bytes) -> None:
    assert load(tmp_path, text).policy() == Policy(merge_rules=DEFAULTS)


def test_every_key_is_taken(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """\
epic:
  max_parallel_stories: 5
  parallel_strategy: "asyncio"
  fail_fast: false
  overlap: auto
  attempts: 4
  attempt_timeout_s: 60
  stall_timeout_s: 1.5
  check_timeout_s: 30
  agent: mine
  fallback_agent: claude
  breaker_faults: 0
  breaker_cooldown_s: 300
  epic_timeout_s: 7200
  budget_usd: 20
  budget_tokens: 9000000
  story_budget_usd: 2.5
  story_budget_tokens: 800000
  adaptive_slots: true
  checks: ["pytest -q 'a b'", [sh, -c, "a && b", 5], {run: "slow --all", timeout_s: 90}]
  setup: ["npm ci", [sh, -c, "make > log"]]
  setup_timeout_s: 900
  port_base: 30000
  port_block: 5
  worktree_quota_mb: 4000
  min_free_mb: 0
  merge_rules: {}
  worktrees_dir: ../trees
agents:
  mine: {command: tool --at {worktree}, environment: {A: b}}
""".replace("tool --at {worktree}", '"tool --at {worktree}"'),
    )
    assert settings.policy(checks=[("ruff",), ("pytest", "-q", "a b")]) == Policy(
        strategy=Strategy.ASYNCIO,
        slots=5,
        fail_fast=False,
        overlap=Sharing.AUTO,
        attempts=4,
        attempt_timeout_s=60,
        stall_timeout_s=1.5,
        check_timeout_s=30,
        agent="mine",
        fallback="claude",
        breaker_faults=0,
        cooldown_s=300,
        cooldown_cap_s=300,
        epic_timeout_s=7200,
        budget=Budget(2.5, 800_000, 20.0, 9_000_000),
        adaptive_slots=True,
        environment=Environment((("npm", "ci"), ("sh", "-c", "make > log")), 900.0, 30_000, 5, 4000, 0),
        checks=(("pytest", "-q", "a b"), ("sh", "-c", "a && b", "5"), ("slow", "--all"), ("ruff",)),
        check_limits=((("slow", "--all"), 90.0),),
    )
    assert settings.worktrees_dir == tmp_path / "../trees"
    mine = settings.agents["mine"]
    assert (mine.command, mine.environment) == (("tool", "--at", "{worktree}"), {"A": "b"})


def test_an_agent_has_its_own_signs_besides_those_of_its_program(tmp_path: Path) -> None:
    """One pattern, or a list of them."""
    settings = load(
        tmp_path,
        "agents:\n  mine: {command: my-agent -p, rate_limit: 'no more (today|this week)', api_error: [down, gone]}\n"
        "  other: {command: codex exec --json -}\n",
    )
    assert settings.agents["mine"].signs == Signs(Format.PLAIN, ("no more (today|this week)",), ("down", "gone"))
    assert settings.agents["other"].signs == BUILT_IN["codex"].signs


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("max_parallel_storys: 3", "epic.max_parallel_storys is no key; did you mean max_parallel_stories?"),
        ("zzz: 3", "epic.zzz is no key; allowed: max_parallel_stories, parallel_strategy, fail_fast"),
        ("max_parallel_stories: 0", "epic.max_parallel_stories is 0; allowed: a whole number from 1 to 64"),
        ("max_parallel_stories: 65", "is 65; allowed: a whole number from 1 to 64"),
        ("max_parallel_stories: many", "is 'many'; allowed: a whole number from 1 to 64"),
        ("max_parallel_stories: true", "is True: it is a number, not yes or no"),
        ("parallel_strategy: threads", "is 'threads'; allowed: sequential | asyncio | agent-teams"),
        ("fail_fast: maybe", "epic.fail_fast is 'maybe'; allowed: true | false"),
        ("attempts: 11", "epic.attempts is 11; allowed: a whole number from 1 to 10"),
        ("attempt_timeout_s: 0", "epic.attempt_timeout_s is 0; allowed: seconds, more than 0"),
        ("stall_timeout_s: .nan", "epic.stall_timeout_s is nan; allowed: seconds"),
        ("check_timeout_s: .inf", "epic.check_timeout_s is inf; allowed: seconds"),
        ("agent: ''", "epic.agent is ''; allowed: the name of an agent"),
        ("checks: pytest", "epic.checks is 'pytest'; allowed: a list of commands"),
        ("checks: [a, 'b && c']", "epic.checks entry 2 is 'b && c': 'b && c' uses the shell's '&&'"),
        ("checks: [pytest, -q]", "epic.checks entry 2 is '-q': no program is called '-q'"),
        (
            "checks: [{run: a, timeout_s: 0}]",
            "entry 1 is {'run': 'a', 'timeout_s': 0}: timeout_s is more than 0",
        ),
        ("checks: [{run: a, timeout_s: yes}]", "timeout_s is more than 0 and at most 604800 seconds"),
        ("checks: [{run: a, timeout_s: .nan}]", "timeout_s is more than 0 and at most 604800 seconds"),
        ("checks: [{timeout_s: 3}]", "a command is a string or a list of words"),
        ("checks: [{run: a, limit: 3}]", "a check has the keys run and timeout_s"),
        ("setup: [{run: a}]", "epic.setup entry 1 is {'run': 'a'}: a command is a string or a list of words"),
        ("setup: npm ci", "epic.setup is 'npm ci'; allowed: a list of commands"),
        ("setup: ['a && b']", "epic.setup entry 1 is 'a && b': 'a && b' uses the shell's '&&'"),
        ("port_base: 80", "epic.port_base is 80; allowed: a port from 1024 to 65535"),
        ("port_block: -1", "epic.port_block is -1; allowed: a whole number from 0 (none) to 1000"),
        ("worktree_quota_mb: 0", "epic.worktree_quota_mb is 0; allowed: megabytes, more than 0, or null"),
        ("budget_usd: 0", "epic.budget_usd is 0; allowed: US dollars, more than 0, or null"),
        ("epic_timeout_s: 0", "epic.epic_timeout_s is 0; allowed: seconds, more than 0"),
        ("min_free_mb: yes", "epic.min_free_mb is True: it is a number, not yes or no"),
        ("checks: [[]]", "epic.checks entry 1 is []: a command is a string or a list of words"),
    ],
)
def test_a_wrong_line_is_named_with_what_is_allowed(tmp_path: Path, line: str, words: str) -> None:
    why = refusal(tmp_path, f"epic:\n  {line}\n")
    assert words in why
    assert str(tmp_path / ".epicwave" / "config.yaml") in why


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epics: {}", "epics is no key; did you mean epic?"),
        ("epic: 3", "epic is 3; allowed: keys with values"),
        ("agents: {a: 3}", "agents.a is 3; allowed: keys with values"),
        ("agents: {a: {}}", "agents.a.command is missing; allowed: a string or a list of words"),
        ("agents: {a: {command: x, env: {}}}", "agents.a.env is no key; allowed: command, environment"),
        ("agents: {a: {command: x, rate_limit: '('}}", "agents.a.rate_limit is '(': '(' is no regular expression (mis"),
        ("agents: {a: {command: x, api_error: [a, '[']}}", "agents.a.api_error is ['a', '[']: '[' is no regular expr"),
        ("agents: {a: {command: x, api_error: [3]}}", "agents.a.api_error is [3]: a pattern is a regular expression"),
        ("agents: {a: {command: x, rate_limit: 3}}", "agents.a.rate_limit is 3: a pattern is a regular expression"),
        ("agents: {a: {command: x, rate_limit: 'a*'}}", "rate_limit is 'a*': 'a*' would be found in everything"),
        ("agents: {a: {command: 'x | y'}}", "agents.a.command is 'x | y': 'x | y' uses the shell's '|'"),
        ("agents: {a: {command: x, environment: {A: 1}}}", "agents.a.environment is 1; allowed: a mapping"),
        ("- epic", "holds ['epic'], not keys with values"),
        ("epic:\n  attempts: [\n", "line 3"),
        ("epic:\n  attempts: 2\n  attempts: 3\n", "line 3, column 3: 'attempts' is there twice"),
        ("epic: !!python/object:os.system x", "line 1"),
        (b"epic: \xff\xfe", "cannot be read"),
        (b"#" * 1_000_001, "1000001 bytes"),
        ("[" * 20_000, "cannot be read"),
    ],
)
def test_a_file_that_is_not_right_is_refused(tmp_path: Path, text: str | bytes, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_all_errors_are_named_at_once(tmp_path: Path) -> None:
    why = refusal(tmp_path, "epic: {attempts: 0, fail: 1}\nagents: {a: {}}\nother: 1\n")
    assert [n for n in ("epic.attempts", "epic.fail", "agents.a.command", "other is no key") if n not in why] == []
    assert re.findall(r"\(\d\)", why) == ["(1)", "(2)", "(3)", "(4)"]


def test_the_other_spelling_of_the_file_is_not_silently_ignored(tmp_path: Path) -> None:
    (tmp_path / ".epicwave").mkdir()
    (tmp_path / ".epicwave" / "config.yml").touch()
    with pytest.raises(Refused, match=r"Rename it to config\.yaml"):
        load_settings(tmp_path)


def test_a_variable_stands_above_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPICWAVE_EPIC__MAX_PARALLEL_STORIES", "7")
    monkeypatch.setenv("EPICWAVE_EPIC__FAIL_FAST", "false")
    monkeypatch.setenv("EPICWAVE_EPIC__CHECKS", '["pytest -q"]')
    settings = load(tmp_path, "epic: {max_parallel_stories: 2, parallel_strategy: asyncio}")
    policy = settings.policy()
    assert (policy.slots, policy.fail_fast, policy.checks) == (7, False, (("pytest", "-q"),))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ATTEMPTS", "many", "epic.attempts is 'many' (from the variable EPICWAVE_EPIC__ATTEMPTS)"),
        ("ATTEMPT", "1", "EPICWAVE_EPIC__ATTEMPT sets no key; did you mean attempts?"),
        ("CHECKS", "pytest", "EPICWAVE_EPIC__"),
    ],
)
def test_a_wrong_variable_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"EPICWAVE_EPIC__{name}", value)
    assert words in refusal(tmp_path, "")


def test_the_agents_own_variables_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EPIC", "STORY", "ATTEMPT", "BRIEF", "LEASH", "SCRIPT", "CORPUS"):
        monkeypatch.setenv(f"EPICWAVE_{name}", "E-1")
    for name in ("AGENT", "CHECKS", "ATTEMPTS"):
        monkeypatch.setenv(name, "not ours")
    assert load_settings(tmp_path).policy() == Policy(merge_rules=DEFAULTS)


def test_sequential_has_one_slot_whatever_the_file_says(tmp_path: Path) -> None:
    settings = load(tmp_path, "epic: {max_parallel_stories: 9}")
    assert settings.policy().slots == settings.policy("sequential", 1).slots == 1
    assert settings.policy("asyncio").slots == 9
    assert settings.policy("asyncio", 2).slots == 2


@pytest.mark.parametrize(
    ("strategy", "slots", "code", "words"),
    [
        (None, 2, Code.BAD_ARGUMENT, "Choose the strategy asyncio"),
        ("asyncio", 0, Code.BAD_ARGUMENT, "from 1 to 64"),
        ("asyncio", 65, Code.BAD_ARGUMENT, "from 1 to 64"),
        ("threads", None, Code.BAD_ARGUMENT, r"Choose one of sequential \| asyncio \| agent-teams"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(
    tmp_path: Path, strategy: str | None, slots: int | None, code: Code, words: str
) -> None:
    with pytest.raises(Refused, match=words) as caught:
        load_settings(tmp_path).policy(strategy, slots)
    assert caught.value.code is code


def test_sub_agents_get_as_many_slots_as_the_file_allows_and_leases_as_long(tmp_path: Path) -> None:
    settings = load(tmp_path, "epic: {parallel_strategy: agent-teams, max_parallel_stories: 4, lease_s: 60}")
    policy = settings.policy()
    assert (policy.strategy, policy.slots, policy.lease_s) == (Strategy.AGENT_TEAMS, 4, 60.0)
    assert settings.policy("asyncio").strategy is Strategy.ASYNCIO


def test_merge_rules_come_before_the_built_in_ones_and_reach_the_policy(tmp_path: Path) -> None:
    text = """epic:
  merge_rules:
    "docs/**/*.md": union
    uv.lock: agent
    schema.json: python -m tools.schema
    gen/*.py: [make, gen]
    .version: ours
"""
    assert load(tmp_path, text).policy().merge_rules == (
        MergeRule("docs/**/*.md", Way.UNION),
        MergeRule("uv.lock", Way.AGENT),
        MergeRule("schema.json", Way.REGENERATE, ("python", "-m", "tools.schema")),
        MergeRule("gen/*.py", Way.REGENERATE, ("make", "gen")),
        MergeRule(".version", Way.OURS),
        *DEFAULTS,
    )


@pytest.mark.parametrize(("value", "rules"), [("{}", ()), ("null", DEFAULTS), ("", DEFAULTS)])
def test_an_empty_mapping_switches_all_merge_rules_off(
    tmp_path: Path, value: str, rules: tuple[MergeRule, ...]
) -> None:
    assert load(tmp_path, f"epic:\n  merge_rules: {value}\n").policy().merge_rules == rules


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("[uv.lock]", "allowed: a mapping of globs to union, ours, agent or a command, or null"),
        ("{docs/: union}", "'docs/' is no glob of files; all that is below a folder is `folder/**`"),
        ("{uv.lock: 'uv lock && true'}", "'uv.lock' has 'uv lock && true': 'uv lock && true' uses the shell's '&&'"),
        ("{uv.lock: 3}", "'uv.lock' has 3: a command is a string or a list of words"),
    ],
)
def test_merge_rules_that_cannot_be_are_refused_with_the_reason(tmp_path: Path, value: str, why: str) -> None:
    assert why in refusal(tmp_path, f"epic:\n  merge_rules: {value}\n")


@pytest.mark.parametrize("value", ["yes", "false"])
def test_the_key_of_before_says_what_to_write_in_its_place(tmp_path: Path, value: str) -> None:
    said = refusal(tmp_path, f"epic:\n  conflict_detection: {value}\n")
    assert "epic.conflict_detection is no key any more; `overlap: exclusive` says what true said" in said
    assert "`overlap: optimistic` what false said" in said


@pytest.mark.parametrize("value", ["[/etc/passwd]", "['../x']", "['']", "x.md", "[5]"])
def test_what_is_no_path_in_the_repository_cannot_be_exempt(tmp_path: Path, value: str) -> None:
    assert "epic.footprint_exempt" in refusal(tmp_path, f"epic:\n  footprint_exempt: {value}\n")


def test_exempt_files_reach_the_policy_in_their_one_spelling(tmp_path: Path) -> None:
    settings = load(tmp_path, "epic: {footprint_exempt: [CHANGELOG.md, ./locks//*.lock]}\n")
    assert settings.policy().exempt == ("CHANGELOG.md", "locks/*.lock")


def test_an_epics_overlap_stands_above_the_configurations(tmp_path: Path) -> None:
    settings = load(tmp_path, "epic: {overlap: optimistic}\n")
    assert settings.policy().overlap is Sharing.OPTIMISTIC
    assert settings.policy(overlap=Sharing.AUTO).overlap is Sharing.AUTO
