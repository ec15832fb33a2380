"""The agents of a campaign, in the order in which they are asked."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pytest_autoresearch.agents.agent import Agent
from pytest_autoresearch.agents.briefing import LONGEST_NAME, Briefing
from pytest_autoresearch.agents.budget import Budget
from pytest_autoresearch.campaign.git import merged
from pytest_autoresearch.errors import AgentUnavailable, AllAgentsUnavailable, BudgetExhausted, NoAnswer
from pytest_autoresearch.records.proposal import Failure, Proposal, Usage
from pytest_autoresearch.source import canonical
from pytest_autoresearch.text import single_line

CLOSING = 10.0  # seconds for a prefetched answer to end when the session does


class Answer(NamedTuple):
    """The result of asking all agents in turn."""

    proposal: Proposal | None
    """None if they have tried everything, or are unavailable."""
    usage: Usage


class AgentChain:
    """Asks one agent after the other until one has a proposal.

    An agent that takes time is asked for the next proposal while a run trains, in a thread. If the run is
    kept, that proposal is merged with the new incumbent; if both changed the same lines it is stale, and the
    agent is asked again.

    The chain does the accounting of all its agents: each answer is paid for once, in its :class:`Budget`.
    The usage of a proposal includes the failed attempts before it.
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
        answer = self._prefetched(briefing) or self._ask(briefing)
        self.budget.record()
        usage, proposal = self.budget.attribute(answer.usage), answer.proposal
        if proposal is None:
            reasons = tuple(f"{name}: {error}" for name, error in self._unavailable.items())
            failed = [error for error in self._unavailable.values() if not isinstance(error, BudgetExhausted)]
            if usage != Usage():  # a trial has to hold it
                proposal = unanswered(reasons)
            elif failed and len(reasons) == len(self._agents):
                raise AllAgentsUnavailable("; ".join(reasons))
            else:
                return None
        self._answered = briefing.number
        return dataclasses.replace(proposal, usage=usage)

    def fix(self, briefing: Briefing, failure: Failure) -> Proposal | None:
        """Return the repair of a crashed proposal by its author, None if it is none of these agents'.

        Raises:
            StorageError: the cost cannot be stored.
        """
        author = failure.proposal.agent
        agents = [agent for agent in self._agents if agent.name == author]
        if not agents or author in self._unavailable:
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
        available = [agent for agent in self._agents if agent.name not in self._unavailable]
        ours = self._answered == briefing.number - 1
        if ours and self._prefetch is None and available and available[0].takes_time:
            self._prefetch = Prefetch(briefing, self._ask)

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
        if self._prefetch is not None:
            answer, self._prefetch = self._prefetch.wait(CLOSING), None
            self.budget.unattributed += answer.usage if answer else Usage()
        self.budget.record()

    def _prefetched(self, briefing: Briefing) -> Answer | None:
        """Return the prefetched answer; None if there is none, or it is stale."""
        if self._prefetch is None:
            return None
        prefetch, answer = self._prefetch, self._prefetch.wait()
        self._prefetch = None
        if answer is None:
            return None
        proposal = answer.proposal and rebased(prefetch.briefing, answer.proposal, briefing)
        if proposal is None:
            self.budget.unattributed += answer.usage
            return None
        return Answer(proposal, answer.usage)

    def _ask(self, briefing: Briefing) -> Answer:
        usage, declined_by, exhausted = Usage(), [], False
        for agent in self._agents:
            if agent.name in self._unavailable:
                continue
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
                author = proposal.agent or agent.name
                reasons = (*declined_by, *proposal.declined_by)
                proposal = dataclasses.replace(proposal, agent=author, declined_by=reasons)
                return Answer(proposal, usage + proposal.usage)
            exhausted = True
        for_ever = exhausted or len(self._unavailable) == len(self._agents)
        return Answer(None if for_ever else unanswered(declined_by), usage)

    def _with_cost(self, briefing: Briefing) -> Briefing:
        """Return *briefing* with all that was paid, in a stored trial or not."""
        return dataclasses.replace(briefing, cost=self.budget.spent(briefing.cost))


class Prefetch:
    """An answer that a thread asks for while a run trains."""

    def __init__(self, briefing: Briefing, ask: Callable[[Briefing], Answer]) -> None:
        self.briefing = briefing
        self.answer: Answer | None = None
        """The answer; None while there is none, or if asking has failed: asking again will show why."""
        self._ask = ask
        # A daemon: an agent that does not end must not keep pytest from ending.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, seconds: float | None = None) -> Answer | None:
        """Wait for the answer, for so many *seconds* or as long as it takes, and return it."""
        self._thread.join(seconds)
        return self.answer

    def _run(self) -> None:
        with contextlib.suppress(Exception):
            self.answer = self._ask(self.briefing)


def unanswered(declined_by: Sequence[str], usage: Usage = Usage()) -> Proposal:  # noqa: B008 - it is frozen
    """Return the proposal that stands for no answer."""
    reason = "; ".join(declined_by)
    return Proposal({}, "no proposal", usage=usage, declined_by=tuple(declined_by), unanswered=reason)


def rebased(then: Briefing, proposal: Proposal, now: Briefing) -> Proposal | None:
    """Return what was proposed *then* as a proposal for *now*; None if it is stale."""
    if then.number != now.number:
        return None
    if proposal.unanswered:  # an agent that declined is not asked again for the same trial
        return proposal
    if any(_digests(running.files) == _digests(proposal.files) for running in then.running):
        return None
    files = dict(proposal.files)
    for path, text in proposal.files.items():
        old, new = then.files.get(path), now.files.get(path)
        if old == new:
            continue
        if old is None or new is None or (both := merged(old, new, text)) is None:
            return None
        files[path] = both
    if all(now.files.get(path) == text for path, text in files.items()):
        return None
    return dataclasses.replace(proposal, files=files)


def _digests(files: Mapping[str, str]) -> dict[str, str]:
    return {path: canonical.digest(text) for path, text in files.items()}
