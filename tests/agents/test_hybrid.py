"""The hybrid asks a model on some trials, and the tuner on the others."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

import pytest

from pytest_autoresearch.agents.briefing import Briefing, trial_context
from pytest_autoresearch.agents.chain import AgentChain
from pytest_autoresearch.agents.hybrid import Hybrid
from pytest_autoresearch.agents.tuner.agent import Tuner
from pytest_autoresearch.errors import AgentUnavailable, BudgetExhausted, NoAnswer
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.proposal import Failure, Proposal, Usage
from pytest_autoresearch.records.trial import Trial, Value, Verdict
from pytest_autoresearch.source import constants
from tests.project import Project

SCRIPT = "DEPTH = 4\nWIDTH = 64\nMATRIX_LR = 0.04\nDROPOUT = 0.1\n"
NAME = "hybrid:scripted"
START = constants.values(SCRIPT, "cpu")


class Scripted:
    """An agent that halves the rate, or does what it was told to do instead."""

    name = "scripted"
    takes_time = True
    sandbox = None

    def __init__(self, *errors: NoAnswer) -> None:
        self.errors = list(errors)
        self.asked: list[Briefing] = []
        self.closed = False

    def propose(self, briefing: Briefing) -> Proposal | None:
        self.asked.append(briefing)
        if self.errors:
            raise self.errors.pop(0)
        rate = constants.values(briefing.script, "cpu")["MATRIX_LR"]
        source = constants.replace(briefing.script, {"MATRIX_LR": repr(float(rate) / 2)}, "cpu")
        return Proposal(
            {"train.py": source}, f"half the rate, for trial {briefing.number}", usage=Usage(calls=1)
        )

    def fix(self, briefing: Briefing, failure: Failure) -> Proposal | None:
        return dataclasses.replace(failure.proposal, files={"train.py": briefing.script + "# repaired\n"})

    def close(self) -> None:
        self.closed = True


def brief(number: int, history: Sequence[Trial] = (), script: str = SCRIPT) -> Briefing:
    return Briefing(
        tag="test",
        number=number,
        program="",
        fixed="",
        files={"train.py": script},
        start_files={"train.py": SCRIPT},
        script_name="train.py",
        history=history,
        score=2.0,
        noise=0.001,
        metric="val_bpb",
        direction="minimize",
        platform={"device": "cpu"},
    )


def entry(number: int, agent: str, verdict: Verdict = "discarded", **changed: Value) -> Trial:
    runs = (Measurement(2.3, seed=0, wall_seconds=1.0),)
    return Trial(number, "", verdict, "", "", "", 2.0, runs, START | changed, agent=agent)


def campaign(agent: Hybrid, trials: int, *, paying: bool = True) -> list[Proposal]:
    """Run a loop without git, in which a lower rate is better, or nothing is."""
    history: list[Trial] = []
    proposals = []
    script, best = SCRIPT, 0.04
    for number in range(1, trials + 1):
        proposal = agent.propose(brief(number, history, script))
        assert proposal is not None
        known = constants.values(proposal.files["train.py"], "cpu")
        rate = float(known["MATRIX_LR"])
        kept = paying and rate < best
        runs = (Measurement(2.0 + rate, seed=0, wall_seconds=1.0),)
        verdict: Verdict = "kept" if kept else "discarded"
        told = {"agent": proposal.agent, "declined_by": proposal.declined_by}
        history.append(Trial(number, "", verdict, "", "", "", 2.0 + best, runs, known, **told))
        script, best = (proposal.files["train.py"], rate) if kept else (script, best)
        proposals.append(proposal)
    return proposals


def test_a_model_that_pays_is_asked_again_at_once() -> None:
    proposals = campaign(Hybrid(Scripted()), 6)
    assert [proposal.agent for proposal in proposals] == [NAME] * 6


def test_a_model_that_does_not_pay_waits_twice_as_long_each_time() -> None:
    model = Scripted()
    proposals = campaign(Hybrid(model), 40, paying=False)
    by = {number: proposal.agent for number, proposal in enumerate(proposals, start=1)}
    assert [number for number, agent in by.items() if agent == NAME] == [1, 3, 6, 11, 20, 37]
    assert [briefing.number for briefing in model.asked] == [1, 3, 6, 11, 20, 37]
    assert set(by.values()) == {NAME, "tuner"}


def test_a_trial_that_is_kept_ends_the_waiting() -> None:
    failed = [entry(number, NAME) for number in range(1, 5)]
    kept = [*failed, entry(5, NAME, "kept", MATRIX_LR=0.02)]
    assert _author(brief(5, failed)) == "tuner"
    assert _author(brief(6, kept)) == NAME
    assert _author(brief(7, [*kept, entry(6, NAME)])) == "tuner"
    assert _author(brief(8, [*kept, entry(6, NAME), entry(7, "tuner")])) == NAME, "only one has failed since"


def test_what_is_still_measured_counts_as_a_failure() -> None:
    running = Proposal({"train.py": SCRIPT.replace("0.04", "0.03")}, "a lower rate", agent=NAME)
    assert _author(dataclasses.replace(brief(2), running=(running,))) == "tuner"
    tuned = dataclasses.replace(running, agent="tuner")
    assert _author(dataclasses.replace(brief(3, [entry(1, NAME)]), running=(tuned,))) == NAME


def test_no_answer_counts_as_a_failure() -> None:
    silent = [dataclasses.replace(entry(1, "tuner"), declined_by=("scripted: overloaded",))]
    assert _author(brief(2, silent)) == "tuner"
    assert _author(brief(3, [*silent, entry(2, "tuner")])) == NAME
    others = [dataclasses.replace(entry(1, "tuner"), declined_by=("first: busy",))]
    assert _author(brief(2, others)) == NAME, "it was not the model that had none"


def _author(briefing: Briefing) -> str:
    proposal = Hybrid(Scripted()).propose(briefing)
    assert proposal is not None
    return proposal.agent


def test_the_tuner_learns_from_the_models_trials() -> None:
    moves: list[dict[str, Value]] = [{"DEPTH": 2}, {"WIDTH": 32}, {"DROPOUT": 0.9}]
    history = [entry(number, "tuner", **move) for number, move in enumerate(moves, start=1)]
    models = entry(4, NAME, MATRIX_LR=0.16)
    runs = (Measurement(1.9, seed=0, wall_seconds=1.0),)
    bad, good = [*history, models], [*history, dataclasses.replace(models, measurements=runs)]
    first, second = (Hybrid(Scripted()).propose(brief(5, known)) for known in (bad, good))
    assert first == dataclasses.replace(_tuned(5, bad), agent="tuner")
    assert second == dataclasses.replace(_tuned(5, good), agent="tuner")
    assert first != second


def _tuned(number: int, history: Sequence[Trial]) -> Proposal:
    proposal = Tuner().propose(brief(number, history))
    assert proposal is not None
    return proposal


def test_the_model_is_told_what_the_tuner_knows() -> None:
    model = Scripted()
    campaign(Hybrid(model), 10)
    told = trial_context(model.asked[-1])
    advice = told.partition("# What a model of the constants")[2]
    assert "DEPTH: 2.0..8.0, now " in advice
    assert "MATRIX_LR: 0.01..0.16, now " in advice
    assert "model prefers" in advice
    assert "the tuner's choice 1: " in advice
    assert "# What a model" not in trial_context(brief(10)), "nobody else is told"


def test_the_tuner_stands_in_and_the_failed_answer_is_counted() -> None:
    model = Scripted(NoAnswer("overloaded", usage=Usage(calls=2, cost=0.5)))
    hybrid = Hybrid(model)
    proposal = hybrid.propose(brief(1))
    assert proposal is not None
    assert proposal.agent == "tuner"
    assert proposal.usage == Usage(calls=2, cost=0.5)
    assert proposal.declined_by == ("scripted: overloaded",)
    again = hybrid.propose(brief(7))
    assert again is not None
    assert again.agent == "hybrid:scripted", "it may answer another time"


@pytest.mark.parametrize(
    "error", [AgentUnavailable("the key is refused"), BudgetExhausted("2.00 dollars are spent")]
)
def test_a_model_that_has_gone_is_not_asked_again(error: AgentUnavailable) -> None:
    model = Scripted(error)
    proposals = campaign(Hybrid(model), 20)
    assert len(model.asked) == 1
    assert {proposal.agent for proposal in proposals} == {"tuner"}
    assert [proposal.declined_by for proposal in proposals if proposal.declined_by] == [
        (f"scripted: {error}",)
    ]


def test_where_the_tuner_has_nothing_either_the_failure_is_told() -> None:
    briefing = dataclasses.replace(brief(4, script="pass\n"), start_files={"train.py": "pass\n"})
    with pytest.raises(NoAnswer, match="overloaded"):
        Hybrid(Scripted(NoAnswer("overloaded"))).propose(briefing)


def test_the_model_mends_its_own_proposals_only() -> None:
    chain = AgentChain([Hybrid(Scripted())])
    told = brief(1), brief(2, [entry(1, NAME)])
    models, tuned = map(chain.propose, told)
    assert tuned is not None
    assert models is not None
    assert (tuned.agent, models.agent) == ("tuner", "hybrid:scripted")
    repaired = chain.fix(told[0], Failure(models, "crashed", "", 0))
    assert repaired is not None
    assert repaired.files["train.py"].endswith("# repaired\n")
    assert repaired.agent == "hybrid:scripted"
    assert chain.fix(told[1], Failure(tuned, "crashed", "", 0)) is None


def test_what_was_asked_before_is_counted_by_the_chain() -> None:
    first = Scripted(NoAnswer("busy", usage=Usage(calls=1)))
    first.name = "first"
    chain = AgentChain([first, Hybrid(Scripted(NoAnswer("overloaded", usage=Usage(calls=2))))])
    proposal = chain.propose(brief(4))
    assert proposal is not None
    assert proposal.declined_by == ("first: busy", "scripted: overloaded")
    assert proposal.usage == Usage(calls=3)
    assert proposal.agent == "tuner"


def test_closing_closes_the_model() -> None:
    model = Scripted()
    Hybrid(model).close()
    assert model.closed


def test_a_coding_agent_and_the_tuner_share_a_campaign(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("agent")
    program, told = folder / "agent.py", folder / "told"
    program.write_text(
        f"""\
