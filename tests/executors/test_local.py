"""The local executor: what it answers, what it raises, and what it leaves alive when it is cancelled."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import psutil
import pytest

from pytest_autoresearch.errors import ScorerUnavailable, StorageError
from pytest_autoresearch.executors.base import RunFailure, RunOutcome, RunRequest
from pytest_autoresearch.executors.local import LocalExecutor
from pytest_autoresearch.executors.slot import Resources
from pytest_autoresearch.judging.judge import JudgePolicy, JudgeState
from pytest_autoresearch.judging.noise import Estimate, Noise
from pytest_autoresearch.judging.pruning import CurvePair, Margins, PruneRule
from pytest_autoresearch.judging.rules import Always, MayBeKept
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.overheads import Overheads
from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.runs.config import RunConfig
from pytest_autoresearch.runs.data import Data
from pytest_autoresearch.runs.limits import SealedLimits
from pytest_autoresearch.runs.site import Site

pytestmark = pytest.mark.timeout(120)

SPEC = ExperimentSpec(Path("/experiment"))
SOON = 20.0  # seconds that ending anything may take
BAD, GOOD = (5.0,) * 9, (1.0,) * 9  # loss curves

LOSSES = """
for percent in range(10, 100, 10):
    print(f"step ({percent}%) | loss: {LOSS}", flush=True)
print("---")
print("val_bpb: 1.5")
print("num_steps: 7")
print("total_tokens_M: 2.5")
"""
# A child in a session of its own, and a daemon; all of them print their numbers.
FAMILY = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
os.write(1, f"alive {os.getpid()}\\n".encode())
time.sleep(600)
"""


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    made = LocalExecutor(RunConfig(SPEC))
    yield made
    made.close()


def request(script: str, **more: object) -> RunRequest:
    return RunRequest("candidate", {"train.py": script}, 1, Always(answer=True), **more)  # type: ignore[arg-type]


def ignore(_line: str) -> None:
    """Take a line of output."""


def outcome(
    executor: LocalExecutor, asked: RunRequest, on_line: Callable[[str], object] = ignore
) -> RunOutcome:
    return executor.submit(asked, on_line).result(60)


def margins() -> Margins:
    """Margins that end a run whose loss is 2 above the incumbent's at 30 % of the budget."""
    return Margins.learned([CurvePair(GOOD, 1.0, GOOD, 1.0, kept=True)] * 5, [GOOD, GOOD], 0.01, "minimize")


