"""Several agents: the next is asked where one has no answer, and none waits while a run trains."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pytest_autoresearch.agents.briefing import Briefing
from pytest_autoresearch.agents.chain import AgentChain, Prefetch
from pytest_autoresearch.campaign.costs import CostTotal
from pytest_autoresearch.errors import AgentUnavailable, AllAgentsUnavailable, BudgetExhausted, NoAnswer
from pytest_autoresearch.records.proposal import Failure, Proposal, Usage
from pytest_autoresearch.sandbox.policy import Enforcer
from tests.agents.test_briefing import brief

Answer = str | None | Exception


class Scripted:
    """Gives one answer after the other: a description, None, or an exception."""

    def __init__(self, name: str, *answers: Answer, takes_time: bool = False) -> None:
        self.name = name
        self.takes_time = takes_time
        self.sandbox: Enforcer | None = None
        self.asked: list[Briefing] = []
        self.closed = False
        self.gate = threading.Event()
        self.gate.set()
        self._answers: Iterator[Answer] = iter(answers)

    def propose(self, briefing: Briefing) -> Proposal | None:
        self.asked.append(briefing)
        self.gate.wait(10)
        return self._answer(briefing)

    def fix(self, briefing: Briefing, failure: Failure) -> Proposal | None:
        self.asked.append(briefing)
        return self._answer(briefing) if failure.attempt < 3 else None

    def close(self) -> None:
        self.closed = True
        self.gate.set()

    def _answer(self, briefing: Briefing) -> Proposal | None:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            return None
        edited = briefing.script.replace("LR = 0.04", f"LR = len({answer!r})")
        return Proposal({"train.py": edited}, answer, usage=Usage(calls=1, cost=0.5))


DIFFERENT = "LR = 0.04\n\n\n\nDEPTH = 5\n"
SCRIPT = "LR = 0.04\n\n\n\nDEPTH = 4\n"


def propose(chain: AgentChain, script: str = SCRIPT, **fields: object) -> Proposal | None:
    return chain.propose(brief(files={"train.py": script}, **fields))  # type: ignore[arg-type]


def test_the_first_that_answers_is_taken() -> None:
    chain = AgentChain([Scripted("a", "one"), Scripted("b")])
    proposal = propose(chain)
    assert proposal is not None
    assert (proposal.agent, proposal.description, proposal.usage.cost) == ("a", "one", 0.5)
    assert chain.name == "a, then b"


def test_agents_of_one_name_are_told_apart() -> None:
    chain = AgentChain(
        [Scripted("claude", AgentUnavailable("no key")), Scripted("claude", "one"), Scripted("claude")]
    )
    assert chain.name == "claude, then claude 2, then claude 3"
    proposal = propose(chain)
    assert proposal is not None
    assert proposal.agent == "claude 2"


def test_the_next_is_asked_where_one_has_no_answer() -> None:
    overloaded = NoAnswer("overloaded", usage=Usage(calls=3, cost=0.25))
    a, b = Scripted("a", overloaded, "two"), Scripted("b", "one")
    chain = AgentChain([a, b])
    first, second = propose(chain), propose(chain)
    assert first is not None
    assert (first.agent, first.declined_by, first.usage) == (
        "b",
        ("a: overloaded",),
        Usage(calls=4, cost=0.75),
    )
    assert b.asked[0].cost == 0.25  # what was spent on the way counts
    assert second is not None
    assert second.agent == "a"


def test_who_is_gone_is_not_asked_again() -> None:
    a = Scripted("a", AgentUnavailable("the key is refused"))
    chain = AgentChain([a, Scripted("b", "one", "two")])
    assert [propose(chain) is not None for _ in range(2)] == [True, True]
    assert len(a.asked) == 1


def test_without_any_answer_the_trial_is_refused_and_the_loop_goes_on() -> None:
    chain = AgentChain([Scripted("a", NoAnswer("declined", usage=Usage(calls=1)), "one")])
    proposal = propose(chain)
    assert proposal is not None
    assert (proposal.unanswered, proposal.files, proposal.usage.calls) == ("a: declined", {}, 1)
    assert propose(chain).description == "one"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "answers",
    [(None,), (BudgetExhausted("the limit is reached"),), (AgentUnavailable("no key"), None)],
    ids=["done", "spent", "last"],
)
def test_when_there_is_nothing_more_to_try_the_campaign_ends(answers: tuple[Answer, ...]) -> None:
    chain = AgentChain([Scripted(f"agent {number}", answer) for number, answer in enumerate(answers)])
    assert propose(chain) is None


def test_when_nobody_is_left_it_says_why() -> None:
    chain = AgentChain(
        [Scripted("a", AgentUnavailable("no key")), Scripted("b", BudgetExhausted("the limit is reached"))]
    )
    with pytest.raises(AllAgentsUnavailable, match="a: no key; b: the limit is reached"):
        propose(chain)


def failure(agent: str, attempt: int = 0) -> Failure:
    return Failure(Proposal({"train.py": SCRIPT}, "crashes", agent=agent), "oops", "", attempt)


def test_its_author_mends_a_crash() -> None:
    chain = AgentChain(
        [Scripted("a", "not mine"), Scripted("b", "repaired", NoAnswer("declined", usage=Usage(calls=1)))]
    )
    told = brief(files={"train.py": SCRIPT})
    repaired = chain.fix(told, failure("b"))
    assert repaired is not None
    assert (repaired.description, repaired.agent) == ("repaired", "b")
    declined = chain.fix(told, failure("b", 1))
    assert declined is not None
    assert (declined.unanswered, declined.usage) == ("b: declined", Usage(calls=1))
    assert chain.fix(told, failure("a conftest")) is None


@pytest.fixture
def busy() -> Iterator[Callable[..., tuple[AgentChain, Scripted]]]:
    """Make a chain whose one agent is asked ahead, and has not answered yet."""
    made: list[Scripted] = []

    def make(*answers: Answer) -> tuple[AgentChain, Scripted]:
        agent = Scripted("a", "now", *answers, takes_time=True)
        made.append(agent)
        chain = AgentChain([agent])
        running = propose(chain, number=1)
        agent.gate.clear()
        agent.asked.clear()
        chain.prefetch(brief(files={"train.py": SCRIPT}, number=2, running=(running,)))
        return chain, agent

    yield make
    for agent in made:
        agent.gate.set()


def test_the_next_proposal_is_prepared_while_a_run_trains(
    busy: Callable[..., tuple[AgentChain, Scripted]],
) -> None:
    chain, agent = busy("ahead")
    agent.gate.set()
    proposal = propose(chain, number=2)
    assert proposal is not None
    assert proposal.description == "ahead"
    [told] = agent.asked
    assert [proposal.description for proposal in told.running] == ["now"]


def test_what_was_prepared_is_merged_with_a_new_incumbent(
    busy: Callable[..., tuple[AgentChain, Scripted]],
) -> None:
    chain, agent = busy("ahead")
    agent.gate.set()
    proposal = propose(chain, number=2, script=DIFFERENT)
    assert proposal is not None
    assert proposal.files["train.py"] == DIFFERENT.replace("LR = 0.04", "LR = len('ahead')")
    assert len(agent.asked) == 1


@pytest.mark.parametrize(
    ("first", "script"),
    [
        ("ahead", SCRIPT.replace("LR = 0.04", "LR = 0.08")),
        ("ahead", SCRIPT.replace("LR = 0.04", "LR = len('ahead')")),
        ("now", SCRIPT),
    ],
    ids=["conflict", "there already", "being measured"],
)
def test_what_is_stale_is_asked_for_again_and_paid_for(
    busy: Callable[..., tuple[AgentChain, Scripted]], first: Answer, script: str
) -> None:
    chain, agent = busy(first, "again")
    agent.gate.set()
    proposal = propose(chain, number=2, script=script)
    assert proposal is not None
    assert proposal.description == "again"
    assert proposal.usage == Usage(calls=2, cost=1.0)
    assert len(agent.asked) == 2
    assert agent.asked[1].script == script


def test_who_has_declined_is_not_asked_again_for_the_same_trial(
    busy: Callable[..., tuple[AgentChain, Scripted]],
) -> None:
    chain, agent = busy(NoAnswer("declined", usage=Usage(calls=1)), "another time")
    agent.gate.set()
    proposal = propose(chain, number=2)
    assert proposal is not None
    assert (proposal.unanswered, proposal.usage, len(agent.asked)) == ("a: declined", Usage(calls=1), 1)


def test_nothing_is_prepared_where_somebody_else_proposes() -> None:
    agent = Scripted("a", "one", takes_time=True)
    chain = AgentChain([agent])
    chain.prefetch(brief(number=2, running=(Proposal({}, "a conftest's"),)))
    assert not agent.asked


def test_what_was_paid_for_nothing_is_in_the_next_trial() -> None:
    spent = BudgetExhausted("the limit is reached", usage=Usage(calls=1, cost=0.5))
    chain = AgentChain([Scripted("a", spent)])
    last = propose(chain)
    assert last is not None
    assert (last.unanswered, last.usage.cost) == ("a: the limit is reached", 0.5)
    assert propose(chain, cost=0.5) is None
    assert list(chain.remarks()) == ["a proposes no more: the limit is reached"]


def test_what_was_paid_before_all_was_tried_is_in_a_last_trial() -> None:
    declined = NoAnswer("declined", usage=Usage(calls=1, cost=0.5))
    last = propose(AgentChain([Scripted("a", declined), Scripted("b", None)]))
    assert last is not None
    assert (last.unanswered, last.files, last.usage.cost) == ("a: declined", {}, 0.5)
    chain = AgentChain([Scripted("a", None, None)])
    chain.budget.open(Total(), Usage(cost=2.0))
    last = propose(chain)
    assert last is not None
    assert (last.unanswered, last.usage.cost) == ("nothing is left to try", 2.0)
    assert propose(chain) is None


def test_what_no_trial_has_used_is_told_in_the_end(busy: Callable[..., tuple[AgentChain, Scripted]]) -> None:
    chain, agent = busy("ahead")
    agent.gate.set()
    deadline = time.monotonic() + 10
    while not list(chain.remarks()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(chain.remarks()) == ["0.50 US dollars more were for answers that no trial has used"]


class Total(CostTotal):
    """A total that is kept in memory, and notes who adds to it."""

    def __init__(self) -> None:
        self.paid = Usage()
        self.is_stored = True
        self.threads: set[threading.Thread] = set()

    def add(self, usage: Usage) -> None:
        self.paid += usage
        self.threads.add(threading.current_thread())


def test_every_cost_is_stored_once_and_on_the_main_thread(
    busy: Callable[..., tuple[AgentChain, Scripted]],
) -> None:
    chain, agent = busy("ahead", NoAnswer("declined", usage=Usage(cost=0.25)), "repaired")
    total = Total()
    chain.budget.open(total, Usage())
    agent.gate.set()
    assert propose(chain, number=2) is not None
    assert total.paid.cost == 1.0  # of the proposal before, and of the one that was prefetched
    for cost in (1.25, 1.75):
        assert chain.fix(brief(files={"train.py": SCRIPT}), failure("a")) is not None
        assert total.paid.cost == cost
    chain.close()
    assert total.paid.cost == 1.75
    assert total.threads == {threading.main_thread()}


@pytest.mark.parametrize("answer", ["ahead", NoAnswer("declined", usage=Usage(cost=0.5))], ids=["yes", "no"])
def test_a_prefetched_answer_that_nobody_fetched_is_paid_in_the_end(
    busy: Callable[..., tuple[AgentChain, Scripted]], answer: Answer
) -> None:
    chain, _ = busy(answer)
    total = Total()
    chain.budget.open(total, Usage())
    for _ in range(2):
        chain.close()
        assert total.paid.cost == 1.0
        assert total.threads == {threading.main_thread()}
        assert list(chain.remarks()) == ["0.50 US dollars more were for answers that no trial has used"]


def test_what_an_earlier_session_left_is_in_the_next_trial() -> None:
    chain = AgentChain([Scripted("a", "one")])
    chain.budget.open(Total(), Usage(calls=3, cost=2.0))
    proposal = propose(chain, cost=1.0)
    assert proposal is not None
    assert proposal.usage == Usage(calls=4, cost=2.5)


def test_every_question_knows_what_was_paid_so_far(busy: Callable[..., tuple[AgentChain, Scripted]]) -> None:
    chain, agent = busy("ahead", "repaired")
    agent.gate.set()
    assert propose(chain, number=2, cost=9.0) is not None
    repaired = chain.fix(brief(files={"train.py": SCRIPT}, cost=9.0), failure("a"))
    assert repaired is not None
    assert [told.cost for told in agent.asked] == [0.5, 9.0]


def test_an_error_on_the_way_is_raised_where_it_is_seen(
    busy: Callable[..., tuple[AgentChain, Scripted]],
) -> None:
    chain, agent = busy(OSError("in a thread"), OSError("where all can see"))
    agent.gate.set()
    with pytest.raises(OSError, match="where all can see"):
        propose(chain, number=2)


def test_who_answers_at_once_is_not_asked_ahead() -> None:
    agent = Scripted("a", "one")
    AgentChain([agent]).prefetch(brief())
    assert agent.asked == []


def test_a_thread_that_cannot_start_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    chain = AgentChain([Scripted("a", "one", "two", takes_time=True)])
    assert propose(chain, number=1) is not None
    monkeypatch.setattr(Prefetch, "start", full)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        chain.prefetch(brief(number=2))
    chain.close()


def test_the_header_says_what_agents_can_reach() -> None:
    agents = [Scripted("tuner"), Scripted("codex"), Scripted("claude")]
    agents[1].sandbox, agents[2].sandbox = "none", "bwrap"
    open_, _, closed, cost = AgentChain(agents).header(max_cost=1.0)
    assert open_.startswith("agent codex: NO SANDBOX!")
    assert closed == "agent claude: sandbox bwrap, without this repository and the data"
    assert cost == "agent claude: the limit counts only the cost that its output states"
    assert len(list(AgentChain(agents).header(None))) == 2


def test_every_agent_is_closed() -> None:
    agents = [Scripted("a"), Scripted("b")]
    AgentChain(agents).close()
    assert all(agent.closed for agent in agents)


def test_usages_add_up() -> None:
    both = Usage(1, 10, 2, 3, 4, 0.5) + Usage(1, 20, 0, 0, 6, 0.25)
    assert both == Usage(2, 30, 2, 3, 10, 0.75)
    assert Usage(**both.to_json()) == both
    assert dataclasses.replace(both, calls=0).to_json().get("calls") is None
