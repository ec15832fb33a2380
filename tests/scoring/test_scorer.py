"""The scorer starts once, is replaced when it dies, and says why when it cannot start."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from pytest_autoresearch.errors import ModelRefused, ScorerOutOfMemory, ScorerUnavailable
from pytest_autoresearch.errors import RunOutOfMemory as RanOutOfMemory
from pytest_autoresearch.runs.environment import inherited
from pytest_autoresearch.scoring.calibration import Calibration
from pytest_autoresearch.scoring.client import Scorer
from pytest_autoresearch.scoring.evaluation import THOROUGH
from tests.looking_ahead import Base, made, peeking
from tests.project import Project
from tests.sealed_models import PREPARE, ROOT, Attention, sealed
from tests.sealed_run import Run


@functools.cache  # and not when the module is imported, by every worker
def honest() -> tuple[bytes, str]:
    """A sealed model and its digest."""
    return sealed(Attention().eval())


@pytest.fixture
def scorer() -> Iterator[Scorer]:
    made = Scorer(PREPARE, [], "none", inherited(), limit=60)
    yield made
    made.close()


Faults = Callable[[str], Scorer]


@pytest.fixture(scope="module")
def scorer_with(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    """Return a scorer whose next evaluations begin with a statement; to start one for each takes seconds."""
    path = tmp_path_factory.mktemp("faults") / "statement"
    text = PREPARE.replace(
        "    token_bytes = torch.tensor",
        f"    exec(open({str(path)!r}).read())\n    token_bytes = torch.tensor",
    )
    made = Scorer(text, [], "none", inherited(), limit=60)

    def told(statement: str) -> Scorer:
        path.write_text(statement)
        return made

    yield told
    made.close()


@pytest.fixture
def model(tmp_path: Path) -> Iterator[io.BufferedReader]:
    (tmp_path / "model").write_bytes(honest()[0])
    with (tmp_path / "model").open("rb") as file:
        yield file


Processes = Callable[[], set[psutil.Process]]


def scorers() -> set[psutil.Process]:
    below = psutil.Process().children(recursive=True)
    return {process for process in below if "pytest_autoresearch.scoring.server" in process.cmdline()}


@pytest.fixture
def processes() -> Processes:
    """Return the scorers that were started since the test began."""
    before = scorers()
    return lambda: scorers() - before


def test_it_stays_warm_and_ends(processes: Processes, scorer: Scorer, model: io.BufferedReader) -> None:
    digest = honest()[1]
    first = scorer.score(model, digest, 1.0).score
    running = processes()
    assert len(running) == 1
    assert scorer.score(model, digest, 0.1).score == pytest.approx(first, rel=1e-9)
    assert processes() == running
    scorer.close()
    assert not processes()


def test_one_that_dies_is_replaced(processes: Processes, scorer: Scorer, model: io.BufferedReader) -> None:
    digest = honest()[1]
    score = scorer.score(model, digest, 1.0).score
    [process] = processes()
    process.kill()
    process.wait(5)
    assert scorer.score(model, digest, 1.0).score == pytest.approx(score, rel=1e-9)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets one process limit another")
@pytest.mark.parametrize("limit", [resource.RLIMIT_CPU, resource.RLIMIT_NOFILE, resource.RLIMIT_DATA])
def test_one_that_fails_before_it_has_read_a_model_is_replaced(
    processes: Processes, scorer: Scorer, model: io.BufferedReader, limit: int
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
    scorer_with: Faults, model: io.BufferedReader, fault: str, reason: str
) -> None:
    with pytest.raises(ModelRefused, match=f"^{re.escape(reason)}$"):
        scorer_with(f"import os; {fault}").score(model, honest()[1], 1.0)


def test_one_that_never_gets_to_read_a_model_is_broken(model: io.BufferedReader) -> None:
    broken = PREPARE + "\nimport resource; resource.setrlimit(resource.RLIMIT_CPU, (50, 50))\n"
    scorer = Scorer(broken, [], "none", inherited(), limit=20_000)  # more than it may ask for
    with pytest.raises(ScorerUnavailable, match="the scorer failed 2 times: scoring ended with exit code 1"):
        scorer.score(model, honest()[1], 1.0)
    scorer.close()


# ---------------------------------------------------------------------------
# A score that counts is probed on


def telling(log: Path) -> str:
    """A prepare.py that writes down each evaluation, and how many rows are compared in a call of surprise."""
    told = f"open({str(log)!r}, 'a').write"
    return PREPARE.replace(
        "    token_bytes = torch.tensor", f"    {told}('evaluation\\n')\n    token_bytes = torch.tensor"
    ).replace("    return torch.stack([F", f"    {told}(f'{{len(logits)}}\\n')\n    return torch.stack([F")


def rows(log: Path) -> int:
    return sum(int(line) for line in log.read_text().split() if line != "evaluation")


@pytest.mark.parametrize("probes", [7, 7 + 1050])
def test_a_keep_is_evaluated_once(
    processes: Processes, tmp_path: Path, model: io.BufferedReader, probes: int
) -> None:
    log, asked, counts = tmp_path / "log", list[float](), probes > THOROUGH
    scorer = Scorer(telling(log), [], "none", inherited(), limit=60)
    found = scorer.score(model, honest()[1], 0.1, probe_all_rows=lambda score: asked.append(score) or counts)
    assert asked == [pytest.approx(found.score, rel=1e-9)]
    assert log.read_text().count("evaluation") == 1
    assert rows(log) == 70 + probes
    assert scorer.score(model, honest()[1], 0.1).score == pytest.approx(found.score, rel=1e-9)
    assert len(processes()) == 1
    scorer.close()


def test_more_probes_see_more(scorer: Scorer, tmp_path: Path) -> None:
    class Seldom(Base):
        """One position in a hundred: one probe misses it so often, and 1050 do not."""

        def hint(self, tokens: torch.Tensor) -> torch.Tensor:
            chosen = (tokens * 7919 + tokens.roll(1, 1) * 104729) % 100 == 0
            return torch.where(chosen[..., None], peeking(tokens), 0.0)

    content, digest = sealed(made(Seldom))
    (tmp_path / "model").write_bytes(content)
    with (
        (tmp_path / "model").open("rb") as file,
        pytest.raises(ModelRefused, match=r"of (1|1050) probes changed"),
    ):
        scorer.score(file, digest, 0.001, probe_all_rows=lambda _score: True)


def test_a_fault_while_it_is_probed_on_is_the_model_s(tmp_path: Path, model: io.BufferedReader) -> None:
    log = tmp_path / "log"
    deadly = (
        telling(log)
        + "    \n\nprobed = surprise\ndef surprise(logits, targets):\n"
        + (
            f"    if sum(map(int, open({str(log)!r}).read().replace('evaluation', '0').split())) > 300:\n"
            "        os._exit(3)\n"
            "    return probed(logits, targets)\n"
        )
    )
    scorer = Scorer(deadly, [], "none", inherited(), limit=60)
    assert scorer.score(model, honest()[1], 0.1, probe_all_rows=lambda _score: False).score > 0
    log.unlink()
    with pytest.raises(ModelRefused, match=r"^scoring ended with exit code 3$"):
        scorer.score(model, honest()[1], 0.1, probe_all_rows=lambda _score: True)
    scorer.close()


def test_a_harness_that_is_interrupted_in_between_is_not_answered_later(
    processes: Processes, scorer: Scorer, model: io.BufferedReader
) -> None:
    def interrupted(_score: float) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scorer.score(model, honest()[1], 0.1, probe_all_rows=interrupted)
    assert not processes()
    assert scorer.score(model, honest()[1], 0.1).score > 0


# ---------------------------------------------------------------------------
# The accelerator, of which only what it says is tested here: not run on a GPU


FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.mark.parametrize(
    "error",
    [
        f"torch.OutOfMemoryError({FULL!r})",
        "RuntimeError('CUDA error: out of memory')",
        "RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)')",
    ],
)
def test_an_accelerator_without_room_is_out_of_memory(
    scorer_with: Faults, model: io.BufferedReader, error: str
) -> None:
    with pytest.raises(ScorerOutOfMemory, match=r"^scoring: "):
        scorer_with(f"raise {error}").score(model, honest()[1], 0.1)


def test_the_run_is_then_out_of_memory(scorer_with: Faults, tmp_path: Path) -> None:
    content, digest = honest()
    run = Run(tmp_path, scorer_with(f"raise torch.OutOfMemoryError({FULL!r})"), budget=5)
    (run.folder / "model").write_bytes(content)
    with pytest.raises(RanOutOfMemory, match="CUDA out of memory"):
        run.follow(f"hand_in({digest!r})\nhand_in_model()")


def test_a_run_leaves_room_for_its_scorer_once_its_clock_has_stopped(tmp_path: Path, scorer: Scorer) -> None:
    run = Run(tmp_path, scorer, budget=5)
    output = run.follow(f"""
        import torch
        harness._channel()  # which is then out of the environment, as the miniature's prepare.py wants it
        sys.path.insert(0, {str(ROOT)!r})
        from tests.sealed_models import TOKENS, Attention

        def empty():
            print("given: back")
            work(1)

        torch.cuda.is_initialized, torch.cuda.empty_cache = lambda: True, empty
        harness.trace(model := Attention().eval(), TOKENS)
        harness.open_data("train.tokens")
        harness.score(model, TOKENS)
    """)
    assert output.values["given"] == "back"
    assert run.score is not None
    assert run.seconds is not None
    assert run.seconds < 0.9


def test_a_host_without_room_is_a_refusal(scorer_with: Faults, model: io.BufferedReader) -> None:
    with pytest.raises(ModelRefused, match="bytes of memory"):
        scorer_with("raise MemoryError").score(model, honest()[1], 0.1)


@pytest.mark.parametrize("devices", ["devices are", "device(s) is/are"])  # of CUDA 11, and from 12 on
def test_a_gpu_for_one_process_alone_is_no_fault_of_the_model_s(
    scorer_with: Faults, devices: str, model: io.BufferedReader
) -> None:
    busy = f"RuntimeError('CUDA error: all CUDA-capable {devices} busy or unavailable')"
    reason = "the GPU is not to be had; if its compute mode is exclusive: nvidia-smi -c DEFAULT"
    with pytest.raises(ScorerUnavailable, match=reason):
        scorer_with(f"raise {busy}").score(model, honest()[1], 0.1)


def test_a_child_imports_nothing(model: io.BufferedReader) -> None:
    """Each would do it again: torch imports a second's worth of modules when it is to be deterministic."""
    checking = PREPARE.replace(
        "    token_bytes = torch.tensor",
        "    assert not set(sys.modules) - KNOWN, set(sys.modules) - KNOWN\n    token_bytes = torch.tensor",
    )
    knowing = (
        "\n\nimport sys\nKNOWN = set()\n"
        "os.register_at_fork(after_in_child=lambda: KNOWN.update(sys.modules))\n"
    )
    with contextlib.closing(Scorer(checking + knowing, [], "none", inherited(), limit=60)) as scorer:
        assert scorer.score(model, honest()[1], 0.1).score > 0