#!{sys.executable} -IS
import pathlib, sys

pathlib.Path({str(told)!r}).write_text(sys.stdin.read())
train = pathlib.Path("experiment/train.py")
train.write_text(train.read_text().replace("LR = 0.04", "LR = 0.055"))
print("what a coding agent says of itself")
"""
    )
    program.chmod(0o755)
    session = project.research(f"--autoresearch-agent=hybrid:{program} --fast", "--autoresearch-trials=4")
    session.exits(0).shows("agent: hybrid:agent.py")
    agents = [trial["agent"] for trial in project.ledger()]
    assert agents[:2] == ["hybrid:agent.py", "tuner"]
    assert "the tuner's choice 1: " in told.read_text()


def test_where_the_tuner_has_nothing_the_model_is_asked_out_of_turn() -> None:
    """A script without constants is the model's alone."""
    bare = "print('val_bpb: 1.0')\n"
    failed = Trial(
        1, "", "discarded", "", "", "", 2.0, (Measurement(2.1, seed=1, wall_seconds=1),), agent=NAME
    )
    briefing = dataclasses.replace(
        brief(2, [failed]), files={"train.py": bare}, start_files={"train.py": bare}
    )
    model = Changing()
    assert Hybrid(model).propose(briefing) is not None
    assert Hybrid(model).propose(dataclasses.replace(briefing, number=3)) is not None


class Changing(Scripted):
    """An agent that needs no constant."""

    def propose(self, briefing: Briefing) -> Proposal | None:
        return Proposal({"train.py": f"{briefing.script}# {briefing.number}\n"}, "another")
