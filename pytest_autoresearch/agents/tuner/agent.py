"""The tuner, a Bayesian optimiser of the script's constants: the default, and the control arm."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_autoresearch.agents.briefing import Briefing
    from pytest_autoresearch.records.proposal import Failure, Proposal


class Tuner:
    """Proposes other values for the UPPER_CASE constants of the script; needs no network and no key.

    It tunes the constants of the script that the campaign began with which are still in the incumbent, in the
    ranges of :mod:`~pytest_autoresearch.agents.tuner.space`.

    **Steps.** First every integer is moved once, alone and one step down: under a fixed time budget a cheaper
    step allows more steps, which was the first large gain of upstream's own session on an H100. A step down
    that was kept is repeated (the pattern move of Hooke and Jeeves, 1961).

    **Draws.** After that, up to three constants move at once. Of many draws it proposes the one with the
    highest expected improvement (Mockus, 1975; Jones et al., 1998) under a Gaussian process of the trials
    nearest to the incumbent, whichever agent proposed them. The process learns the logarithm of the distance
    to the best score, so that differences among good scores count more. Another agent's share of the trials
    is also the share of draws that take up to three changes of one of its trials, kept or not.

    **Failures.** A logistic regression gives the probability that a draw crashes or runs out of memory or
    time. Risky draws are used only if there are no others.

    **Resuming.** Nothing is kept between calls: the seed comes from the campaign's tag and the trial's
    number, all else from the history, so a resumed campaign proposes what it would have proposed.
    """

    name = "tuner"
    sandbox = None
    takes_time = False

    def propose(self, briefing: Briefing) -> Proposal | None:
        """Return the incumbent with a few constants changed, None if there is nothing new to try."""
        from pytest_autoresearch.agents.tuner.search import Search  # with numpy

        return next(Search(briefing).proposals(), None)

    def fix(self, briefing: Briefing, failure: Failure) -> Proposal | None:  # noqa: ARG002 - the interface of an agent
        """Give it up: another value is another trial."""
        return None

    def close(self) -> None:
        """There is nothing to close."""

    def advice(self, briefing: Briefing) -> str:
        """Return what the tuner has learned of each constant, and its next proposals, for another agent."""
        from pytest_autoresearch.agents.tuner.search import Search

        return "\n".join(Search(briefing).advice())
