"""The agents of a campaign, in the order in which they are asked."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pytest

from pytest_autoresearch.agents.agent import Agent
from pytest_autoresearch.agents.briefing import LONGEST_NAME, Briefing
from pytest_autoresearch.campaign.costs import CostTotal
from pytest_autoresearch.campaign.git import merged
from pytest_autoresearch.errors import AgentUnavailable, AllAgentsUnavailable, BudgetExhausted, NoAnswer
from pytest_autoresearch.records.proposal import Failure, Proposal, Usage
from pytest_autoresearch.source import canonical
from pytest_autoresearch.system.text import single_line


class Answer(NamedTuple):
    """What came of asking all agents in turn."""

    proposal: Proposal | None
    """None if they have tried everything, or will not answer any more."""
    usage: Usage


class AgentChain:
    """Asks one agent after the other until one has a proposal; registered as a plugin.

    An agent that takes time is asked for the next proposal while a run trains, in a thread. If the run is
    then kept, what was proposed on top of the old incumbent is merged with the new one; where both have
    changed the same lines it is stale, and the agent is asked again.

    Whatever asking has cost is in the usage of a proposal, that of a failed attempt in the next one's.
    """

    def __init__(self, agents: Sequence[Agent]) -> None:
        self._agents = agents
        seen: Counter[str] = Counter()
        for agent in agents:
            name = single_line(agent.name, LONGEST_NAME - 3)
            seen[name] += 1
            agent.name = name if seen[name] == 1 else f"{name} {seen[name]}"
        self._gone: dict[str, AgentUnavailable] = {}
        self._ahead: Prefetch | None = None
        self._answered: int | None = None  # the last trial that there was an answer for
        self._owed = Usage()  # what is in no proposal yet
        self._lock = threading.Lock()
        self._before: float | None = None  # what the campaign had cost when this session began
        self._paid = 0.0  # in this session
        self._books: CostTotal | None = None

    @property
    def name(self) -> str:
        """The names of the agents, in their order."""
        return ", then ".join(agent.name for agent in self._agents)

    def header(self, max_cost: float | None) -> Iterator[str]:
        """Yield what there is to say before it begins: what agents can reach, and what limits them not."""
        for agent in self._agents:
            if agent.sandbox == "none":
                yield f"agent {agent.name}: NO SANDBOX! It can read and change whatever you can, the data too"
            elif agent.sandbox is not None:
                yield f"agent {agent.name}: sandbox {agent.sandbox}, without this repository and the data"
            if agent.sandbox is not None and max_cost is not None:
                yield f"agent {agent.name}: only what its output says that it has cost counts for the limit"

    def open_books(self, books: CostTotal, owed: Usage) -> None:
        """Write every payment to *books* from now on; what an earlier session *owed* is the next trial's."""
        self._books = books
        self._owed += owed
        self._paid += owed.cost

    @pytest.hookimpl(trylast=True)
    def pytest_autoresearch_propose(self, briefing: Briefing) -> Proposal | None:
        """Return what the first agent that has an answer proposes, None when all have tried everything.

        Raises:
            NoneLeft: none will ever answer.
        """
        answer = self._prepared(briefing) or self._asked(briefing)
        usage, self._owed = self._owed + answer.usage, Usage()
        proposal = answer.proposal
        if proposal is None:
            reasons = tuple(f"{name}: {error}" for name, error in self._gone.items())
            if usage != Usage():  # a trial has to hold it
                proposal = unanswered(briefing, reasons)
            elif len(reasons) < len(self._agents) or all(
                isinstance(e, BudgetExhausted) for e in self._gone.values()
            ):
                return None
            else:
                raise AllAgentsUnavailable("; ".join(reasons))
        self._answered = briefing.number
        return dataclasses.replace(proposal, usage=usage)

    @pytest.hookimpl(trylast=True)
    def pytest_autoresearch_fix(self, briefing: Briefing, failure: Failure) -> Proposal | None:
        """Return what its author makes of a crashed proposal."""
        author = failure.proposal.agent
        for agent in self._agents:
            if agent.name == author and author not in self._gone:
                try:
                    fixed = agent.fix(self._with_cost(briefing), failure)
                except NoAnswer as error:
                    reason = f"{author}: {error}"
                    fixed = dataclasses.replace(
                        failure.proposal, usage=error.usage or Usage(), unanswered=reason
                    )
                if fixed is not None:
                    self._pay(fixed.usage)
                    return dataclasses.replace(fixed, agent=author)
        return None

    def prepare(self, briefing: Briefing) -> None:
        """Begin to ask for the trial of *briefing* if that takes time; the answer is fetched later.

        The trial before has to be ours: where somebody else proposes, nobody may fetch it.
        """
        there = [agent for agent in self._agents if agent.name not in self._gone]
        ours = self._answered == briefing.number - 1
        if ours and self._ahead is None and there and there[0].takes_time:
            self._ahead = Prefetch(briefing, self._asked)

    def last_words(self) -> Iterator[str]:
        """Yield what there is to say at the end: who proposes no more, and what is in no trial."""
        for name, reason in self._gone.items():
            yield f"{name} proposes no more: {reason}"
        ahead = self._ahead and self._ahead.answer_so_far()
        owed = self._owed.cost + (ahead.usage.cost if ahead else 0.0)
        if owed:
            yield f"{owed:.2f} US dollars more were for answers that no trial has used"

    @pytest.hookimpl
    def pytest_unconfigure(self) -> None:
        """Leave nothing behind."""
        for agent in self._agents:
            agent.close()

    def _prepared(self, briefing: Briefing) -> Answer | None:
        """Return what was prepared; None if nothing was, or it is stale."""
        ahead, self._ahead = self._ahead, None
        answer = None if ahead is None else ahead.answer()
        if ahead is None or answer is None:
            return None
        proposal = answer.proposal and rebased(ahead.briefing, answer.proposal, briefing)
        if proposal is None:
            self._owed += answer.usage
            return None
        return Answer(proposal, answer.usage)

    def _asked(self, briefing: Briefing) -> Answer:
        usage, declined_by, exhausted = Usage(), [], False
        for agent in self._agents:
            if agent.name in self._gone:
                continue
            try:
                proposal = agent.propose(self._with_cost(briefing))
            except NoAnswer as error:
                if isinstance(error, AgentUnavailable):
                    self._gone[agent.name] = error
                usage += self._pay(error.usage or Usage())
                declined_by.append(f"{agent.name}: {error}")
                continue
            if proposal is not None:
                usage += self._pay(proposal.usage)
                author = proposal.agent or agent.name
                reasons = (*declined_by, *proposal.declined_by)
                return Answer(dataclasses.replace(proposal, agent=author, declined_by=reasons), usage)
            exhausted = True
        for_ever = exhausted or len(self._gone) == len(self._agents)
        return Answer(None if for_ever else unanswered(briefing, declined_by), usage)

    def _with_cost(self, briefing: Briefing) -> Briefing:
        """Return *briefing* with all that was paid, though no trial may hold it yet."""
        with self._lock:
            if self._before is None:
                self._before = briefing.cost
            return dataclasses.replace(briefing, cost=max(briefing.cost, self._before + self._paid))

    def _pay(self, usage: Usage) -> Usage:
        with self._lock:
            self._paid += usage.cost
        if self._books is not None:
            self._books.pay(usage)
        return usage


