"""What a run does beside its training: it may take what the baseline took, and what goes beyond costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pytest_autoresearch.errors import RunTimedOut, ScoreRefused
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.overheads import (
    NODES_AT_LEAST,
    PREDICTING_AT_LEAST,
    SEALING_AT_LEAST,
    Overheads,
)
from pytest_autoresearch.runs.environment import inherited
from pytest_autoresearch.runs.session import OVERTIME_CHARGE
from pytest_autoresearch.scoring.client import Scorer
from tests.sealed_models import PREPARE, Attention, sealed
from tests.sealed_run import Run

SMALL = Overheads(startup=0.2, sealing=0.1, predicting=0.01, nodes=20)
HONEST = """
    harness.open_data("train.tokens")
    train({seconds})
    hand_in({digest!r})
    hand_in_model()
"""


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    made = Scorer(PREPARE, [], "none", inherited(), limit=60)
    yield made
    made.close()


def follow(run: Run, before: str = "", *, seconds: float) -> None:
    """Have a run hand in a model after *seconds* of training."""
    torch.manual_seed(0)
    content, digest = sealed(Attention().eval())
    (run.folder / "model").write_bytes(content)
    run.follow(before + HONEST.format(seconds=seconds, digest=digest))


def test_what_a_run_took_is_told(tmp_path: Path, scorer: Scorer) -> None:
    run = Run(tmp_path, scorer, budget=5)
    follow(run, "    work(0.6)", seconds=0.1)
    assert run.overheads is not None
    assert 0.3 < run.overheads.startup < 3
    assert 0 <= run.overheads.sealing < 0.5
    assert 0 <= run.overheads.predicting < 2  # coarse where the processor is shared out in ticks
    assert run.overheads.nodes == 11


def test_a_start_up_as_long_as_the_committed_script_s_costs_nothing(tmp_path: Path, scorer: Scorer) -> None:
    run = Run(tmp_path, scorer, budget=5, overheads=Overheads(10, 1, 1, 20))
    follow(run, "    work(0.6)", seconds=0.5)
    assert run.seconds == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("kind", ["calibrated", "cpu", "wall"])
def test_a_longer_start_up_is_charged_to_the_budget(tmp_path: Path, scorer: Scorer, kind: str) -> None:
    run = Run(tmp_path, scorer, budget=20, kind=kind, overheads=SMALL)  # type: ignore[arg-type]
    output = run.follow("""
        work(2)
        harness.open_data("train.tokens")
        print("charged:", harness.charged())
        hand_in()
    """)
    assert run.seconds is not None
    assert float(output.values["charged"]) == pytest.approx(run.seconds, abs=0.3)
    assert run.seconds > 0.7  # calibrated seconds may be worth half of a processor's


def test_a_run_that_trains_on_no_data_is_charged_too(tmp_path: Path, scorer: Scorer) -> None:
    run = Run(tmp_path, scorer, budget=20, overheads=SMALL)
    run.follow("work(2)\nhand_in()")
    assert run.seconds is not None
    assert run.seconds > 0.7


def test_a_run_sees_on_its_clock_what_it_was_charged(tmp_path: Path, scorer: Scorer) -> None:
    run = Run(tmp_path, scorer, budget=20, overheads=SMALL)
    output = run.follow("""
        work(2)
        print("before:", harness.clock())
        harness.open_data("train.tokens")
        print("used:", harness.clock())
        hand_in()
    """)
    assert float(output.values["before"]) == 0
    assert float(output.values["used"]) == pytest.approx(run.seconds, abs=0.2)


def test_a_start_up_that_used_the_whole_budget_says_so(tmp_path: Path, scorer: Scorer) -> None:
    run = Run(tmp_path, scorer, budget=0.1, overheads=Overheads(0.01, 1, 1, 20))
    with pytest.raises(
        RunTimedOut, match=r"still training after \d\.\d s and its start-up \d\.\d s too long, its bu"
    ):
        run.follow("work(6)\nharness.open_data('train.tokens')\ntime.sleep(9)")


def test_overtime_makes_a_score_worse(tmp_path: Path, scorer: Scorer) -> None:
    within, beyond = tmp_path / "within", tmp_path / "beyond"
    scores = []
    for folder, seconds in ((within, 0.3), (beyond, 1.5)):
        folder.mkdir()
        run = Run(folder, scorer, budget=1)
        follow(run, seconds=seconds)
        assert run.score is not None
        assert run.seconds is not None
        scores.append((run.score, max(run.seconds - 1, 0)))
    (honest, none), (charged, overtime) = scores
    assert none == 0
    assert overtime > 0.3
    assert charged == pytest.approx(honest * (1 + OVERTIME_CHARGE * overtime), rel=1e-6)


def test_sealing_takes_some_times_the_committed_one_at_most(tmp_path: Path, scorer: Scorer) -> None:
    run = Run(tmp_path, scorer, budget=1, overheads=SMALL)
    reason = rf"sealing took \d+\.\d s, and was not over: it may take {SEALING_AT_LEAST} s"
    with pytest.raises(RunTimedOut, match=reason):
        run.follow("harness.open_data('train.tokens')\nhand_in()\nwork(60)")


def test_a_model_may_predict_for_some_times_as_long(tmp_path: Path) -> None:
    slow = PREPARE.replace("model(inputs)", "slow(model, inputs)")
    assert slow != PREPARE
    slow += """
import time

def slow(model, tokens):
    for _ in range(5000):
        found = model(tokens)
    return found
"""
    scorer = Scorer(slow, [], "none", inherited(), limit=60)
    try:
        run = Run(tmp_path, scorer, budget=5, overheads=SMALL)
        with pytest.raises(ScoreRefused, match=rf"its predictions take more than {PREDICTING_AT_LEAST} s"):
            follow(run, seconds=0.1)
    finally:
        scorer.close()


def test_what_the_runs_took_is_the_measure() -> None:
    runs = [
        Measurement(1.0, 1, 1.0, overheads=Overheads(3, 1, 9, 100)),
        Measurement(1.0, 2, 1.0),
        Measurement(1.0, 3, 1.0, overheads=Overheads(2, 4, 1, 100)),
    ]
    overheads = Overheads.typical(run.overheads for run in runs)
    assert overheads == Overheads(2, 4, 9, 100)
    assert Overheads.from_json(overheads.to_json()) == overheads
    assert Overheads.typical(run.overheads for run in runs[1:2]) is None
    assert overheads.nodes_allowed == NODES_AT_LEAST


@pytest.mark.parametrize(
    "change", [{"startup_seconds": -1}, {"graph_nodes": None}, {"sealing_seconds": "inf"}, None]
)
def test_needs_that_cannot_be_are_refused(change: dict[str, object] | None) -> None:
    document = {} if change is None else SMALL.to_json() | change
    with pytest.raises(ValueError, match="is not what a run takes"):
        Overheads.from_json(document)
