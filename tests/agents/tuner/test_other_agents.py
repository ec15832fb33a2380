"""The tuner goes on from what others have changed, and from any history."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from pytest_autoresearch.agents.tuner.search import Search
from pytest_autoresearch.records.trial import Trial, Value
from pytest_autoresearch.source import constants
from tests.agents.tuner.campaign import SCRIPT, SIZES, TUNED, brief, entry, first, forty, propose, varied


@pytest.mark.parametrize(
    "texts",
    [
        {"DEPTH": "100", "HEAD_DIM": "1", "MATRIX_LR": "7.0", "WARMUP_RATIO": "-2.0", "ADAM_BETAS[0]": "1.5"},
        {"DEPTH": "4.0", "HEAD_DIM": "48", "TOTAL_BATCH_SIZE": "2**12 * 3", "SOFTCAP": "0"},
        {"DEPTH": "'deep'", "HEAD_DIM": "True", "SOFTCAP": "'none'"},
    ],
)
def test_an_incumbent_outside_the_ranges_is_coped_with(texts: dict[str, str]) -> None:
    script = SCRIPT.partition("rows =")[0]
    incumbent = constants.replace(script, texts, "cpu")
    history = [entry(1, constants.values(incumbent, "cpu"), verdict="kept")]
    for number in range(2, 40):
        proposal = propose(brief(incumbent, history, start=script))
        assert proposal is not None
        known = constants.values(proposal.files["train.py"], "cpu")
        assert set(known) == set(constants.values(script, "cpu"))
        history.append(entry(number, known))


def test_an_integer_that_another_agent_moved_beside_a_rate_is_still_moved_alone() -> None:
    start = constants.values(SCRIPT, "cpu")
    beside = entry(1, start | {"DEPTH": start["DEPTH"] + 1, "MATRIX_LR": 0.01})
    alone = entry(1, start | {"DEPTH": start["DEPTH"] + 1})
    moved = [first(brief(history=[tried])) for tried in (beside, alone)]
    assert moved == ["DEPTH", "ASPECT_RATIO"]


def test_what_another_agent_changed_together_is_taken_up_in_parts() -> None:
    start = constants.values(SCRIPT, "cpu")
    ideas: dict[str, Value] = {"MATRIX_LR": 0.0123, "SCALAR_LR": 0.345, "SOFTCAP": 21.7}
    steps = [entry(number, start | {name: 1 + number}) for number, name in enumerate(SIZES, start=1)]
    last = entry(6, start | ideas)
    share = [
        _taken(ideas, [*steps, dataclasses.replace(last, agent=name)]) for name in ("tuner", "", "model")
    ]
    assert share[0] == share[1] == 0
    assert 0.1 < share[2] < 0.25, "one trial of six was the other agent's"


def _taken(ideas: dict[str, Value], history: list[Trial]) -> float:
    """Return in how many of the draws every change is one of the *ideas*."""
    search = Search(brief(history=history))
    rng = np.random.default_rng(0)
    draws = [search._draw(rng) for _ in range(1000)]
    return sum(draw.items() <= ideas.items() for draw in draws) / len(draws)


def test_constants_that_came_or_went_are_left_alone() -> None:
    incumbent = SCRIPT.replace("SOFTCAP = 15.0", "HARDCAP = 15.0").replace(
        "SCALAR_LR = 0.5", "SCALAR_LR = f()"
    )
    history: list[Trial] = []
    for number in range(1, 25):
        proposal = propose(brief(incumbent, history, start=SCRIPT))
        assert proposal is not None
        assert "CAP" not in proposal.description
        assert "SCALAR_LR" not in proposal.description
        history.append(entry(number, constants.values(proposal.files["train.py"], "cpu")))


@pytest.mark.parametrize(("count", "seconds"), [(288, 3), (10_000, 9)])  # machines are slow at times
def test_long_histories_are_learned_in_time(count: int, seconds: float) -> None:
    start = constants.values(SCRIPT, "cpu")
    rng = random.Random(0)
    history = [
        entry(
            number,
            start | {name: varied(name, start[name], rng) for name in rng.sample(TUNED, 3)},
            rng.random(),
        )
        for number in range(1, count + 1)
    ]
    propose(brief())  # so that the import of numpy is not counted
    began = time.process_time()
    assert propose(brief(history=history)) is not None
    assert time.process_time() - began < seconds


def test_numpy_is_imported_late() -> None:
    code = (
        "import sys, pytest_autoresearch.agents.tuner.agent; assert 'numpy' not in sys.modules;"
        "import pytest_autoresearch.source.validation; assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_says_nothing(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    for history in ([], forty("cpu").history):
        propose(brief(history=history))
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
