"""The interface of an agent, and its options."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pytest_autoresearch.agents.briefing import Briefing
    from pytest_autoresearch.records.proposal import Failure, Proposal
    from pytest_autoresearch.sandbox.policy import Enforcer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """What a user can set about agents."""

    script: Path
    """The experiment's script, an absolute path."""
    timeout: float = math.inf
    """Seconds for one answer."""
    sandbox: str = "none"
    """The sandbox of command-line agents: ``none``, ``auto``, ``bwrap`` or ``landlock``."""
    max_cost: float | None = None
    """US dollars that all proposals may cost; None is no limit."""
    prices: tuple[str, ...] = ()
    """Lines ``MODEL INPUT OUTPUT [CACHE_WRITE CACHE_READ]``, in US dollars per million tokens."""
    effort: str = "medium"
    """The effort of Claude's thinking; ``none`` leaves it out of the request."""
    cache: bool = True
    """Whether the stable part of Claude's prompt is marked for its cache."""


class Agent(Protocol):
    """An agent that makes proposals. Its methods may be called by two threads at once."""

    name: str
    """Its name in reports: ``claude:claude-sonnet-5-5``."""
    takes_time: bool
    """Whether the next proposal is worth prefetching while a run trains."""

    @property
    def sandbox(self) -> Enforcer | None:
        """The enforcer of its sandbox; None if it starts no process."""

    def propose(self, briefing: Briefing) -> Proposal | None:
        """Return the next change to try, None when there is nothing new to try.

        Raises:
            NoAnswer: it has no answer this time.
            AgentUnavailable: it will have none in this session.
        """

    def fix(self, briefing: Briefing, failure: Failure) -> Proposal | None:
        """Return a repaired version of its own proposal that crashed, None to give it up.

        Raises:
            NoAnswer: it has no answer.
        """

    def close(self) -> None:
        """Stop working on answers and clean up; may be called from another thread."""
