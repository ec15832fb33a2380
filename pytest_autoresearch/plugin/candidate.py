"""The test ``candidate``: the working tree has to beat the baseline."""

from __future__ import annotations

import pytest

from pytest_autoresearch.campaign import checkout
from pytest_autoresearch.errors import AssertionFailure
from pytest_autoresearch.executors.base import RunFailure, RunRequest
from pytest_autoresearch.judging.judge import JudgeState
from pytest_autoresearch.loop.loop import fresh_seed
from pytest_autoresearch.loop.trial import TrialSetup, TrialTask
from pytest_autoresearch.plugin.baseline import MEASURE
from pytest_autoresearch.plugin.items import ExperimentItem
from pytest_autoresearch.records.measurement import format_exact, format_score, mean_score
from pytest_autoresearch.records.proposal import Proposal
from pytest_autoresearch.records.trial import Decision


class CandidateItem(ExperimentItem):
    """The working tree's version: it has to beat the baseline."""

    def runtest(self) -> None:
        """Measure until it is decided; pass if the version would be kept.

        Raises:
            AssertionFailure: it would not be, it gave no score, or no baseline is known.
        """
        experiment = self.experiment
        stored = experiment.baseline()
        if stored is None:
            raise AssertionFailure("no baseline is known for this platform", MEASURE)
        if checkout.tree(experiment.repository) == stored.tree:
            pytest.skip(f"{self.path.name} is the baseline")
        files = experiment.working_files()
        state = JudgeState.initial(experiment.settings.policy, stored.estimate, stored.noise)
        incumbent = experiment.repository.files_of(stored.tree, stored.commit)
        if incumbent is None:
            raise AssertionFailure(
                "the baseline's files are not in this clone", "run 'git fetch --unshallow'"
            )
        proposal, needs = Proposal(files, "the working tree"), stored.overheads
        setup = TrialSetup(proposal, incumbent, state, max_repairs=0, overheads=needs, limit=self.limit)
        task = TrialTask(setup, fresh_seed)
        decision = self._decision(task)
        score, estimate = mean_score(task.runs), stored.estimate
        self.note(**{stored.metric: score})
        reason = decision.reason.partition(", ")[2]
        if decision.verdict != "kept":
            raise AssertionFailure(
                f"{stored.metric} {format_score(score)}: the baseline of {format_score(estimate.mean)} "
                "is not beaten",
                f"baseline    {format_exact(estimate.mean)} ± {format_exact(estimate.std)}",
                f"measured    {', '.join(format_exact(run.score) for run in task.runs)}",
                f"difference  {reason}",
            )
        self.autoresearch_outcome = "passed", f"{format_score(score)}, {reason}"

    def _decision(self, task: TrialTask) -> Decision:
        """Make the runs that *task* asks for."""
        failure: RunFailure | None = None
        while isinstance(step := task.next(), RunRequest):
            outcome = self.outcome(step)
            failure = outcome.result if isinstance(outcome.result, RunFailure) else None
            task.feed(outcome)
        assert isinstance(step, Decision)
        if failure is not None:
            raise AssertionFailure(step.reason, *failure.tail)
        return step
