"""What an agent is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pytest_autoresearch.ledger import Usage
from pytest_autoresearch.oneline import one_line

if TYPE_CHECKING:
    from pytest_autoresearch.agents.briefing import Briefing, Failure, Proposal
    from pytest_autoresearch.measuring.sandbox import Enforcer


class NoAnswer(Exception):
    """An agent has nothing to propose this time; the message is one line that says why.

    The next agent is asked instead. Without one, the trial is refused for this reason.
    """

    def __init__(self, reason: str, *, usage: Usage | None = None) -> None:
        super().__init__(one_line(reason, 300))
        self.usage = usage or Usage()
        """What it has cost nevertheless."""


class Gone(NoAnswer):
    """An agent will not answer any more in this session: its key is refused, its program is missing."""


class Spent(Gone):
    """An agent has used up what it may cost: no failure, but the end of its part."""


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
