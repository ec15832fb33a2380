"""The tuner with another agent beside it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pytest_autoresearch.agents.agent import Gone, NoAnswer
from pytest_autoresearch.agents.tuner import Tuner

if TYPE_CHECKING:
    from pytest_autoresearch.agents.agent import Agent
    from pytest_autoresearch.agents.briefing import Briefing, Failure, Proposal

PERCENT = 30  # of the trials are the other agent's


class Hybrid:
    """Asks a language model on three trials of ten, and the tuner on the others.

    So does the best method of the study arXiv 2603.24647, with CMA-ES in the tuner's place. Each sees what
    the other has tried: the tuner learns from every trial, and tells the model what it has learned. Where
    the model has no answer, the tuner proposes; once the model will not answer any more, it goes on alone.
    """

    takes_time = True

    def __init__(self, model: Agent) -> None:
        self._model, self._tuner = model, Tuner()
        self._gone: Gone | None = None
        self.name = f"hybrid:{model.name}"
        self.sandbox = model.sandbox

    def propose(self, briefing: Briefing) -> Proposal | None:
        """Return the model's proposal or the tuner's; None if neither has one."""
        if not is_models(briefing.number) or self._gone is not None:
            return self._tuned(briefing)
        told = dataclasses.replace(briefing, advice=self._tuner.advice(briefing))
        try:
            proposal = self._model.propose(told)
        except NoAnswer as error:
            if isinstance(error, Gone):
                self._gone = error
            instead = self._tuned(briefing)
            if instead is None:
                raise
            passed = (*instead.passed, f"{self._model.name}: {error}")
            return dataclasses.replace(instead, usage=error.usage, passed=passed)
        if proposal is None:
            return self._tuned(briefing)
        return dataclasses.replace(proposal, agent=self.name)

    def fix(self, briefing: Briefing, failure: Failure) -> Proposal | None:
        """Return the model's own proposal, mended; None for one of the tuner's.

        Raises:
            NoAnswer: it has no answer.
        """
        if failure.proposal.agent != self.name or self._gone is not None:
            return None
        fixed = self._model.fix(briefing, failure)
        return fixed and dataclasses.replace(fixed, agent=self.name)

    def close(self) -> None:
        """End what the model still works on."""
        self._model.close()

    def _tuned(self, briefing: Briefing) -> Proposal | None:
        proposal = self._tuner.propose(briefing)
        return proposal and dataclasses.replace(proposal, agent=self._tuner.name)


def is_models(number: int) -> bool:
    """Tell whether trial *number* is the language model's; the same in every session."""
    return number * PERCENT // 100 > (number - 1) * PERCENT // 100
