"""The state of a trial, driven without pytest, git, processes or clocks."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_autoresearch.errors import ProposalRefused, StorageError
from pytest_autoresearch.executors.base import FailureKind, RunFailure, RunOutcome, RunRequest
from pytest_autoresearch.judging.judge import STRICT, JudgePolicy, JudgeState
from pytest_autoresearch.judging.noise import Estimate, Noise
from pytest_autoresearch.judging.pruning import Margins, PruneRule
from pytest_autoresearch.loop.trial import RepairRequest, TrialSetup, TrialTask, code_size
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.overheads import Overheads
from pytest_autoresearch.records.proposal import Proposal, Usage
from pytest_autoresearch.records.trial import Decision

OLD, NEW = "LR = 1\n", "LR = 2\n"
INCUMBENT = {"train.py": OLD}
SILENT = JudgeState.initial(JudgePolicy(), Estimate(1.0, 0.0), Noise(0.0, 2))
NOISY = JudgeState.initial(JudgePolicy(confidence=STRICT), Estimate(1.0, 0.02), Noise(0.01, 20))
PROPOSAL = Proposal(
    {"train.py": NEW}, "a change", "it helps", "tuner", Usage(calls=1, cost=0.25), ("claude: no key",)
)
RULE = PruneRule((3.0,) * 9, Margins.learned([], [], 0.01, "minimize"))


class Scripted:
    """A judge that asks for these actions, one after another; the last one stays."""

    def __init__(self, *actions: str) -> None:
        self.actions = actions
        self.seen: list[tuple[tuple[float, ...], tuple[float, ...]]] = []

    def judge(self, scores: Sequence[float], incumbent: Sequence[float], _tokens: int) -> Any:
        self.seen.append((tuple(scores), tuple(incumbent)))
        done = len(scores) + len(incumbent)
        return SimpleNamespace(action=self.actions[min(done, len(self.actions) - 1)], reason="as scripted")


def task(state: Any = SILENT, check: Any = lambda _proposal: None, **settings: Any) -> TrialTask:
    setup = TrialSetup(**{"proposal": PROPOSAL, "incumbent": INCUMBENT, "state": state, **settings})
    return TrialTask(setup, itertools.count(1).__next__, check)


def scored(score: float, **fields: Any) -> RunOutcome:
    return RunOutcome(Measurement(score, seed=0, wall_seconds=1.0, **fields), 0.0, 1.0)


def failed(reason: str = "exit code 1", kind: FailureKind = "crashed", log: str = "Traceback") -> RunOutcome:
    return RunOutcome(RunFailure(kind, reason, log=log), 0.0, 1.0)


def fed(trial: TrialTask, *answers: object) -> RunRequest | RepairRequest | Decision:
    """Answer what the trial requests, and return what it says after the last answer."""
    for answer in answers:
        trial.next()
        trial.feed(answer)
    return trial.next()


def decided(trial: TrialTask, *answers: object) -> Decision:
    decision = fed(trial, *answers)
    assert isinstance(decision, Decision)
    return decision


def run(trial: TrialTask, *answers: object) -> RunRequest:
    request = fed(trial, *answers)
    assert isinstance(request, RunRequest)
    return request


def repair(trial: TrialTask, *answers: object) -> RepairRequest:
    request = fed(trial, *answers)
    assert isinstance(request, RepairRequest)
    return request


def fix(source: str = NEW, **fields: Any) -> Proposal:
    return Proposal({"train.py": source}, "a repair", usage=Usage(calls=1, cost=0.5), **fields)


# -- runs and verdicts ----------------------------------------------------------------------------


@pytest.mark.parametrize(("score", "verdict"), [(0.9, "kept"), (1.1, "discarded")])
def test_a_run_decides_where_there_is_no_noise(score: float, verdict: str) -> None:
    outcome = scored(score)
    decision = decided(task(), outcome)
    reason = f"{score:.4f}, {score - 1:+.4f} ± 0.0000 after 1 run"
    assert decision == Decision(verdict, reason, (outcome.result,))  # type: ignore[arg-type]


def test_a_request_says_everything_about_its_run() -> None:
    needs = Overheads(1.0, 1.0, 1.0, 10)
    request = run(task(prune=RULE, overheads=needs, limit=60.0, log=Path("log")))
    assert request.role == "candidate"
    assert request.files == {"train.py": NEW}
    assert request.seed == 1
    assert (request.overheads, request.limit, request.log) == (needs, 60.0, Path("log"))
    assert not request.score_claim_split
    assert request.cache_use == "copy"


def test_a_request_can_cross_to_another_machine() -> None:
    trial = task(NOISY, prune=RULE)
    for request in (run(trial), run(trial, scored(0.975))):
        copy = pickle.loads(pickle.dumps(request))  # noqa: S301 - our own
        assert (copy.files, copy.seed) == (request.files, request.seed)
        assert copy.probe_all_rows == request.probe_all_rows
        assert copy.probe_all_rows(0.5) == request.probe_all_rows(0.5)


def test_what_is_in_doubt_is_measured_again_and_the_incumbent_too() -> None:
    trial, roles = task(NOISY), []
    while isinstance(request := trial.next(), RunRequest):
        roles.append((request.role, request.seed, request.files["train.py"]))
        trial.feed(scored(0.975 if request.role == "candidate" else 1.0))
    assert {role for role, _, _ in roles} == {"candidate", "incumbent"}
    assert [seed for _, seed, _ in roles] == list(range(1, len(roles) + 1))
    assert all((role == "candidate") == (text == NEW) for role, _, text in roles)
    assert isinstance(request, Decision)
    assert len(request.measurements) + len(request.incumbent_runs) == len(roles)
    assert {measured.score for measured in request.incumbent_runs} == {1.0}
    assert trial.judgement is not None
    assert request.reason == f"0.9750, {trial.judgement.reason}"


def test_runs_of_the_incumbent_that_no_trial_has_count_but_stay_out_of_the_decision() -> None:
    state = Scripted("measure candidate", "measure candidate", "measure incumbent", "keep")
    decision = decided(task(state, incumbent_scores=(1.5,)), scored(0.9), scored(1.2))
    assert state.seen == [((), (1.5,)), ((0.9,), (1.5,)), ((0.9,), (1.5, 1.2))]
    assert [measured.score for measured in decision.incumbent_runs] == [1.2]


def test_the_change_of_code_size_is_told_once_there_is_a_run() -> None:
    longer = dataclasses.replace(PROPOSAL, files={"train.py": "LR = 2\nDEPTH = 8\n"})
    decision = decided(task(proposal=longer), scored(0.9))
    assert decision.code_size_change > 0
    assert decision.reason.endswith(f", {decision.code_size_change} tokens longer")
    assert decided(task(proposal=longer), failed(kind="timeout")).code_size_change == 0
    assert code_size({**INCUMBENT, "notes.yaml": "lr: 1"}) == code_size(INCUMBENT) > 0


def test_too_much_memory_is_a_remark() -> None:
    decision = decided(task(memory_soft_limit=100.0), scored(0.9, memory_mb=120.4))
    assert decision.verdict == "kept"
    assert decision.reason.endswith(" after 1 run, 120 MB of memory, 100 is the soft limit")
    for limit in (120.4, None):
        assert "memory" not in decided(task(memory_soft_limit=limit), scored(0.9, memory_mb=120.4)).reason


@pytest.mark.parametrize(
    ("kind", "verdict"), [("timeout", "timeout"), ("refused", "refused"), ("pruned", "discarded")]
)
def test_a_run_that_ends_without_a_crash_is_not_repaired(kind: FailureKind, verdict: str) -> None:
    decision = decided(task(), failed("the reason", kind))
    assert decision == Decision(verdict, "the reason")  # type: ignore[arg-type]


def test_only_the_first_run_is_pruned() -> None:
    state = Scripted("measure candidate", "measure candidate", "measure incumbent", "keep")
    trial = task(state, prune=RULE)
    assert run(trial).prune is RULE
    repair(trial, failed())
    assert run(trial, fix()).prune is RULE  # nothing is measured yet
    assert run(trial, scored(0.9)).prune is None
    assert run(trial, scored(0.9)).prune is None


# -- which scores are probed in every row ---------------------------------------------------------


@pytest.mark.parametrize("last", ["keep", "discard"])  # nobody knows beforehand
def test_what_a_run_of_the_incumbent_may_have_kept_is_probed(last: str) -> None:
    trial = task(Scripted("measure candidate", "measure incumbent", last))
    assert run(trial).probe_all_rows(1.0)
    assert not run(trial, scored(1.0)).probe_all_rows(1.0)  # it was probed before it was kept
    assert decided(trial, scored(1.0)).verdict == ("kept" if last == "keep" else "discarded")


def test_what_is_discarded_at_once_is_not_probed() -> None:
    assert not run(task(Scripted("measure candidate", "discard"))).probe_all_rows(1.0)
    assert [run(task()).probe_all_rows(score) for score in (0.9, 1.1)] == [True, False]


# -- refused proposals ----------------------------------------------------------------------------


def refusing(*sources: str) -> Any:
    def check(proposal: Proposal) -> None:
        if proposal.files["train.py"] in sources:
            raise ProposalRefused(f"{proposal.files['train.py']!r} is refused")

    return check


def test_an_unanswered_proposal_is_refused_unchecked() -> None:
    unanswered = dataclasses.replace(PROPOSAL, files={}, unanswered="no agent answers")
    assert decided(task(proposal=unanswered, check=refusing(""))) == Decision("refused", "no agent answers")


def test_a_refused_proposal_is_not_repaired() -> None:
    assert decided(task(check=refusing(NEW))) == Decision("refused", "'LR = 2\\n' is refused")


def test_what_a_check_raises_else_passes_through_and_the_check_can_be_tried_again() -> None:
    problems = iter([StorageError("the disk is full", "x")])

    def check(_proposal: Proposal) -> None:
        for problem in problems:
            raise problem

    trial = task(check=check)
    with pytest.raises(StorageError):
        trial.next()
    assert decided(trial, scored(0.9)).verdict == "kept"


# -- repairs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["crashed", "out of memory"])
def test_a_crash_is_shown_to_the_agent_and_its_repair_is_judged(kind: FailureKind) -> None:
    trial = task()
    request = repair(trial, failed("exit code 1", kind, log="NameError"))
    assert request == RepairRequest(PROPOSAL, "exit code 1", "NameError", 0)
    assert run(trial, fix("LR = 3\n")).files == {"train.py": "LR = 3\n"}
    decision = decided(trial, scored(0.9))
    assert decision.verdict == "kept"
    assert decision.reason == "0.9000, -0.1000 ± 0.0000 after 1 run (repaired 1 time)"
    assert decision.crashes == ("exit code 1",)


def test_who_proposed_it_stays_and_costs_add_up() -> None:
    trial = task()
    run(trial, failed(), fix(agent="somebody else", declined_by=("x",)))
    assert trial.proposal == Proposal(
        {"train.py": NEW}, "a repair", "it helps", "tuner", Usage(calls=2, cost=0.75), PROPOSAL.declined_by
    )
    run(trial, failed(), fix(hypothesis="it is another\nreason"))
    assert trial.proposal.hypothesis == "it is another reason"
    assert trial.proposal.usage == Usage(calls=3, cost=1.25)


def test_a_trial_is_given_up_after_three_repairs() -> None:
    trial = task()
    answers = [answer for number in range(3) for answer in (failed(f"crash {number}", log=""), fix())]
    decision = decided(trial, *answers, failed("crash 3", "out of memory"))
    assert decision == Decision(
        "out of memory", "crash 3 (repaired 3 times)", crashes=("crash 0", "crash 1", "crash 2")
    )


def test_a_repair_is_checked_again_and_may_be_repaired_again() -> None:
    trial = task(check=refusing("LR = (", OLD))
    repair(trial, failed("exit code 1"))
    request = repair(trial, fix("LR = ("))
    assert (request.reason, request.log, request.attempt) == ("'LR = (' is refused", "", 1)  # it did not run
    assert repair(trial, fix(OLD)).attempt == 2
    decision = decided(trial, fix("LR = ("))
    assert decision.verdict == "refused"
    assert decision.reason == "'LR = (' is refused (repaired 3 times)"
    assert len(decision.crashes) == 3


@pytest.mark.parametrize(
    ("answer", "remark"),
    [
        (None, ""),
        (OSError("no\nroute"), " (no fix: OSError: no route)"),
        ("LR = 1", " (no fix: TypeError: a Proposal was expected, not 'LR = 1')"),
        (Proposal({}, "", unanswered="the key is refused"), " (no fix: the key is refused)"),
    ],
    ids=["none", "error", "no proposal", "unanswered"],
)
def test_without_a_repair_the_crash_decides(answer: object, remark: str) -> None:
    assert decided(task(), failed(), answer) == Decision("crashed", f"exit code 1{remark}")
    decision = decided(task(), failed("the first"), fix(), failed("the second"), answer)
    both = f" (repaired 1 time, {remark[2:]}" if remark else " (repaired 1 time)"
    assert decision == Decision("crashed", f"the second{both}", crashes=("the first",))


def test_an_unanswered_repair_has_its_cost_and_leaves_the_proposal_as_it_is() -> None:
    trial = task()
    decided(trial, failed(), fix("LR = 3\n", unanswered="out of budget"))
    assert trial.proposal == dataclasses.replace(PROPOSAL, usage=Usage(calls=2, cost=0.75))


def test_a_crash_after_a_score_is_not_repaired() -> None:
    state = Scripted("measure candidate", "measure candidate", "keep")
    decision = decided(task(state), scored(0.9), failed())
    assert (decision.verdict, decision.reason) == ("crashed", "exit code 1")
    assert [measured.score for measured in decision.measurements] == [0.9]


def test_a_working_tree_has_nobody_to_repair_it() -> None:
    assert decided(task(max_repairs=0), failed()) == Decision("crashed", "exit code 1")


# -- the incumbent fails --------------------------------------------------------------------------


def test_an_incumbent_that_fails_once_is_tried_again_with_another_seed() -> None:
    state = Scripted("measure candidate", "measure incumbent", "measure incumbent", "keep")
    trial = task(state)
    first, second = run(trial, scored(0.9)), run(trial, failed())
    assert (first.role, second.role) == ("incumbent", "incumbent")
    assert (first.seed, second.seed) == (2, 3)
    third = run(trial, scored(1.0), failed())  # a score lies between the two failures
    assert third.role == "incumbent"
    assert decided(trial, scored(1.0)).verdict == "kept"


@pytest.mark.parametrize("kind", ["crashed", "out of memory", "timeout", "refused"])
def test_an_incumbent_that_fails_twice_leaves_nothing_to_compare_with(kind: FailureKind) -> None:
    trial = task(Scripted("measure candidate", "measure incumbent"))
    decision = decided(trial, scored(0.9), failed("first", kind), failed("second", kind))
    assert decision.verdict == "discarded"
    assert decision.reason == "the incumbent, measured again, failed twice: second"
    assert len(decision.measurements) == 1
    assert decision.incumbent_runs == ()


# -- the protocol ---------------------------------------------------------------------------------


def test_asking_twice_changes_nothing() -> None:
    trial = task()
    request = trial.next()
    assert trial.next() is request
    trial.feed(scored(0.9))
    decision = trial.next()
    assert trial.next() is decision


def test_an_answer_that_was_not_asked_for_is_refused() -> None:
    trial = task()
    with pytest.raises(RuntimeError, match=r"call next\(\) before feed\(\)"):
        trial.feed(scored(0.9))
    trial.next()
    with pytest.raises(TypeError, match="a RunOutcome was requested, not None"):
        trial.feed(None)
    trial.feed(scored(0.9))
    with pytest.raises(RuntimeError, match="has requested nothing"):
        trial.feed(scored(0.9))  # the next request is not known yet
    trial.next()
    with pytest.raises(RuntimeError, match="has requested nothing"):
        trial.feed(scored(0.9))


def test_many_trials_are_in_flight_at_once() -> None:
    trials = [task() for _ in range(50)]
    for trial in trials:
        trial.next()
    for number, trial in enumerate(trials):
        trial.feed(scored(0.9 if number % 2 else 1.1))
    verdicts = [decided(trial).verdict for trial in trials]
    assert verdicts == ["discarded", "kept"] * 25
