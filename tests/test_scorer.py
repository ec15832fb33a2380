"""The scorer starts once, is replaced when it dies, and says why when it cannot start."""

from __future__ import annotations

import functools
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pytest_autoresearch.measuring.run import inherited
from pytest_autoresearch.measuring.scorer import Broken, Refused, Scorer
from tests.project import Project
from tests.sealed_models import PREPARE, Attention, sealed


@functools.cache  # and not when the module is imported, by every worker
def honest() -> tuple[bytes, list[str]]:
    """A sealed model and its digests."""
    return sealed(Attention().eval())


@pytest.fixture
def scorer() -> Iterator[Scorer]:
    made = Scorer(PREPARE, [], "none", inherited(), limit=60)
    yield made
    made.close()


@pytest.fixture
def model(tmp_path: Path) -> Iterator[io.BufferedReader]:
    (tmp_path / "model").write_bytes(honest()[0])
    with (tmp_path / "model").open("rb") as file:
        yield file


def processes() -> set[psutil.Process]:
    """The scorers that this process has started."""
    below = psutil.Process().children(recursive=True)
    return {process for process in below if "pytest_autoresearch.measuring.scoring" in process.cmdline()}


def test_it_stays_warm_and_ends(scorer: Scorer, model: io.BufferedReader) -> None:
    digests = honest()[1]
    first = scorer.score(model, digests, 1.0)
    running = processes()
    assert len(running) == 1
    assert scorer.score(model, digests, 0.1) == pytest.approx(first, rel=1e-9)
    assert processes() == running
    scorer.close()
    assert not processes()


def test_one_that_dies_is_replaced(scorer: Scorer, model: io.BufferedReader) -> None:
    digests = honest()[1]
    score = scorer.score(model, digests, 1.0)
    [process] = processes()
    process.kill()
    process.wait(5)
    try:  # if its end is noticed first, it is replaced at once
        assert scorer.score(model, digests, 1.0) == pytest.approx(score, rel=1e-9)
    except Refused as refusal:
        assert str(refusal) == "the scorer did not survive this model"  # noqa: PT017 - or it was replaced
    assert scorer.score(model, digests, 1.0) == pytest.approx(score, rel=1e-9)


def test_what_it_prints_does_not_stop_it(model: io.BufferedReader) -> None:
    digests = honest()[1]
    noisy = PREPARE.replace(
        "    token_bytes = torch.tensor",
        '    print("x" * 40_000, flush=True)\n    token_bytes = torch.tensor',
    )
    scorer = Scorer(noisy, [], "none", inherited(), limit=20)
    assert len({scorer.score(model, digests, 0.1) for _ in range(4)}) == 1
    scorer.close()


def test_one_that_cannot_start_says_why(model: io.BufferedReader) -> None:
    digests = honest()[1]
    scorer = Scorer("raise SystemExit('the corpus is not installed')", [], "none", inherited(), limit=60)
    with pytest.raises(Broken, match="the scorer did not start: the corpus is not installed"):
        scorer.score(model, digests, 1.0)
    assert not processes()


def test_a_session_without_a_scorer_fails_in_a_few_lines(project: Project) -> None:
    """It is not the model's fault, so there is no verdict on it."""
    project.script.with_name("prepare.py").write_text(
        'print("---\\ntime_budget: 1\\nvalidation_data: [\\"/usr/share\\"]")\n'
    )
    project.script.write_text(
        "from pytest_autoresearch.measuring.wire import Wire\n"
        "wire = Wire.inherited()\n"
        'wire.send({"trained": []})\n'
        'with open("model", "w+b") as file:\n'
        '    wire.send({"model": True}, file.fileno())\n'
        "wire.receive()\n"
    )
    session = project.commit().research().exits(1)
    session.shows("the scorer did not start: ", "has no attribute 'Tokenizer'").hides("handover.py", "KEPT")
    assert not list(Path(tempfile.gettempdir()).glob(f"pytest-autoresearch-{os.getpid()}-*/scorer-*"))
