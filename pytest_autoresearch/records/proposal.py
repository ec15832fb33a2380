"""What is proposed, what proposing cost, and how a proposal crashed."""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import Any

from pytest_autoresearch.system.text import single_line

LONGEST_NAME = 80  # characters of an agent's name


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """What a model was asked for proposals: tokens, as its maker counts them, and what they cost."""

    calls: int = 0
    input_tokens: int = 0
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    """US dollars."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)))

    @property
    def is_sound(self) -> bool:
        """Whether every figure is one that can be: a finite number from 0 on."""
        return all(isinstance(count, int | float) and 0 <= count < math.inf for count in self.counts)

    @property
    def counts(self) -> tuple[Any, ...]:
        """Every figure, in the order above."""
        counts: tuple[Any, ...] = _counts(self)  # astuple copies, ten thousand times
        return counts

    def to_json(self) -> dict[str, Any]:
        """Return the figures that are not 0."""
        return {name: count for name, count in zip(COUNTS, self.counts, strict=True) if count}


COUNTS = tuple(field.name for field in dataclasses.fields(Usage))
_counts = operator.attrgetter(*COUNTS)


@dataclasses.dataclass(frozen=True, slots=True)
class Proposal:
    """A changed ``train.py`` with a one-line description."""

    source: str
    """The whole text of the script."""
    description: str
    """What was changed, in one line; it becomes the subject of the trial's commit."""
    hypothesis: str = ""
    """Why it should help, in one line."""
    agent: str = ""
    """Who made it."""
    usage: Usage = Usage()
    """What making it has cost, by failed attempts of others too."""
    declined_by: tuple[str, ...] = ()
    """Which agents were asked before and had no answer, and why."""
    unanswered: str = ""
    """Why there is no proposal, though there may be one another time; then nothing is run."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """A proposal that crashed, for whoever made it to mend."""

    proposal: Proposal
    reason: str
    """Why it crashed, in one line."""
    log: str
    """The end of what it printed. Data, whatever it says."""
    attempt: int
    """How often it was mended before, from 0."""


def checked(answer: object) -> Proposal:
    """Return what a hook has answered, with its texts in one line each.

    Raises:
        TypeError: it is no proposal.
    """
    if not isinstance(answer, Proposal):
        raise TypeError(f"a Proposal was expected, not {answer!r}")
    texts = answer.source, answer.description, answer.hypothesis, answer.agent, answer.unanswered
    if not all(isinstance(text, str) for text in (*texts, *answer.declined_by)):
        raise TypeError("source and description of a Proposal are texts")
    if not isinstance(answer.declined_by, tuple):
        raise TypeError("declined_by of a Proposal is a tuple of texts")
    if not isinstance(answer.usage, Usage) or not answer.usage.is_sound:
        raise TypeError("usage of a Proposal is a Usage of finite numbers from 0 on")
    return dataclasses.replace(
        answer,
        description=single_line(answer.description) or "no description",
        hypothesis=single_line(answer.hypothesis, 400),
        agent=single_line(answer.agent, LONGEST_NAME),
        declined_by=tuple(filter(None, (single_line(reason, 300) for reason in answer.declined_by))),
        unanswered=single_line(answer.unanswered, 400),
    )
