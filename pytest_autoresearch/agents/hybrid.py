"""The tuner, with another agent beside it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pytest_autoresearch.agents.tuner.agent import Tuner
from pytest_autoresearch.errors import AgentUnavailable, NoAnswer
from pytest_autoresearch.records.proposal import Usage
from pytest_autoresearch.records.trial import Trial

if TYPE_CHECKING:
    from pytest_autoresearch.agents.agent import Agent
    from pytest_autoresearch.agents.briefing import Briefing
    from pytest_autoresearch.records.proposal import Failure, Proposal


class Hybrid:
    """Asks a language model as long as its trials are kept, and the tuner otherwise.

    The model is asked first, and again as long as its trials are kept ("win-stay", Robbins 1952). After a
    trial that was not kept the tuner gets one trial, and twice as many after each further one in a row
    (exponential back-off). A trial without an answer, or whose outcome is not known yet, counts as not kept.
    In the study arXiv 2603.24647 the best method was CMA-ES with a model in its place on three of ten trials.

    The tuner takes up parts of the model's trials, and tells the model what it has learned. Where the model
    has no answer, the tuner proposes; if it becomes unavailable, the tuner goes on alone.
    """

    takes_time = True

    def __init__(self, model: Agent) -> None:
        self._model, self._tuner = model, Tuner()
        self._is_alone = False  # the tuner, once the model is unavailable
        self.name = f"hybrid:{model.name}"
        self.sandbox = model.sandbox

    def propose(self, briefing: Briefing) -> Proposal | None:
        """Return the model's proposal or the tuner's; None if neither has one."""
        if self._is_alone or not self._is_models(briefing):
            tuned = self._tuned(briefing)
            if tuned is not None or self._is_alone:
                return tuned  # else the model is all there is
        told = dataclasses.replace(briefing, advice=self._tuner.advice(briefing))
        try:
            proposal = self._model.propose(told)
        except NoAnswer as error:
            self._is_alone |= isinstance(error, AgentUnavailable)
            if (instead := self._tuned(briefing)) is None:
                raise
            declined_by = (*instead.declined_by, f"{self._model.name}: {error}")
            return dataclasses.replace(instead, usage=error.usage or Usage(), declined_by=declined_by)
        return dataclasses.replace(proposal, agent=self.name) if proposal else self._tuned(briefing)

    def fix(self, briefing: Briefing, failure: Failure) -> Proposal | None:
        """Return the model's repair of its own proposal; None for one of the tuner's."""
        if failure.proposal.agent != self.name or self._is_alone:
            return None
        fixed = self._model.fix(briefing, failure)
        return fixed and dataclasses.replace(fixed, agent=self.name)

    def close(self) -> None:
        """Stop the model."""
        self._model.close()

    def _tuned(self, briefing: Briefing) -> Proposal | None:
        proposal = self._tuner.propose(briefing)
        return proposal and dataclasses.replace(proposal, agent=self._tuner.name)

    def _is_models(self, briefing: Briefing) -> bool:
        """Tell whether the trial is the model's, which the history decides, in every session alike."""
        trials: list[Trial | Proposal] = [*briefing.history, *briefing.running]
        waited = wait = 0
        for trial in trials:
            declined = any(reason.startswith(f"{self._model.name}: ") for reason in trial.declined_by)
            if trial.agent == self.name or declined:
                kept = isinstance(trial, Trial) and trial.is_kept and not declined
                waited, wait = 0, 0 if kept else max(1, 2 * wait)
            else:
                waited += 1
        return waited >= wait
