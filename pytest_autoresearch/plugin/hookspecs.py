"""The hooks that a ``conftest.py`` or another plugin may implement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_autoresearch.agents.briefing import Briefing
    from pytest_autoresearch.records.proposal import Failure, Proposal
    from pytest_autoresearch.records.trial import Trial


@pytest.hookspec(firstresult=True)
def pytest_autoresearch_propose(config: pytest.Config, briefing: Briefing) -> Proposal | None:
    """Return the next change to try; the first answer that is not None is taken.

    When every implementation answers None, the campaign ends. The agents chosen with
    ``--autoresearch-agent`` are asked last, so an implementation in a ``conftest.py`` comes first::

        from pytest_autoresearch import Proposal


        def pytest_autoresearch_propose(briefing):
            if briefing.number == 1:
                return Proposal(briefing.edit("DEPTH = 4", "DEPTH = 3"), "DEPTH 4 -> 3")

    An exception ends the campaign with exit code 1.
    """


@pytest.hookspec(firstresult=True)
def pytest_autoresearch_fix(config: pytest.Config, briefing: Briefing, failure: Failure) -> Proposal | None:
    """Return a repaired version of a proposal that crashed; the first answer that is not None is taken.

    Called up to three times for a trial, each time with the latest crash; the briefing is the one that the
    trial was proposed for. When every implementation answers None, the trial is given up as crashed, and
    so it is after an exception.
    """


@pytest.hookspec
def pytest_autoresearch_decided(config: pytest.Config, trial: Trial) -> None:
    """Called after each trial, when its commit and its line in the ledger are written.

    For example, to be told of every gain::

        def pytest_autoresearch_decided(trial):
            if trial.verdict == "kept":
                notify(f"trial {trial.number}: {trial.description}, {trial.reason}")
    """