def test_nothing_asks_cuda_before_a_fork(model: io.BufferedReader) -> None:
    """Asking in the parent may start CUDA, which no fork can use then."""
    asking = (
        "\n\ndef asked(*_):\n    raise AssertionError('CUDA was asked')\n\n"
        "torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = asked\n"
        "torch.accelerator.is_available = torch.accelerator.current_accelerator = asked\n"
    )
    checking = PREPARE.replace(
        "    token_bytes = torch.tensor",
        "    assert not torch.cuda.is_initialized() and not torch.cuda._is_in_bad_fork()\n"
        "    token_bytes = torch.tensor",
    )
    with contextlib.closing(Scorer(checking + asking, [], "none", inherited(), limit=60)) as scorer:
        assert len(Calibration(scorer).probe(1)) == 1
        assert scorer.score(model, honest()[1], 0.1, probe_all_rows=lambda _score: True).score > 0


def test_what_it_prints_does_not_stop_it(scorer_with: Faults, model: io.BufferedReader) -> None:
    scorer = scorer_with('print("x" * 40_000, flush=True)')
    assert len({scorer.score(model, honest()[1], 0.1).score for _ in range(4)}) == 1


def test_one_that_cannot_start_says_why(processes: Processes, model: io.BufferedReader) -> None:
    digest = honest()[1]
    scorer = Scorer("raise SystemExit('the corpus is not installed')", [], "none", inherited(), limit=60)
    with pytest.raises(ScorerUnavailable, match="the scorer did not start: the corpus is not installed"):
        scorer.score(model, digest, 1.0)
    assert not processes()


def test_a_session_without_a_scorer_fails_in_a_few_lines(project: Project) -> None:
    """It is not the model's fault, so there is no verdict on it."""
    summary = f"---\ntime_budget: 1\nvalidation_data: {json.dumps([str(project.temporary)])}"
    project.script.with_name("prepare.py").write_text(f"print({summary!r})\n")
    project.script.write_text(
        "from pytest_autoresearch.system.channel import Channel\n"
        "channel = Channel.inherited()\n"
        'channel.send({"trained": "0" * 64})\n'
        'with open("model", "w+b") as file:\n'
        '    channel.send({"model": True}, file.fileno())\n'
        "channel.receive()\n"
    )
    session = project.commit().research().exits(1)
    session.shows("the scorer did not start: ", "has no attribute 'Tokenizer'").hides("handover.py", "KEPT")
    assert not list(project.temporary.glob("pytest-autoresearch-*"))
