"""The tuner, with another agent beside it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pytest_autoresearch.agents.tuner.agent import Tuner
from pytest_autoresearch.errors import AgentUnavailable, NoAnswer
from pytest_autoresearch.records.proposal import Usage

if TYPE_CHECKING:
    from pytest_autoresearch.agents.agent import Agent
    from pytest_autoresearch.agents.briefing import Briefing
    from pytest_autoresearch.records.proposal import Failure, Proposal
    from pytest_autoresearch.records.trial import Trial


class Hybrid:
    """Asks a language model as long as its trials are kept, and the tuner otherwise.

    The model is asked first, and again as long as its trials are kept ("win-stay", Robbins 1952). After a
    trial that was not kept the tuner gets one trial, and twice as many after each further one in a row
    (exponential back-off): of two hundred trials, a model without a good idea gets eight. A trial without an
    answer, or whose outcome is not known yet, counts as not kept. In the study arXiv 2603.24647 the best
    method was CMA-ES with a model in its place on three of ten trials, whatever their outcome.

    The tuner learns from every trial, takes up parts of the model's, and tells the model what it has learned.
    Where the model has no answer, the tuner proposes; if it becomes unavailable, the tuner goes on alone.
    """

    takes_time = True

    def __init__(self, model: Agent) -> None:
        self._model, self._tuner = model, Tuner()
        self._unavailable: AgentUnavailable | None = None
        self.name = f"hybrid:{model.name}"
        self.sandbox = model.sandbox

    def propose(self, briefing: Briefing) -> Proposal | None:
        """Return the model's proposal or the tuner's; None if neither has one."""
        if self._unavailable is not None or not self._is_models(briefing):
            tuned = self._tuned(briefing)
            if tuned is not None or self._unavailable is not None:
                return tuned  # else the model is all there is
        told = dataclasses.replace(briefing, advice=self._tuner.advice(briefing))
        try:
            proposal = self._model.propose(told)
        except NoAnswer as error:
            if isinstance(error, AgentUnavailable):
                self._unavailable = error
            instead = self._tuned(briefing)
            if instead is None:
                raise
            declined_by = (*instead.declined_by, f"{self._model.name}: {error}")
            return dataclasses.replace(instead, usage=error.usage or Usage(), declined_by=declined_by)
        if proposal is None:
            return self._tuned(briefing)
        return dataclasses.replace(proposal, agent=self.name)

    def fix(self, briefing: Briefing, failure: Failure) -> Proposal | None:
        """Return the model's repair of its own proposal; None for one of the tuner's.

        Raises:
            NoAnswer: it has no answer.
        """
        if failure.proposal.agent != self.name or self._unavailable is not None:
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
        before: list[tuple[Trial | Proposal, bool]] = []
        before += [(entry, entry.verdict == "kept") for entry in briefing.history]
        before += [(proposal, False) for proposal in briefing.running]
        waited = wait = 0
        for trial, kept in before:
            declined = any(reason.startswith(f"{self._model.name}: ") for reason in trial.declined_by)
            if trial.agent == self.name or declined:
                waited, wait = 0, 0 if kept and not declined else max(1, 2 * wait)
            else:
                waited += 1
        return waited >= wait
