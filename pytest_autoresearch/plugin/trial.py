"""The test that a trial becomes once it is decided."""

from __future__ import annotations

from typing import Any

from pytest_autoresearch.errors import AssertionFailure
from pytest_autoresearch.plugin.items import ExperimentItem
from pytest_autoresearch.records.trial import Trial


class TrialItem(ExperimentItem):
    """Reports a decided trial. Nothing is measured or stored here: that is done before."""

    def __init__(self, *, trial: Trial, times: tuple[float, float], metric: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.autoresearch_outcome = trial.verdict, trial.reason
        self.autoresearch_times = times
        self.note(trial=trial.number, description=trial.description)
        self.note(verdict=trial.verdict, reason=trial.reason)
        for run in trial.measurements:
            self.note(**{metric: run.score})
            self.note_kind(run)

    def runtest(self) -> None:
        """Fail, unless the trial was kept.

        Raises:
            AssertionFailure: it was not.
        """
        assert self.autoresearch_outcome is not None
        verdict, reason = self.autoresearch_outcome
        if verdict != "kept":
            raise AssertionFailure(reason)