class Prefetch:
    """An answer that is prepared while something else goes on."""

    def __init__(self, briefing: Briefing, ask: Callable[[Briefing], Answer]) -> None:
        self.briefing = briefing
        self._ask = ask
        self._answer: Answer | None = None
        # A daemon: when pytest is stopped, nobody waits for an answer.
        self._thread = threading.Thread(target=self._prepare, daemon=True)
        self._thread.start()

    def answer(self) -> Answer | None:
        """Wait for the answer; None if asking has failed: whoever asks again will see why."""
        self._thread.join()
        return self._answer

    def answer_so_far(self) -> Answer | None:
        """Return the answer if it is there."""
        return self._answer

    def _prepare(self) -> None:
        with contextlib.suppress(Exception):
            self._answer = self._ask(self.briefing)


def unanswered(briefing: Briefing, declined_by: Sequence[str]) -> Proposal:
    """Return what stands for a proposal where there is none."""
    reason = "; ".join(declined_by)
    return Proposal(briefing.script, "no proposal", declined_by=tuple(declined_by), unanswered=reason)


def rebased(then: Briefing, proposal: Proposal, now: Briefing) -> Proposal | None:
    """Return what was proposed *then* as if it were *now*; None if it is stale."""
    if then.number != now.number:
        return None
    if proposal.unanswered:  # who has declined is not asked again for the same trial
        return proposal
    running = then.running.source if then.running is not None else ""
    if canonical.digest(proposal.source) == canonical.digest(running):
        return None
    if then.script == now.script:
        return proposal
    source = merged(then.script, now.script, proposal.source)
    return None if source in {None, now.script} else dataclasses.replace(proposal, source=source)
