"""What an executor is asked for, and what it answers: plain data that can cross to another machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Literal, Protocol

from pytest_autoresearch.judging.rules import ProbeRule, PruneRule
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.overheads import Overheads

Role = Literal["candidate", "incumbent"]
FailureKind = Literal["crashed", "out of memory", "timeout", "refused", "pruned"]


@dataclasses.dataclass(frozen=True, slots=True)
class RunRequest:
    """One run to be made. Everything in it can be pickled: its rules are frozen objects, no closures."""

    role: Role
    files: Mapping[str, str]
    """Path and text of each editable file, relative to the experiment's folder."""
    seed: int
    """Of everything random in the run."""
    probe_all_rows: ProbeRule
    """For which sealed scores causality is probed in every row, instead of a sample."""
    prune: PruneRule | None = None
    """When the run is ended early; None lets it run to its end."""
    score_claim_split: bool = False
    """Whether a sealed model is scored on the text for claims too, which no verdict sees."""
    cold: bool = False
    """Whether it begins without compilers' caches, as a baseline does."""
    overheads: Overheads | None = None
    """What the baseline took beside its training, to which a sealed run is held; None is no limit."""
    limit: float | None = None
    """Seconds of wall time after which the run is killed; None takes the experiment's own limit."""
    log: Path | None = None
    """Where the output is appended as well."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunFailure:
    """Why a run gave no score."""

    kind: FailureKind
    reason: str
    """One line."""
    tail: tuple[str, ...] = ()
    """The end of its output, each line with a mark that says so."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunOutcome:
    """What became of a run: a measurement, or a failure."""

    result: Measurement | RunFailure
    started: float
    """Seconds since the epoch."""
    stopped: float


class Executor(Protocol):
    """Makes runs, as many at a time as it has capacity for."""

    @property
    def capacity(self) -> int:
        """How many runs it makes at a time."""

    def submit(self, request: RunRequest, on_line: Callable[[str], None]) -> Future[RunOutcome]:
        """Start a run, or queue it.

        The future raises only what is no fault of the run's: :class:`errors.StorageError`,
        :class:`errors.ScorerUnavailable`. *on_line* is called, from another thread, with each line of output.
        """

    def cancel(self) -> None:
        """End every run now; their futures raise :class:`concurrent.futures.CancelledError`."""

    def close(self) -> None:
        """End every run, and let go of everything."""