class Alive:
    """Collects the processes of which a run prints the numbers."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._processes: list[psutil.Process] = []
        self.are_there = threading.Event()

    def on_line(self, line: str) -> None:
        if line.startswith("alive"):
            self._processes.append(psutil.Process(int(line.split()[1])))
            if len(self._processes) == self._count:
                self.are_there.set()

    @property
    def left(self) -> list[psutil.Process]:
        """Those that are still alive."""
        return [process for process in self._processes if process.is_running()]


# -- what it answers ----------------------------------------------------------------------------------------


def test_a_run_is_measured_in_another_thread(executor: LocalExecutor) -> None:
    lines, threads, before = list[str](), set[int](), time.time()

    def on_line(line: str) -> None:
        lines.append(line)
        threads.add(threading.get_ident())

    found = outcome(executor, request(LOSSES.replace("LOSS", "2.0")), on_line)
    assert isinstance(found.result, Measurement)
    assert (found.result.score, found.result.steps, found.result.training_tokens) == (1.5, 7, 2.5e6)
    assert found.result.curve == (2.0,) * 9
    assert before <= found.started <= found.stopped <= time.time()
    assert lines[-1] == "total_tokens_M: 2.5"
    assert threading.get_ident() not in threads


def test_what_crosses_to_another_process_can_be_pickled(executor: LocalExecutor) -> None:
    state = JudgeState.initial(JudgePolicy(), Estimate(1.0, 0.01), Noise(0.01, 2))
    rule = MayBeKept(state, (0.9,), (1.0,), 3)
    asked = RunRequest(
        "candidate",
        {"train.py": LOSSES.replace("LOSS", "2.0"), "model/layers.py": ""},
        1,
        rule,
        PruneRule(GOOD, margins()),
        overheads=Overheads(1, 1, 1, 1),
    )
    again = pickle.loads(pickle.dumps(asked))  # noqa: S301 - our own
    assert again.probe_all_rows(0.5) == rule(0.5)
    assert again.prune(BAD[:5]) == asked.prune(BAD[:5]) is not None  # type: ignore[misc]
    for found in (outcome(executor, again), outcome(executor, request("raise SystemExit(3)"))):
        assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301
    config = RunConfig(SPEC, Site({"device": "cpu"}, Data(), SealedLimits(1.0, "cpu")))
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301


@pytest.mark.parametrize(
    ("script", "kind", "reason"),
    [
        ("1 / 0", "crashed", 'exit code 1: "ZeroDivisionError'),
        ("print('val_bpb: nan')", "crashed", 'val_bpb is "nan"'),
        ("raise MemoryError", "out of memory", "MemoryError"),
        ("import time; time.sleep(60)", "timeout", "still running after 1 s, its limit"),
    ],
)
def test_a_failure_of_a_run_is_data(executor: LocalExecutor, script: str, kind: str, reason: str) -> None:
    found = outcome(executor, request(script, limit=1.0)).result
    assert isinstance(found, RunFailure)
    assert found.kind == kind
    assert reason in found.reason
    assert all(line.startswith("> ") for line in found.tail)


def test_a_hopeless_run_is_pruned(executor: LocalExecutor) -> None:
    rule = PruneRule(GOOD, margins())
    slow = LOSSES.replace("LOSS", "5.0").replace('print("---")', "import time; time.sleep(60)")
    found = outcome(executor, request(slow, prune=rule)).result
    assert isinstance(found, RunFailure)
    assert found.kind == "pruned"
    assert "its loss is 4.0000 above the incumbent's" in found.reason
    assert isinstance(
        outcome(executor, request(LOSSES.replace("LOSS", "1.0"), prune=rule)).result, Measurement
    )


def test_what_is_not_the_runs_fault_is_raised(executor: LocalExecutor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        outcome(executor, request("print('val_bpb: 1')", log=tmp_path / "file" / "log"))
    with pytest.raises(ValueError, match=r"'\.\./train\.py' is no path inside"):
        outcome(executor, RunRequest("candidate", {"../train.py": ""}, 1, Always(answer=True)))
    assert isinstance(outcome(executor, request("print('val_bpb: 1')")).result, Measurement)


def sealed_by(fixed: str, folder: Path) -> LocalExecutor:
    (folder / "validation").touch()
    site = Site({}, Data(validation=(folder / "validation",)), SealedLimits(10.0, "wall"))
    return LocalExecutor(RunConfig(SPEC, site, {"prepare.py": fixed}))


def test_without_a_scorer_no_sealed_run_is_made(tmp_path: Path) -> None:
    executor = sealed_by("raise SystemExit('the corpus is not installed')", tmp_path)
    with pytest.raises(ScorerUnavailable, match="the corpus is not installed"):
        outcome(executor, request("print('val_bpb: 1')"))
    executor.close()


# -- cancelling ---------------------------------------------------------------------------------------------


def test_cancelling_leaves_nothing_alive_and_the_executor_goes_on(executor: LocalExecutor) -> None:
    alive = Alive(3)
    running = executor.submit(request(FAMILY), alive.on_line)
    queued = executor.submit(request(FAMILY), alive.on_line)
    assert alive.are_there.wait(SOON)
    assert len(alive.left) == 3
    executor.cancel()
    assert not alive.left
    for future in (running, queued):
        with pytest.raises(CancelledError):
            future.result(0)
    assert isinstance(outcome(executor, request("print('val_bpb: 1')")).result, Measurement)


@pytest.mark.parametrize("wait", [0.0, 0.05, 0.3])
def test_a_run_is_cancelled_at_any_moment(executor: LocalExecutor, wait: float) -> None:
    future = executor.submit(request("import time; time.sleep(600)"), ignore)
    time.sleep(wait)
    began = time.monotonic()
    executor.cancel()
    assert future.done()
    with pytest.raises(CancelledError):
        future.result(0)
    assert time.monotonic() - began < SOON


def test_a_scorer_is_cancelled_too(tmp_path: Path) -> None:
    starting = tmp_path / "starting"
    executor = sealed_by(f"import time\nopen({str(starting)!r}, 'w').close()\ntime.sleep(600)", tmp_path)
    future = executor.submit(request("print('val_bpb: 1')"), ignore)
    deadline = time.monotonic() + SOON
    while not starting.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    executor.cancel()
    with pytest.raises(CancelledError):
        future.result(0)
    executor.close()
    below = psutil.Process().children(recursive=True)
    assert not [child for child in below if "pytest_autoresearch.scoring.server" in child.cmdline()]


HOLDER = f"""
import sys
from pathlib import Path
from pytest_autoresearch.executors.base import RunRequest
from pytest_autoresearch.executors.local import LocalExecutor
from pytest_autoresearch.judging.rules import Always
from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.runs.config import RunConfig
executor = LocalExecutor(RunConfig(ExperimentSpec(Path("/experiment"))))
asked = RunRequest("candidate", {{"train.py": {FAMILY!r}}}, 1, Always(answer=True))
executor.submit(asked, lambda line: print(line, flush=True)).result()
"""


def test_nothing_outlives_a_killed_process() -> None:
    alive = Alive(3)
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(3):
            alive.on_line(process.stdout.readline())
        assert len(alive.left) == 3
        process.kill()
    deadline = time.monotonic() + SOON
    while alive.left:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_closing_ends_what_runs() -> None:
    executor, alive = LocalExecutor(RunConfig(SPEC)), Alive(3)
    executor.submit(request(FAMILY), alive.on_line)
    assert alive.are_there.wait(SOON)
    executor.close()
    assert not alive.left


# -- slots --------------------------------------------------------------------------------------------------

MEETS = """
import os, time
from pathlib import Path
place = Path(os.environ["LANG"])
(place / str(os.getpid())).touch()
while len(list(place.iterdir())) < 2:
    time.sleep(0.01)
cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
print("gpu", os.environ["CUDA_VISIBLE_DEVICES"], *cores)
print("val_bpb: 1")
"""


def test_each_slot_runs_on_its_own_cores_and_gpu(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))[:2] if sys.platform == "linux" else [0, 0]
    slots = [Resources(frozenset({core}), str(gpu)) for gpu, core in enumerate(cores)]
    executor = LocalExecutor(RunConfig(SPEC, variables={"LANG": str(tmp_path)}), slots)
    assert executor.capacity == len(cores)
    lines: list[str] = []
    futures = [executor.submit(request(MEETS), lines.append) for _ in cores]
    assert all(isinstance(future.result(60).result, Measurement) for future in futures)
    executor.close()
    said = {line for line in lines if line.startswith("gpu")}
    assert said == {f"gpu {gpu} {core}" for gpu, core in enumerate(cores)}
