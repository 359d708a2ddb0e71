"""`.epicwave/config.yaml`: read strictly, all errors at once, and turned into the policy of a wave.

A variable `EPICWAVE_EPIC__<KEY>` stands above the file's `epic.<key>`. The agents' own variables (`EPICWAVE_EPIC`,
`EPICWAVE_STORY` and so on) have no double underscore and change nothing, so that epicwave can be run inside an agent.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from mcp_server.adapters.agents.profiles import BUILT_IN, Profile, signs_of
from mcp_server.adapters.git.pool import Keeping
from mcp_server.core.checks import Timed, commands, limits
from mcp_server.core.footprint import normalise
from mcp_server.core.limits import Budget, Environment, Policy, Strategy
from mcp_server.core.merge_rules import DEFAULTS, MergeRule
from mcp_server.core.spec import Sharing
from mcp_server.errors import Code, Refused
from mcp_server.server.command_settings import check, command
from mcp_server.server.cursor import cursor_setup
from mcp_server.server.rule_settings import ALLOWED, rules
from mcp_server.server.strict_yaml import read_mapping, shown

CONFIG_FILE = Path(".epicwave", "config.yaml")
ENV_PREFIX = "EPICWAVE_EPIC__"
MAX_SLOTS = 64
MAX_ATTEMPTS = 10
MAX_SECONDS = 7 * 86_400
GONE = {"conflict_detection": "`overlap: exclusive` says what true said, `overlap: optimistic` what false said"}
"""Keys of before, and what to write in their place."""
COOLDOWN_CAP_S = 120.0
"""A breaker's cool-down doubles up to this, in seconds."""
_STRATEGIES = " | ".join(Strategy)
_TIME = f"seconds, more than 0 and at most {MAX_SECONDS}"


def _no_bool(value: object) -> object:
    """Pydantic takes `yes` for 1; whoever writes it for a number means something else."""
    if isinstance(value, bool):
        raise ValueError("it is a number, not yes or no")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


