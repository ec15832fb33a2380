"""What an agent is told, and what it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_autoresearch.judge import Direction
    from pytest_autoresearch.ledger import Entry


@dataclasses.dataclass(frozen=True, slots=True)
class Proposal:
    """A changed ``train.py`` with a one-line description."""

    source: str
    """The whole text of the script."""
    description: str
    """What was changed, in one line; it becomes the subject of the trial's commit."""


@dataclasses.dataclass(frozen=True, slots=True)
class Briefing:
    """All that an agent may know when it is asked for trial *number*."""

    tag: str
    """The campaign's name."""
    number: int
    """The number of the trial that is asked for; the first is 1."""
    program: str
    """The text of ``program.md``, empty if there is none."""
    fixed: str
    """The text of ``prepare.py``, which no trial may change, empty if there is none."""
    script: str
    """The incumbent ``train.py``: proposals start from it."""
    start: str
    """The ``train.py`` that the campaign began with."""
    history: Sequence[Entry]
    """Every earlier trial of the campaign, oldest first, kept ones and others."""
    score: float
    """What is believed of the incumbent's score."""
    noise: float
    """The standard deviation of one run's score, in the metric's unit."""
    metric: str
    direction: Direction
    platform: Mapping[str, str]
    """The machine and the data, as ``prepare.py`` describes them; ``device`` is ``cuda`` or ``cpu``."""
    memory_mb: float | None = None
    """Peak memory of the start's runs in MiB, None if they do not say."""
    memory_soft_limit_mb: float | None = None
    """What a run should stay below: more is reported, and is to be worth it."""
    memory_limit_mb: float | None = None
    """What ends a run that uses more."""
