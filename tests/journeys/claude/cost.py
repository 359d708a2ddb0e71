"""What an epic costs the lead's model: calls of our tools, and the tokens of their results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tests.journeys.claude.parts import NOT_THERE
from tests.journeys.claude.play import OURS
from tests.journeys.claude.request import Answer, Json, Request
from tests.tokens import count

CALLS = 12
TOKENS = 4_000


@dataclass(frozen=True)
class Cost:
    """Of one conversation."""

    answers: tuple[Answer, ...]
    """To calls of our tools, in order."""

    @property
    def tokens(self) -> int:
        """Of all results together (o200k)."""
        return sum(count(answer.text) for answer in self.answers)

    def __str__(self) -> str:
        each = ", ".join(f"{a.tool.rpartition('__')[2]} {count(a.text)}" for a in self.answers)
        return f"{len(self.answers)} calls, {self.tokens} tokens ({each})"


def conversations(requests: Sequence[Json]) -> list[Request]:
    """Each conversation with a model, as it was last asked for: one for the lead and one for each sub-agent."""
    last: dict[str, Request] = {}
    for body in requests:
        request = Request(body)
        if request.tools:
            last[request.asked if request.is_lead else request.working_directory + request.asked] = request
    return list(last.values())


def answers(requests: Sequence[Json], *, lead: bool) -> list[Answer]:
    """All results of tools in the lead's conversation, or in those of its workers."""
    chosen = [each for each in conversations(requests) if each.is_lead is lead]
    return [answer for each in chosen for told in each.history for answer in told.answers]


def claims(requests: Sequence[Json]) -> list[Json]:
    """All answers that gave a worker a story."""
    told = [json.loads(a.text) for a in answers(requests, lead=False) if a.tool.endswith("claim_story")]
    return [claim for claim in told if claim["claimed"]]


def of_lead(requests: Sequence[Json]) -> Cost:
    """What the lead paid for."""
    return Cost(tuple(a for a in answers(requests, lead=True) if OURS in a.tool and NOT_THERE not in a.text))
