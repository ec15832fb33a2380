"""What an agent is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pytest_autoresearch.agents.briefing import Briefing
    from pytest_autoresearch.records.proposal import Failure, Proposal
    from pytest_autoresearch.sandbox.launch import Enforcer


class Agent(Protocol):
    """Whatever makes proposals. Its methods may be called by two threads at once."""

    name: str
    """What it is called in reports: ``claude:claude-sonnet-5-5``."""
    takes_time: bool
    """Whether it is worth asking it for the next proposal while a run trains."""

    @property
    def sandbox(self) -> Enforcer | None:
        """What keeps it in; None for one that starts nothing."""

    def propose(self, briefing: Briefing) -> Proposal | None:
        """Return the next change to try, None when there is nothing new to try.

        Raises:
            NoAnswer: it has none this time, or never again.
        """

    def fix(self, briefing: Briefing, failure: Failure) -> Proposal | None:
        """Return a proposal of its own that crashed, mended; None to give it up.

        Raises:
            NoAnswer: it has no answer.
        """

    def close(self) -> None:
        """End whatever still works on an answer, and clean up; may be called by another thread."""