def _patterns(value: object) -> object:
    """One regular expression, or a list of them."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in cast("list[object]", found)):
        raise ValueError("a pattern is a regular expression, or there is a list of them")
    for each in cast("list[str]", found):
        try:
            blank = re.compile(each).search("") is not None
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{each!r} is no regular expression ({error})") from error
        if blank:
            raise ValueError(f"{each!r} would be found in everything")
    return tuple(cast("list[str]", found))


_Patterns = Annotated[tuple[str, ...], BeforeValidator(_patterns)]
_Seconds = Annotated[float, BeforeValidator(_no_bool), Field(gt=0, le=MAX_SECONDS, description=_TIME)]
_More = Annotated[int, BeforeValidator(_no_bool), Field(gt=0)]
_Amount = Annotated[
    Annotated[float, BeforeValidator(_no_bool), Field(gt=0)] | None,
    Field(description="US dollars, more than 0, or null"),
]
_Tokens = Annotated[_More | None, Field(description="tokens, more than 0, or null")]
_Megabytes = Annotated[_More | None, Field(description="megabytes, more than 0, or null")]
_Port = Annotated[int, BeforeValidator(_no_bool), Field(ge=1024, le=65_535, description="a port from 1024 to 65535")]
_Ports = Annotated[
    int, BeforeValidator(_no_bool), Field(ge=0, le=1000, description="a whole number from 0 (none) to 1000")
]
_Free = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, description="megabytes, 0 or more")]
_Name = Annotated[str, Field(min_length=1)]
_Command = Annotated[tuple[str, ...], BeforeValidator(command)]
_Check = Annotated[Timed, BeforeValidator(check)]


def _entry(value: object) -> object:
    """One entry of a footprint, in its one spelling."""
    return normalise(value) if isinstance(value, str) else value


_Entry = Annotated[str, BeforeValidator(_entry)]


class EpicSettings(BaseSettings):
    """The key `epic`. A field's description says what is allowed, and is what a refusal quotes."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    max_parallel_stories: Annotated[
        int, BeforeValidator(_no_bool), Field(ge=1, le=MAX_SLOTS, description=f"a whole number from 1 to {MAX_SLOTS}")
    ] = 3
    parallel_strategy: Annotated[Strategy, Field(description=_STRATEGIES)] = Strategy.SEQUENTIAL
    fail_fast: Annotated[bool, Field(description="true | false")] = True
    overlap: Annotated[Sharing, Field(description=" | ".join(Sharing))] = Sharing.EXCLUSIVE
    footprint_exempt: Annotated[
        tuple[_Entry, ...], Field(description="a list of paths, folders and globs in the repository")
    ] = ()
    attempts: Annotated[
        int,
        BeforeValidator(_no_bool),
        Field(ge=1, le=MAX_ATTEMPTS, description=f"a whole number from 1 to {MAX_ATTEMPTS}"),
    ] = 2
    attempt_timeout_s: _Seconds = 1800.0
    stall_timeout_s: _Seconds = 600.0
    check_timeout_s: _Seconds = 600.0
    batch: Annotated[
        int, BeforeValidator(_no_bool), Field(ge=1, le=MAX_SLOTS, description=f"a whole number from 1 to {MAX_SLOTS}")
    ] = 4
    repairs: Annotated[
        int, BeforeValidator(_no_bool), Field(ge=0, le=MAX_ATTEMPTS, description=f"a whole number to {MAX_ATTEMPTS}")
    ] = 2
    lease_s: _Seconds = 900.0
    agent: Annotated[str, Field(min_length=1, description="the name of an agent, or a whole command line")] = "claude"
    fallback_agent: Annotated[
        str | None,
        Field(min_length=1, description="an agent for stories whose own is paused or rate limited, or null"),
    ] = None
    breaker_faults: Annotated[
        int,
        BeforeValidator(_no_bool),
        Field(ge=0, le=100, description="a whole number from 0 (no breaker) to 100"),
    ] = 3
    breaker_cooldown_s: _Seconds = 30.0
    epic_timeout_s: Annotated[_Seconds | None, Field(description=f"{_TIME}, or null")] = None
    budget_usd: _Amount = None
    budget_tokens: _Tokens = None
    story_budget_usd: _Amount = None
    story_budget_tokens: _Tokens = None
    adaptive_slots: Annotated[bool, Field(description="true | false")] = False
    checks: Annotated[
        tuple[_Check, ...],
        Field(description="a list of commands, each a string, a list of words, or {run: COMMAND, timeout_s: SECONDS}"),
    ] = ()
    setup: Annotated[
        tuple[_Command, ...] | None, Field(description="a list of commands, each a string or a list of words, or null")
    ] = None
    setup_timeout_s: _Seconds = 600.0
    port_base: _Port = 20_000
    port_block: _Ports = 10
    worktree_quota_mb: _Megabytes = None
    min_free_mb: _Free = 500
    merge_rules: Annotated[tuple[MergeRule, ...], BeforeValidator(rules), Field(description=ALLOWED)] = DEFAULTS
    worktree_pool: Annotated[
        int, BeforeValidator(_no_bool), Field(ge=0, le=MAX_SLOTS, description=f"a whole number from 0 to {MAX_SLOTS}")
    ] = 4
    worktree_keep: Annotated[tuple[_Name, ...], Field(description="a list of names of folders that git ignores")] = ()
    worktrees_dir: Annotated[Path | None, Field(description="a folder, or null")] = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment, then the file's section (which is what we are made with); nothing else."""
        return env_settings, init_settings


