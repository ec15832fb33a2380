"""The test ``replay[TAG/NUMBER]``: a stored trial, measured again."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_autoresearch.campaign.history import StoredTrial
from pytest_autoresearch.errors import AssertionFailure
from pytest_autoresearch.executors.base import RunFailure
from pytest_autoresearch.judging.noise import Estimate, tolerance
from pytest_autoresearch.loop.loop import fresh_seed
from pytest_autoresearch.plugin.items import ExperimentItem
from pytest_autoresearch.records.measurement import Measurement, format_exact, format_score

FAILED = ("crashed", "out of memory", "timeout")
STORED_TRIAL = pytest.StashKey[StoredTrial]()


class ReplayItem(ExperimentItem):
    """Runs a trial's files once more, with the ``prepare.py`` that it had; the same has to come out."""

    def __init__(self, *, stored: StoredTrial, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._stored = stored

    @property
    def _is_comparable(self) -> bool:
        """Whether the trial was measured on this platform."""
        return self._stored.platform == self.experiment.site.platform

    def runtest(self) -> None:
        """Measure once, and compare with what is stored if that was on this platform.

        Raises:
            AssertionFailure: something else came out.
        """
        stored, trial = self._stored, self._stored.trial
        name, then = f"trial {stored.name}", f"{trial.verdict} then, {trial.reason}"
        known = stored.baseline if self._is_comparable else None
        overheads = None if known is None else known.overheads
        run = self.outcome(self.request(stored.files, fresh_seed(), overheads=overheads)).result
        if isinstance(run, RunFailure):
            if trial.score is not None and self._is_comparable:
                raise AssertionFailure(f"{name} gives no score: {run.reason}", then, *run.tail)
            self.autoresearch_outcome = "passed", f"{run.reason}; {then}"
            return
        metric = self.experiment.spec.metric
        self.note(**{metric: run.score})
        if not self._is_comparable:
            then = f"{then}; on another platform, so not compared"
        elif trial.score is not None:
            self._compare(run, trial.score)
        elif trial.verdict in FAILED:
            raise AssertionFailure(f"{name} gives {metric} {format_score(run.score)}", then)
        self.autoresearch_outcome = "passed", f"{format_score(run.score)}; {then}"

    def _compare(self, run: Measurement, score: float) -> None:
        metric, stored = self.experiment.spec.metric, self._stored
        if stored.baseline is None:  # somebody has committed another baseline.json by hand
            return
        scores, noise = [one.score for one in stored.trial.measurements], stored.baseline.noise
        allowed = tolerance(Estimate.of(scores, noise), noise)
        if abs(run.score - score) > allowed:
            raise AssertionFailure(
                f"{metric} {format_score(run.score)}: trial {stored.name} does not reproduce",
                f"stored      {', '.join(map(format_exact, scores))}, {stored.trial.verdict}",
                f"measured    {format_exact(run.score)}",
                f"difference  {run.score - score:+.6g}",
                f"tolerance   {format_exact(allowed)}, noise {format_exact(noise.std)}",
            )
