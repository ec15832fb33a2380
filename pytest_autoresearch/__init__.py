"""Experiments as tests: pytest trains, judges and commits what an agent proposes.

The names here are what a ``conftest.py`` needs in order to bring an agent of its own::

    from pytest_autoresearch import Briefing, Proposal


    def pytest_autoresearch_propose(briefing: Briefing) -> Proposal | None:
        if briefing.number > 1:
            return None
        return Proposal(briefing.edit("LR = 0.04", "LR = 0.08"), "LR 0.04 -> 0.08")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_autoresearch.agents.briefing import Briefing
    from pytest_autoresearch.records.measurement import Measurement
    from pytest_autoresearch.records.proposal import Failure, Proposal, Usage
    from pytest_autoresearch.records.trial import Trial

__all__ = ["Briefing", "Failure", "Measurement", "Proposal", "Trial", "Usage"]

_HOMES = {
    "Briefing": "pytest_autoresearch.agents.briefing",
    "Failure": "pytest_autoresearch.records.proposal",
    "Measurement": "pytest_autoresearch.records.measurement",
    "Proposal": "pytest_autoresearch.records.proposal",
    "Trial": "pytest_autoresearch.records.trial",
    "Usage": "pytest_autoresearch.records.proposal",
}


def __getattr__(name: str) -> object:
    # Late, because this module is imported with every pytest run that has the plugin installed.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