class AgentSettings(BaseModel):
    """One entry of the key `agents`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: Annotated[_Command, Field(description="a string or a list of words")]
    environment: Annotated[dict[str, str], Field(description="a mapping of names to strings")] = {}
    rate_limit: Annotated[_Patterns, Field(description="a regular expression, or a list of them")] = ()
    """What the end of its output says when its provider wants to be left alone for a while."""
    api_error: Annotated[_Patterns, Field(description="a regular expression, or a list of them")] = ()
    """What it says when its provider did not answer, or refused it."""

    def profile(self, name: str, path: Path) -> Profile:
        """The agent of that name, as the file at `path` has it."""
        signs = signs_of(self.command, self.rate_limit, self.api_error)
        return Profile(name, self.command, self.environment, note=f"Yours, from {path}.", signs=signs)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the repository's configuration says."""

    path: Path
    """The file, whether it exists or not."""
    epic: EpicSettings = field(default_factory=EpicSettings)
    agents: Mapping[str, Profile] = field(default_factory=dict[str, Profile])

    @property
    def worktrees_dir(self) -> Path | None:
        """Absolute; a relative one is meant from the repository's top."""
        folder = self.epic.worktrees_dir
        return None if folder is None else self.path.parents[1] / folder.expanduser()

    @property
    def keeping(self) -> Keeping:
        """What of the worktrees is kept for the next attempts."""
        return Keeping(self.epic.worktree_pool, self.epic.worktree_keep)

    @property
    def agent_names(self) -> frozenset[str]:
        """Agents that are known by a name; any other is a command line."""
        return frozenset({*self.agents, *BUILT_IN})

    def environment(self) -> Environment:
        """How worktrees are set up. Without a word about it, as the repository has Cursor do it.

        Raises `Refused(bad_config)` when that file cannot be used.
        """
        own = self.epic.setup
        return Environment(
            setup=own if own is not None else cursor_setup(self.path.parents[1]),
            setup_timeout_s=self.epic.setup_timeout_s,
            port_base=self.epic.port_base,
            port_block=self.epic.port_block,
            quota_mb=self.epic.worktree_quota_mb,
            min_free_mb=self.epic.min_free_mb,
        )

    def policy(
        self,
        strategy: Strategy | str | None = None,
        slots: int | None = None,
        agent: str | None = None,
        checks: Sequence[tuple[str, ...]] = (),
        fallback: str | None = None,
        overlap: Sharing | None = None,
    ) -> Policy:
        """The policy of a wave: the caller's wishes, else the file's values. `checks` come after the file's own.

        Refuses (`bad_argument`, `bad_config`, `strategy_unavailable`) what cannot be, never replaces it.
        """
        chosen = _strategy(strategy or self.epic.parallel_strategy)
        if slots is not None and not 1 <= slots <= MAX_SLOTS:
            why = f"{slots} slots cannot be had."
            raise Refused(Code.BAD_ARGUMENT, why, f"Choose from 1 to {MAX_SLOTS}.")
        if chosen is Strategy.SEQUENTIAL and slots is not None and slots > 1:
            why = f"The strategy sequential runs one story at a time, so it has no {slots} slots."
            raise Refused(Code.BAD_ARGUMENT, why, "Choose the strategy asyncio, or leave the slots out.")
        return Policy(
            strategy=chosen,
            slots=1 if chosen is Strategy.SEQUENTIAL else slots or self.epic.max_parallel_stories,
            fail_fast=self.epic.fail_fast,
            overlap=overlap or self.epic.overlap,
            exempt=self.epic.footprint_exempt,
            attempts=self.epic.attempts,
            attempt_timeout_s=self.epic.attempt_timeout_s,
            stall_timeout_s=self.epic.stall_timeout_s,
            check_timeout_s=self.epic.check_timeout_s,
            batch=self.epic.batch,
            repairs=self.epic.repairs,
            lease_s=self.epic.lease_s,
            agent=agent or self.epic.agent,
            fallback=fallback or self.epic.fallback_agent or "",
            breaker_faults=self.epic.breaker_faults,
            cooldown_s=self.epic.breaker_cooldown_s,
            cooldown_cap_s=max(self.epic.breaker_cooldown_s, COOLDOWN_CAP_S),
            epic_timeout_s=self.epic.epic_timeout_s,
            budget=Budget(
                self.epic.story_budget_usd,
                self.epic.story_budget_tokens,
                self.epic.budget_usd,
                self.epic.budget_tokens,
            ),
            environment=self.environment(),
            adaptive_slots=self.epic.adaptive_slots,
            merge_rules=self.epic.merge_rules,
            checks=tuple(dict.fromkeys((*commands(self.epic.checks), *checks))),
            check_limits=limits(self.epic.checks),
        )


