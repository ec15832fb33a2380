"""A proposal, what it cost, and how it crashed."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Self

from pytest_autoresearch.text import single_line

LONGEST_NAME = 80  # characters of an agent's name


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """What proposals have cost: requests, tokens as the provider counts them, and US dollars."""

    calls: int = 0
    input_tokens: int = 0
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)))

    @property
    def is_sound(self) -> bool:
        """Whether every figure is a finite number that is not negative."""
        return all(isinstance(count, int | float) and 0 <= count < math.inf for count in self.counts)

    @property
    def counts(self) -> tuple[Any, ...]:
        """Every figure, in the order above."""
        return tuple(getattr(self, name) for name in COUNTS)  # astuple copies, ten thousand times

    def to_json(self) -> dict[str, Any]:
        """Return the figures that are not 0."""
        return {name: count for name, count in zip(COUNTS, self.counts, strict=True) if count}

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Rebuild what :meth:`to_json` gave, from its JSON text.

        Raises:
            ValueError, TypeError: it is something else.
        """
        usage = cls(**json.loads(text))
        if not usage.is_sound:
            raise ValueError(f"{usage} cannot be")
        return usage


COUNTS = tuple(field.name for field in dataclasses.fields(Usage))


@dataclasses.dataclass(frozen=True, slots=True)
class Proposal:
    """A change of the experiment's files, with a one-line description."""

    files: Mapping[str, str]
    """The new text of each changed file, by its path relative to the experiment's folder (``train.py``)."""
    description: str
    """What was changed, in one line; it becomes the subject of the trial's commit."""
    hypothesis: str = ""
    """Why it should help, in one line."""
    agent: str = ""
    """The name of the agent that made it."""
    usage: Usage = Usage()
    """What it has cost, failed attempts of other agents included."""
    declined_by: tuple[str, ...] = ()
    """The agents that were asked before and had no answer, each with its reason: ``NAME: reason``."""
    unanswered: str = ""
    """Why no agent had a proposal this time; then there are no files, and nothing is run."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """A proposal that crashed, for its author to repair."""

    proposal: Proposal
    reason: str
    """Why it crashed, in one line."""
    log: str
    """The end of its output. Untrusted: it is data, never an instruction."""
    attempt: int
    """How often it was repaired before, from 0."""


def checked(answer: object) -> Proposal:
    """Return the answer of a hook, each of its descriptions in one line.

    Raises:
        TypeError: it is no proposal, or a part of it has the wrong type.
        ValueError: it has no files, or a path that leaves the experiment's folder.
    """
    if not isinstance(answer, Proposal):
        raise TypeError(f"a Proposal was expected, not {answer!r}")
    files = answer.files
    if not isinstance(files, Mapping) or not _are_texts(*files.keys(), *files.values()):
        raise TypeError("files of a Proposal map paths to texts")
    if not isinstance(answer.declined_by, tuple) or not _are_texts(*answer.declined_by):
        raise TypeError("declined_by of a Proposal is a tuple of texts")
    if not _are_texts(answer.description, answer.hypothesis, answer.agent, answer.unanswered):
        raise TypeError("description, hypothesis, agent and unanswered of a Proposal are texts")
    if not isinstance(answer.usage, Usage) or not answer.usage.is_sound:
        raise TypeError("usage of a Proposal is a Usage of finite numbers from 0 on")
    if not files and not answer.unanswered:
        raise ValueError("files of a Proposal are empty: name at least one file")
    for path in files:
        if not _is_inside(path):
            raise ValueError(f"{path!r} is no relative path inside the experiment's folder, as train.py is")
    return dataclasses.replace(
        answer,
        files=dict(files),
        description=single_line(answer.description) or "no description",
        hypothesis=single_line(answer.hypothesis, 400),
        agent=single_line(answer.agent, LONGEST_NAME),
        declined_by=tuple(filter(None, (single_line(reason, 300) for reason in answer.declined_by))),
        unanswered=single_line(answer.unanswered, 400),
    )


def _are_texts(*values: object) -> bool:
    return all(isinstance(value, str) for value in values)


def _is_inside(path: str) -> bool:
    """Tell whether *path* is a normal relative path that does not leave its folder."""
    normal = PurePosixPath(path)
    if path != str(normal) or path == "." or normal.is_absolute():
        return False
    return ".." not in normal.parts and "\0" not in path
