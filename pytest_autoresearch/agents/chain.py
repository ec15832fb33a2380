"""The agents of a campaign, in the order in which they are asked."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from pytest_autoresearch.agents.agent import Agent
from pytest_autoresearch.agents.briefing import Briefing
from pytest_autoresearch.agents.budget import Budget
from pytest_autoresearch.campaign.git import merged
from pytest_autoresearch.errors import AgentUnavailable, AllAgentsUnavailable, BudgetExhausted, NoAnswer
from pytest_autoresearch.records.proposal import LONGEST_NAME, Failure, Proposal, Usage
from pytest_autoresearch.source.files import digest
from pytest_autoresearch.text import single_line

CLOSING = 10.0  # seconds for a prefetched answer to end when the session does


class AgentChain:
    """Asks one agent after the other until one has a proposal.

    An agent that takes time is asked for the next proposal while a run trains. If the run is kept, that
    proposal is merged with the new incumbent; if both changed the same lines, the agent is asked again.
    Each answer is paid for once, in :attr:`budget`, and a proposal holds the usage of all attempts before it.
    """

    def __init__(self, agents: Sequence[Agent]) -> None:
        self.budget = Budget()
        self._agents = agents
        seen: Counter[str] = Counter()
        for agent in agents:
            name = single_line(agent.name, LONGEST_NAME - 3)
            seen[name] += 1
            agent.name = name if seen[name] == 1 else f"{name} {seen[name]}"
        self._unavailable: dict[str, AgentUnavailable] = {}
        self._prefetch: Prefetch | None = None
        self._answered: int | None = None  # the last trial that this chain had an answer for

    @property
    def name(self) -> str:
        """The names of the agents, in their order."""
        return ", then ".join(agent.name for agent in self._agents)

    def header(self, max_cost: float | None) -> Iterator[str]:
        """Yield what agents can reach, and what the limit of costs does not see."""
        for agent in self._agents:
            if agent.sandbox == "none":
                yield f"agent {agent.name}: NO SANDBOX! It can read and change whatever you can, the data too"
            elif agent.sandbox is not None:
                yield f"agent {agent.name}: sandbox {agent.sandbox}, without this repository and the data"
            if agent.sandbox is not None and max_cost is not None:
                yield f"agent {agent.name}: the limit counts only the cost that its output states"

    def propose(self, briefing: Briefing) -> Proposal | None:
        """Return what the first agent with an answer proposes, None when all have tried everything.

        Raises:
            AllAgentsUnavailable: no agent will ever answer.
            StorageError: the cost cannot be stored.
        """
        proposal = self._prefetched(briefing) or self._ask(briefing)
        self.budget.record()
        if proposal is None:
            failed = [error for error in self._unavailable.values() if not isinstance(error, BudgetExhausted)]
            if failed and len(self._unavailable) == len(self._agents):
                reasons = (f"{name}: {error}" for name, error in self._unavailable.items())
                raise AllAgentsUnavailable("; ".join(reasons))
            return None
        usage, self.budget.unattributed = proposal.usage + self.budget.unattributed, Usage()
        self._answered = briefing.number
        return dataclasses.replace(proposal, usage=usage)

    def fix(self, briefing: Briefing, failure: Failure) -> Proposal | None:
        """Return the repair of a crashed proposal by its author, None if it is none of these agents'.

        Raises:
            StorageError: the cost cannot be stored.
        """
        author = failure.proposal.agent
        agents = [agent for agent in self._available() if agent.name == author]
        if not agents:
            return None
        try:
            fixed = agents[0].fix(self._with_cost(briefing), failure)
        except NoAnswer as error:
            fixed = unanswered([f"{author}: {error}"], error.usage or Usage())
        if fixed is None:
            return None
        self.budget.pay(fixed.usage)
        self.budget.record()
        return dataclasses.replace(fixed, agent=author)

    def prefetch(self, briefing: Briefing) -> None:
        """Begin to ask for the trial of *briefing* if that takes time; :meth:`propose` fetches the answer.

        It does nothing if a hook made the proposal before: the hook's next one would make this one useless.
        """
        available = self._available()
        ours = self._answered == briefing.number - 1
        if ours and self._prefetch is None and available and available[0].takes_time:
            prefetch = Prefetch(briefing, self._ask)
            prefetch.start()
            self._prefetch = prefetch

    def remarks(self) -> Iterator[str]:
        """Yield the lines for the end of a session: unavailable agents, and costs that are in no trial."""
        for name, reason in self._unavailable.items():
            yield f"{name} proposes no more: {reason}"
        waiting = self._prefetch and self._prefetch.answer
        cost = self.budget.unattributed.cost + (waiting.usage.cost if waiting else 0.0)
        if cost:
            yield f"{cost:.2f} US dollars more were for answers that no trial has used"

    def close(self) -> None:
        """Stop all agents, and record what a prefetched answer has cost. May be called twice.

        Raises:
            StorageError: the cost cannot be stored.
        """
        for agent in self._agents:
            agent.close()
        if prefetch := self._prefetch:
            prefetch.join(CLOSING)
            self._prefetch = None
            self.budget.unattributed += prefetch.answer.usage if prefetch.answer else Usage()
        self.budget.record()

    def _available(self) -> list[Agent]:
        return [agent for agent in self._agents if agent.name not in self._unavailable]

    def _prefetched(self, briefing: Briefing) -> Proposal | None:
        """Return the prefetched answer; None if there is none, or it is stale."""
        if (prefetch := self._prefetch) is None:
            return None
        prefetch.join()
        self._prefetch, answer = None, prefetch.answer
        proposal = answer and rebased(prefetch.briefing, answer, briefing)
        if answer and not proposal:
            self.budget.unattributed += answer.usage
        return proposal

    def _ask(self, briefing: Briefing) -> Proposal | None:
        """Return the first proposal, or one for the lack of an answer; None where there will be none."""
        usage, declined_by, exhausted = Usage(), [], False
        for agent in self._available():
            try:
                proposal = agent.propose(self._with_cost(briefing))
            except NoAnswer as error:
                if isinstance(error, AgentUnavailable):
                    self._unavailable[agent.name] = error
                self.budget.pay(error.usage or Usage())
                usage += error.usage or Usage()
                declined_by.append(f"{agent.name}: {error}")
                continue
            if proposal is not None:
                self.budget.pay(proposal.usage)
                return dataclasses.replace(
                    proposal,
                    agent=proposal.agent or agent.name,
                    usage=usage + proposal.usage,
                    declined_by=(*declined_by, *proposal.declined_by),
                )
            exhausted = True
        is_paid = usage + self.budget.unattributed != Usage()  # then a trial has to hold it
        goes_on = not exhausted and len(self._unavailable) < len(self._agents)
        return unanswered(declined_by, usage) if goes_on or is_paid else None

    def _with_cost(self, briefing: Briefing) -> Briefing:
        """Return *briefing* with all that was paid, in a stored trial or not."""
        return dataclasses.replace(briefing, cost=self.budget.spent(briefing.cost))


class Prefetch(threading.Thread):
    """Asks for an answer while a run trains."""

    def __init__(self, briefing: Briefing, ask: Callable[[Briefing], Proposal | None]) -> None:
        super().__init__(daemon=True)  # an agent that does not end must not keep pytest from ending
        self.briefing, self._ask = briefing, ask
        self.answer: Proposal | None = None
        """The answer; None while there is none, or if asking has failed: asking again will show why."""

    def run(self) -> None:
        """Ask."""
        with contextlib.suppress(Exception):
            self.answer = self._ask(self.briefing)


def unanswered(declined_by: Sequence[str], usage: Usage) -> Proposal:
    """Return the proposal that stands for no answer."""
    reason = "; ".join(declined_by) or "nothing is left to try"
    return Proposal({}, "no proposal", usage=usage, declined_by=tuple(declined_by), unanswered=reason)


def rebased(then: Briefing, proposal: Proposal, now: Briefing) -> Proposal | None:
    """Return what was proposed *then* as a proposal for *now*; None if it is stale."""
    if then.number != now.number:
        return None
    if proposal.unanswered:  # an agent that declined is not asked again for the same trial
        return proposal
    if digest(proposal.files) in (digest(running.files) for running in then.running):
        return None
    files = dict(proposal.files)
    for path, text in proposal.files.items():
        old, new = then.files.get(path), now.files.get(path)
        if old == new:
            continue
        if old is None or new is None or (both := merged(old, new, text)) is None:
            return None
        files[path] = both
    return None if files.items() <= now.files.items() else dataclasses.replace(proposal, files=files)