def _strategy(name: Strategy | str) -> Strategy:
    try:
        strategy = Strategy(name)
    except ValueError as error:
        raise Refused(Code.BAD_ARGUMENT, f"There is no strategy {name!r}.", f"Choose one of {_STRATEGIES}.") from error
    return strategy


def load_settings(top: Path) -> Settings:
    """Read the configuration of the repository at `top`; without a file, the defaults. Refuses (`bad_config`)."""
    path = top / CONFIG_FILE
    document = read_mapping(path)
    errors = _unknown("", document, ("epic", "agents")) + _unknown_variables()
    section, agents = _section(document, "epic", errors), _section(document, "agents", errors)
    epic = EpicSettings.model_construct()
    try:
        epic = EpicSettings(**section)
    except ValidationError as error:
        errors += _sentences(error, "epic.", EpicSettings)
    except SettingsError as error:  # a variable that is no JSON
        errors.append(f"{error} (of the variables {ENV_PREFIX}...)")
    profiles: dict[str, Profile] = {}
    for name, value in agents.items():
        try:
            profiles[name] = AgentSettings.model_validate(value).profile(name, path)
        except ValidationError as error:
            errors += _sentences(error, f"agents.{name}.", AgentSettings)
    if errors:
        why = f"{path} cannot be used: " + " ".join(f"({n}) {e}." for n, e in enumerate(errors, 1)).replace("?.", "?")
        raise Refused(Code.BAD_CONFIG, why, "Correct what is named, or remove it for the default.")
    return Settings(path, epic, profiles)


def _section(document: Mapping[str, Any], key: str, errors: list[str]) -> dict[str, Any]:
    value: object = document.get(key) or {}
    if isinstance(value, dict):
        return {str(name): entry for name, entry in cast("dict[object, Any]", value).items()}
    errors.append(f"{key} is {shown(value)}; allowed: keys with values")
    return {}


def _unknown(prefix: str, names: Mapping[str, object], allowed: Sequence[str]) -> list[str]:
    return [f"{prefix}{name} is no key{_nearest(name, allowed)}" for name in names if name not in allowed]


def _unknown_variables() -> list[str]:
    """A misspelt variable would do nothing, and nobody would know."""
    fields = list(EpicSettings.model_fields)
    found = [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]
    names = {name: name[len(ENV_PREFIX) :].lower() for name in found}
    return [f"the variable {n} sets no key{_nearest(k, fields)}" for n, k in names.items() if k not in fields]


def _nearest(name: str, allowed: Sequence[str]) -> str:
    if name in GONE:
        return f" any more; {GONE[name]}"
    near = difflib.get_close_matches(name, allowed, n=1)
    return f"; did you mean {near[0]}?" if near else f"; allowed: {', '.join(allowed)}"


def _sentences(error: ValidationError, prefix: str, model: type[BaseModel]) -> list[str]:
    """One sentence an error: key, value, what is allowed."""
    return [_sentence(dict(e), prefix, model) for e in error.errors(include_url=False)]


def _sentence(error: Mapping[str, Any], prefix: str, model: type[BaseModel]) -> str:
    first, *rest = [*error["loc"], ""]
    name = str(first)
    if not name:
        return f"{prefix.rstrip('.')} is {shown(error['input'])}; allowed: keys with values"
    if error["type"] == "extra_forbidden":
        return _unknown(prefix, {name: None}, list(model.model_fields))[0]
    allowed = model.model_fields[name].description
    if error["type"] == "missing":
        return f"{prefix}{name} is missing; allowed: {allowed}"
    entry = f" entry {rest[0] + 1}" if rest and isinstance(rest[0], int) else ""
    variable = f"{ENV_PREFIX}{name}".upper()
    source = f" (from the variable {variable})" if variable in {n.upper() for n in os.environ} else ""
    what = error["msg"].removeprefix("Value error, ").rstrip(".") if error["type"] == "value_error" else ""
    return f"{prefix}{name}{entry} is {shown(error['input'])}{source}{f': {what}' if what else f'; allowed: {allowed}'}"
