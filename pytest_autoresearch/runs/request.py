"""What a run is asked to be: plain data that can cross to another machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pytest_autoresearch.records.overheads import Overheads
from pytest_autoresearch.runs.compiler_cache import CacheUse

Role = Literal["candidate", "incumbent"]
ProbeAllRows = Callable[[float], bool]
"""Tells of a sealed score whether causality is probed in every row, instead of a sample, before it counts."""
Prune = Callable[[Sequence[float | None]], str | None]
"""Tells of a loss curve so far why its run should end, in one line; None lets it go on."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunRequest:
    """A run to make. It can be pickled if its rules can, as those of :mod:`judging.rules` can."""

    role: Role
    files: Mapping[str, str]
    """Path and text of each editable file, relative to the experiment's folder."""
    seed: int
    """Of everything random in the run."""
    probe_all_rows: ProbeAllRows
    prune: Prune | None = None
    """When the run is ended early; None lets it run to its end."""
    score_claim_split: bool = False
    """Whether a sealed model is scored on the text for claims too, which no verdict sees."""
    cache_use: CacheUse = "copy"
    """How it uses compilers' caches: a baseline begins with ``empty`` ones, or is there to ``fill`` them."""
    overheads: Overheads | None = None
    """What the baseline took beside its training, to which a sealed run is held; None is no limit."""
    limit: float | None = None
    """Seconds of wall time after which the run is killed; None takes the experiment's own limit."""
    log: Path | None = None
    """A file on the machine of the run to which its output is appended."""
