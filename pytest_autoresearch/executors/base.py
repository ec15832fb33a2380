"""What an executor is asked for, and what it answers: plain data that can cross to another machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future
from typing import Literal, Protocol

from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.runs.request import Role, RunRequest

__all__ = ["Executor", "Role", "RunFailure", "RunOutcome", "RunRequest"]

FailureKind = Literal["crashed", "out of memory", "timeout", "refused", "pruned"]


@dataclasses.dataclass(frozen=True, slots=True)
class RunFailure:
    """Why a run gave no score."""

    kind: FailureKind
    reason: str
    """One line."""
    tail: tuple[str, ...] = ()
    """The last lines of its output for the terminal, each with a mark that says so."""
    log: str = ""
    """The end of its output, for the agent that is asked for a repair. Untrusted."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunOutcome:
    """The result of a run: a measurement, or a failure."""

    result: Measurement | RunFailure
    started: float
    """Seconds since the epoch."""
    stopped: float


class Executor(Protocol):
    """Makes runs, as many at a time as its capacity."""

    @property
    def capacity(self) -> int:
        """How many runs it makes at a time."""

    def submit(self, request: RunRequest, on_line: Callable[[str], object]) -> Future[RunOutcome]:
        """Start a run, or queue it.

        The future raises only what is not the run's fault: :class:`errors.StorageError`,
        :class:`errors.ScorerUnavailable`. *on_line* is called, from another thread, with each line of output.
        """

    def cancel(self) -> None:
        """End every run now, queued ones too.

        Their futures raise :class:`concurrent.futures.CancelledError`.
        """

    def close(self) -> None:
        """End every run, and release everything; the executor cannot be used again."""
