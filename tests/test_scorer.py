"""The scorer starts once, is replaced when it dies, and says why when it cannot start."""

from __future__ import annotations

import functools
import io
import os
import re
import resource
import sys
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
def honest() -> tuple[bytes, str]:
    """A sealed model and its digest."""
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
    digest = honest()[1]
    first = scorer.score(model, digest, 1.0).score
    running = processes()
    assert len(running) == 1
    assert scorer.score(model, digest, 0.1).score == pytest.approx(first, rel=1e-9)
    assert processes() == running
    scorer.close()
    assert not processes()


def test_one_that_dies_is_replaced(scorer: Scorer, model: io.BufferedReader) -> None:
    digest = honest()[1]
    score = scorer.score(model, digest, 1.0).score
    [process] = processes()
    process.kill()
    process.wait(5)
    assert scorer.score(model, digest, 1.0).score == pytest.approx(score, rel=1e-9)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets one process limit another")
@pytest.mark.parametrize("limit", [resource.RLIMIT_CPU, resource.RLIMIT_NOFILE, resource.RLIMIT_DATA])
def test_one_that_fails_before_it_has_read_a_model_is_replaced(
    scorer: Scorer, model: io.BufferedReader, limit: int
) -> None:
    digest = honest()[1]
    score = scorer.score(model, digest, 1.0).score
    [process] = processes()
    resource.prlimit(process.pid, limit, (1, 1))
    assert scorer.score(model, digest, 1.0).score == pytest.approx(score, rel=1e-9)
    assert process not in processes()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("os.kill(os.getppid(), 9)", "the scorer failed 2 times: it did not survive this model"),
        ("os._exit(3)", "scoring ended with exit code 3"),
    ],
)
def test_what_fails_once_a_model_is_read_is_its_fault(
    model: io.BufferedReader, fault: str, reason: str
) -> None:
    deadly = PREPARE.replace(
        "    token_bytes = torch.tensor", f"    import os; {fault}\n    token_bytes = torch.tensor"
    )
    scorer = Scorer(deadly, [], "none", inherited(), limit=20)
    with pytest.raises(Refused, match=f"^{re.escape(reason)}$"):
        scorer.score(model, honest()[1], 1.0)
    scorer.close()


def test_one_that_never_gets_to_read_a_model_is_broken(model: io.BufferedReader) -> None:
    broken = PREPARE + "\nimport resource; resource.setrlimit(resource.RLIMIT_CPU, (50, 50))\n"
    scorer = Scorer(broken, [], "none", inherited(), limit=20_000)  # more than it may ask for
    with pytest.raises(Broken, match="the scorer failed 2 times: scoring ended with exit code 1"):
        scorer.score(model, honest()[1], 1.0)
    scorer.close()


def test_what_it_prints_does_not_stop_it(model: io.BufferedReader) -> None:
    digest = honest()[1]
    noisy = PREPARE.replace(
        "    token_bytes = torch.tensor",
        '    print("x" * 40_000, flush=True)\n    token_bytes = torch.tensor',
    )
    scorer = Scorer(noisy, [], "none", inherited(), limit=20)
    assert len({scorer.score(model, digest, 0.1).score for _ in range(4)}) == 1
    scorer.close()


def test_one_that_cannot_start_says_why(model: io.BufferedReader) -> None:
    digest = honest()[1]
    scorer = Scorer("raise SystemExit('the corpus is not installed')", [], "none", inherited(), limit=60)
    with pytest.raises(Broken, match="the scorer did not start: the corpus is not installed"):
        scorer.score(model, digest, 1.0)
    assert not processes()


def test_a_session_without_a_scorer_fails_in_a_few_lines(project: Project) -> None:
    """It is not the model's fault, so there is no verdict on it."""
    project.script.with_name("prepare.py").write_text(
        'print("---\\ntime_budget: 1\\nvalidation_data: [\\"/usr/share\\"]")\n'
    )
    project.script.write_text(
        "from pytest_autoresearch.measuring.wire import Wire\n"
        "wire = Wire.inherited()\n"
        'wire.send({"trained": "0" * 64})\n'
        'with open("model", "w+b") as file:\n'
        '    wire.send({"model": True}, file.fileno())\n'
        "wire.receive()\n"
    )
    session = project.commit().research().exits(1)
    session.shows("the scorer did not start: ", "has no attribute 'Tokenizer'").hides("handover.py", "KEPT")
    assert not list(Path(tempfile.gettempdir()).glob(f"pytest-autoresearch-{os.getpid()}-*/scorer-*"))
