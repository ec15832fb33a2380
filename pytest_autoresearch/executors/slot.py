"""A place where one run at a time is made: its cores or GPU, and the scorer of its models."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError

from pytest_autoresearch.errors import (
    RunFailed,
    RunOutOfMemory,
    RunPruned,
    RunTimedOut,
    ScoreRefused,
)
from pytest_autoresearch.executors.base import FailureKind, RunFailure, RunOutcome, RunRequest
from pytest_autoresearch.judging.pruning import Curve
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.runs.compiler_cache import CompilerCache
from pytest_autoresearch.runs.config import RunConfig
from pytest_autoresearch.runs.run import measure
from pytest_autoresearch.runs.site import PREPARE
from pytest_autoresearch.scoring.calibration import Calibration
from pytest_autoresearch.scoring.client import Scorer

LOG_LINES, LOG_CHARACTERS = 200, 3_000  # at most, of a failed run's output, for its repair


@dataclasses.dataclass(frozen=True, slots=True)
class Resources:
    """The part of a machine that a slot may use."""

    cores: frozenset[int] | None = None
    """Numbers of cores; None is all of them. Only Linux lets a process be bound to some."""
    gpu: str | None = None
    """As in ``CUDA_VISIBLE_DEVICES``; None leaves that as it is."""


class Cancellation:
    """Ends a run from another thread."""

    def __init__(self) -> None:
        self.requested = False
        self._lock = threading.Lock()
        self._ends: list[Callable[[], object]] = []

    def add(self, end: Callable[[], object]) -> None:
        """Call *end* when the run is to be ended, or now if that was requested already."""
        with self._lock:
            self._ends.append(end)
            if self.requested:
                end()

    def request(self) -> None:
        """End the run now, or as soon as it starts."""
        with self._lock:
            self.requested = True
            for end in self._ends:
                end()

    def close(self) -> None:
        """End nothing from now on: the run is over."""
        with self._lock:
            self._ends.clear()


class Slot:
    """Makes one run at a time. Everything but :meth:`close` is called in the slot's own thread."""

    def __init__(self, config: RunConfig, resources: Resources, caches: CompilerCache) -> None:
        if resources.gpu is not None:
            variables = {**config.variables, "CUDA_VISIBLE_DEVICES": resources.gpu}
            config = dataclasses.replace(config, variables=variables)
        self._config = config
        self._cores = resources.cores
        self._caches = caches
        self._scorer: Scorer | None = None
        self._calibration: Calibration | None = None
        self._renew_scorer()

    def bind(self) -> None:
        """Bind this thread to the slot's cores, and thereby every process that it starts."""
        if self._cores is not None and sys.platform == "linux":
            os.sched_setaffinity(0, self._cores)

    def run(
        self, request: RunRequest, on_line: Callable[[str], object], cancellation: Cancellation
    ) -> RunOutcome:
        """Make a run.

        Raises:
            CancelledError: the run was cancelled.
            ScorerUnavailable: there is no scorer.
            StorageError: the harness cannot write.
        """
        started, last = time.time(), deque[str](maxlen=LOG_LINES)

        def follow(line: str) -> None:
            last.append(line)
            on_line(line)

        if self._scorer is not None:
            cancellation.add(self._scorer.cancel)
        try:
            result: Measurement | RunFailure = self._measure(request, follow, cancellation)
        except RunPruned as error:
            result = RunFailure("pruned", str(error))
        except RunFailed as error:
            log = "\n".join(last)[-LOG_CHARACTERS:]
            result = RunFailure(_kind(error), str(error), tuple(error.tail), log)
        except Exception:
            if not cancellation.requested:
                raise
        finally:
            cancellation.close()
            if cancellation.requested and self._scorer is not None:
                self._scorer.close()
                self._renew_scorer()
        if cancellation.requested:
            raise CancelledError
        return RunOutcome(result, started, time.time())

    def close(self) -> None:
        """End the scorer."""
        if self._scorer is not None:
            self._scorer.close()

    def _measure(
        self, request: RunRequest, on_line: Callable[[str], object], cancellation: Cancellation
    ) -> Measurement:
        curve = Curve()

        def watch(line: str) -> str | None:
            on_line(line)
            curve.add(line)
            return None if request.prune is None else request.prune(curve.points)

        run = measure(
            request,
            self._config,
            scorer=self._scorer,
            calibration=self._calibration,
            caches=self._caches,
            on_line=watch,
            on_start=lambda process: cancellation.add(process.cancel),
        )
        points = curve.points if any(point is not None for point in curve.points) else ()
        return dataclasses.replace(run, curve=points)

    def _renew_scorer(self) -> None:
        """Replace the scorer and its calibration process, if the experiment is sealed; neither is started."""
        config, site = self._config, self._config.site
        if site.sealed is None:
            return
        readable = (*site.data.validation, *site.data.shared)
        environment, limit = config.scorer_environment(), site.sealed.scoring_seconds
        self._scorer = Scorer(config.fixed[PREPARE], readable, config.enforcer, environment, limit)
        self._calibration = Calibration(self._scorer, sorted(self._cores or ()))


def _kind(error: RunFailed) -> FailureKind:
    match error:
        case ScoreRefused():
            return "refused"
        case RunTimedOut():
            return "timeout"
        case RunOutOfMemory():
            return "out of memory"
    return "crashed"
