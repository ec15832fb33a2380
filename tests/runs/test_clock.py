"""A clock that a busy machine cannot bend, and a run even less."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pytest_autoresearch.errors import RunTimedOut, SandboxUnavailable, ScorerUnavailable
from pytest_autoresearch.runs import clock
from pytest_autoresearch.runs.clock import Clock, ClockPage, ClockReader
from pytest_autoresearch.runs.environment import inherited
from pytest_autoresearch.sandbox import enforcers, launch
from pytest_autoresearch.sandbox.policy import Enforcer, Policy
from pytest_autoresearch.sandbox.process import SandboxedProcess
from pytest_autoresearch.scoring.calibration import Calibration
from pytest_autoresearch.scoring.client import Scorer
from tests.sealed_models import PREPARE, Attention, sealed
from tests.sealed_run import Run

pytestmark = pytest.mark.timeout(120)

LONGEST = 20.0  # seconds that anything here may take
PAUSE = 0.2  # seconds that a run is stopped for, to see whether it is

# The ways to be busy: each process of a run prints a line when it has begun.
BODY = """
import ctypes, os, signal, struct, sys, time

def burn():
    os.write(1, b"ready\\n")
    while True:
        sum(range(1000))

def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            burn()
        os._exit(0)

def wakes_itself():
    signal.signal(signal.SIGCONT, lambda *_: None)  # newer kernels stop a timer whose signal is ignored
    library = ctypes.CDLL(None)
    for number in range(1, 201):  # many, for a SIGSTOP ends a timer whose SIGCONT is on its way
        timer, milliseconds = ctypes.c_void_p(), number * 1_000_000
        library.timer_create(1, struct.pack("Qii48x", 0, signal.SIGCONT, 0), ctypes.byref(timer))
        library.timer_settime(timer, 0, struct.pack("4q", 0, 200_000_000, 0, milliseconds), None)

def wakes_others():
    parent = os.getpid()
    if os.fork() == 0:
        os.write(1, b"ready\\n")
        while True:
            os.kill(parent, signal.SIGCONT)

match sys.argv[1]:
    case "daemon":
        daemon()
    case "self-waking":
        wakes_itself()
    case "woken":
        wakes_others()
    case "family":
        os.fork(), os.fork()
    case "threads":
        import threading
        [threading.Thread(target=burn).start() for _ in range(3)]
burn()
"""
PROCESSES = {"alone": 1, "threads": 4, "family": 4, "daemon": 2, "woken": 2, "self-waking": 1}


@pytest.fixture(params=["bwrap", "landlock", "none"])
def enforcer(request: pytest.FixtureRequest) -> Enforcer:
    try:
        return enforcers.choose(request.param)
    except SandboxUnavailable as reason:
        pytest.skip(str(reason))


@contextlib.contextmanager
def busy(folder: Path, enforcer: Enforcer, way: str) -> Iterator[SandboxedProcess]:
    """Start a run that is busy in that way, and wait until all of it is."""
    command = [sys.executable, "-c", BODY, way]
    with launch.start(command, Policy(folder), enforcer, {}) as run:
        for _ in range(PROCESSES[way]):
            assert run.output.readline() == b"ready\n"
        yield run


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    made = Scorer(PREPARE, [], "none", inherited(), limit=60)
    yield made
    made.close()


@pytest.fixture(scope="module")
def calibration(scorer: Scorer) -> Calibration:
    return Calibration(scorer)


# -- stopping a run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", PROCESSES)
def test_a_stopped_run_uses_no_processor_and_goes_on(way: str, enforcer: Enforcer, tmp_path: Path) -> None:
    if way == "self-waking" and enforcer == "none":
        pytest.skip("there it has timers")
    with busy(tmp_path, enforcer, way) as run:
        with run.stopped():
            before = run.cpu_seconds()
            time.sleep(PAUSE)
            assert run.cpu_seconds() - before <= clock.MAX_CPU_WHILE_STOPPED
        deadline = time.monotonic() + LONGEST
        while run.cpu_seconds() - before < PAUSE:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that lets a timer send any signal")
def test_what_wakes_itself_is_found_out(tmp_path: Path) -> None:
    with busy(tmp_path, "none", "self-waking") as run, run.stopped():
        before = run.cpu_seconds()
        time.sleep(PAUSE)
        assert run.cpu_seconds() - before > 10 * clock.MAX_CPU_WHILE_STOPPED


def test_what_a_run_had_stopped_itself_stays_stopped(tmp_path: Path) -> None:
    code = """
import os, signal, time
child = os.fork()
if child == 0:
    time.sleep(60)
os.kill(child, signal.SIGSTOP)
os.waitpid(child, os.WUNTRACED)
print(child, flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", code]
    with launch.start(command, Policy(tmp_path), "none", {}) as run:
        child = psutil.Process(int(run.output.readline()))
        with run.stopped():
            assert child.parent().status() == psutil.STATUS_STOPPED
        time.sleep(0.05)
        assert child.parent().status() != psutil.STATUS_STOPPED
        assert child.status() == psutil.STATUS_STOPPED


def test_a_stopped_run_dies_with_whoever_stopped_it(enforcer: Enforcer, tmp_path: Path) -> None:
    stop = """
import os, signal, sys
from pathlib import Path
from pytest_autoresearch.sandbox import launch
from pytest_autoresearch.sandbox.policy import Policy
folder, enforcer, pipe = sys.argv[1:]
command = [sys.executable, "-c", "print(flush=True)\\nwhile True: pass"]
run = launch.start(command, Policy(Path(folder)), enforcer, {}, [int(pipe)])
run.output.readline()
with run.stopped():
    os.kill(os.getpid(), signal.SIGKILL)
"""
    reader, writer = os.pipe()
    command = [sys.executable, "-c", stop, str(tmp_path), enforcer, str(writer)]
    process = subprocess.Popen(command, pass_fds=[writer])
    os.close(writer)
    assert process.wait(LONGEST) < 0
    assert os.read(reader, 1) == b""  # every process of the run held the other end
    os.close(reader)


# -- what a run sees ----------------------------------------------------------------------------------------


def test_a_face_shows_what_is_used_and_goes_on_by_itself() -> None:
    with contextlib.closing(ClockPage()) as face:
        now = time.process_time()
        face.show(3.0, 100.0, 0.5)
        sight = ClockReader(face.fileno(), 100.0)
        while time.process_time() < now + 0.1:
            pass
        assert sight.seconds() == pytest.approx(3.05, abs=0.01)
        face.show(7.0, 200.0, 1.0)  # when the run's own seconds are not there yet
        assert sight.seconds() == 7.0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is a file without a name")
def test_nobody_else_writes_a_face() -> None:
    with contextlib.closing(ClockPage()) as face:
        face.show(3.0, 0.0, 0.0)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(face.fileno(), b"x", 0)
        again = os.open(f"/proc/self/fd/{face.fileno()}", os.O_RDWR)
        with pytest.raises(PermissionError):
            os.pwrite(again, b"x", 0)
        with pytest.raises(PermissionError):
            mmap.mmap(again, mmap.PAGESIZE)
        with pytest.raises(PermissionError):
            os.ftruncate(again, 0)
        with pytest.raises(PermissionError):
            fcntl.fcntl(again, fcntl.F_ADD_SEALS, 0)
        os.close(again)
        assert ClockReader(face.fileno(), 0.0).seconds() == 3.0


# -- the rate -----------------------------------------------------------------------------------------------


def test_a_second_counts_for_what_the_core_does_in_it(tmp_path: Path, calibration: Calibration) -> None:
    with (
        busy(tmp_path, "none", "alone") as run,
        contextlib.closing(Clock("calibrated", run, calibration)) as calibrated,
    ):
        before = run.cpu_seconds()
        uncorrected = calibrated.seconds()
        time.sleep(PAUSE)
        assert calibrated.seconds() - uncorrected == pytest.approx(run.cpu_seconds() - before, abs=0.05)
        calibrated.start()
        began, before = calibrated.seconds(), run.cpu_seconds()
        while run.cpu_seconds() - before < 2 * clock.INTERVAL:
            calibrated.correct()
            time.sleep(0.05)
        rate = (calibrated.seconds() - began) / (run.cpu_seconds() - before)
        pace = calibration.probe(10)
        assert rate == pytest.approx(clock.NOMINAL / (sum(pace) / 10), rel=0.5)
        assert min(pace) > 0


def test_a_slow_probe_buys_little(tmp_path: Path, calibration: Calibration) -> None:
    calibration.probe(4)
    best, calibration.quickest = calibration.quickest, calibration.quickest / 100
    try:
        with (
            busy(tmp_path, "none", "alone") as run,
            contextlib.closing(Clock("calibrated", run, calibration)) as slow,
        ):
            slow.start()
            began, before = slow.seconds(), run.cpu_seconds()
            time.sleep(PAUSE)
            rate = (slow.seconds() - began) / (run.cpu_seconds() - before)
        assert rate == pytest.approx(clock.SLOWEST * clock.NOMINAL / calibration.quickest, rel=0.2)
    finally:
        calibration.quickest = best


@pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that lets a timer send any signal")
def test_who_does_not_hold_still_is_charged_as_at_the_machines_best(
    tmp_path: Path, calibration: Calibration
) -> None:
    calibration.probe(4)
    best, calibration.quickest = calibration.quickest, calibration.quickest / 100
    try:
        with (
            busy(tmp_path, "none", "self-waking") as run,
            contextlib.closing(Clock("calibrated", run, calibration)) as found,
        ):
            found.start()
            began, before = found.seconds(), run.cpu_seconds()
            time.sleep(PAUSE)
            rate = (found.seconds() - began) / (run.cpu_seconds() - before)
        assert rate == pytest.approx(clock.NOMINAL / calibration.quickest, rel=0.2)
    finally:
        calibration.quickest = best


# -- whole runs ---------------------------------------------------------------------------------------------


def test_a_run_that_keeps_to_its_clock_uses_its_budget(tmp_path: Path, scorer: Scorer) -> None:
    run = Run(tmp_path, scorer, budget=2.5)
    output = run.follow("""
        sum(range(3_000_000))
        print("before:", harness.clock())
        harness.open_data("train.tokens")
        for _ in range(25):
            train(0.1)
            print("tick", flush=True)
        hand_in()
        print("after:", harness.clock())
    """)
    assert float(output.values["before"]) == 0
    assert run.seconds == pytest.approx(2.5, abs=0.2)
    assert float(output.values["after"]) == pytest.approx(2.5, abs=0.2)
    assert run.lines.count("tick") == 25


def test_the_work_of_helpers_is_on_the_clock(tmp_path: Path, scorer: Scorer) -> None:
    run = Run(tmp_path, scorer, budget=20)
    run.follow("""
        harness.open_data("train.tokens")
        helper = os.fork()
        if helper == 0:
            while True:
                pass
        began = time.monotonic()
        while harness.clock() < 1 and time.monotonic() - began < 60:
            time.sleep(0.1)
        os.kill(helper, 9)
        os.wait()
        print("own:", time.process_time(), flush=True)
        hand_in()
    """)
    assert run.seconds is not None
    assert 1 <= run.seconds < 5


def test_who_trains_on_is_ended(tmp_path: Path, scorer: Scorer) -> None:
    run = Run(tmp_path, scorer, budget=0.5)
    with pytest.raises(RunTimedOut, match=r"still training after \d\.\d s, its budget is 0\.5 s"):
        run.follow("""
            harness.open_data("train.tokens")
            harness.clock = lambda: 0.0
            train(60)
        """)


def test_another_clock_shows_no_face(tmp_path: Path, scorer: Scorer) -> None:
    run = Run(tmp_path, scorer, budget=5, kind="cpu")
    output = run.follow("""
        try:
            harness.clock()
        except PermissionError as error:
            print("refused:", error)
        harness.open_data("train.tokens")
        hand_in()
    """)
    assert output.values["refused"] == "this clock counts cpu time, and shows none"


# -- the process that measures the speed --------------------------------------------------------------------


def scorers() -> set[psutil.Process]:
    """The scorers that this process has started, and their forks."""
    below = psutil.Process().children(recursive=True)
    command = ["-m", "pytest_autoresearch.scoring.server"]
    return {process for process in below if process.cmdline()[1:] == command}  # a sandbox repeats it


def started(calibration: Calibration) -> tuple[psutil.Process, psutil.Process]:
    """A new scorer, and its fork that measures the speed."""
    before = scorers()
    calibration.probe(1)
    one, other = scorers() - before
    return (one, other) if other.ppid() == one.pid else (other, one)


@pytest.mark.parametrize("killed", ["scorer", "fork"])
def test_what_dies_while_a_run_trains_is_replaced(tmp_path: Path, killed: str) -> None:
    with contextlib.closing(Scorer(PREPARE, [], "none", inherited(), limit=60)) as scorer:
        run = Run(tmp_path, scorer, budget=3)
        parent, fork = started(run.calibration)
        process = parent if killed == "scorer" else fork
        run.on_line = lambda line: process.kill() if line == "kill" else None
        run.follow("""
            harness.open_data("train.tokens")
            train(0.5)
            print("kill", flush=True)
            train(2.5)
            hand_in()
        """)
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        assert parent.is_running() == (killed == "fork")
        assert run.seconds == pytest.approx(3, abs=0.3)


def test_it_ends_with_the_scorer() -> None:
    with contextlib.closing(Scorer(PREPARE, [], "none", inherited(), limit=60)) as scorer:
        calibration = Calibration(scorer)
        both = started(calibration)
        scorer.close()
        psutil.wait_procs(both, timeout=LONGEST)
        assert not any(process.is_running() for process in both)
        assert len(calibration.probe(1)) == 1  # with another scorer


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process")
def test_it_is_pinned_to_the_cores_that_it_is_given(enforcer: Enforcer) -> None:
    usable = os.sched_getaffinity(0)
    core = min(usable)
    with contextlib.closing(Scorer(PREPARE, [], enforcer, inherited(), limit=60)) as scorer:
        pinned, free = Calibration(scorer, [core]), Calibration(scorer)
        parent, fork = started(pinned)
        assert fork.cpu_affinity() == [core]
        before = scorers()
        assert len(free.probe(2)) == 2
        [other] = scorers() - before
        assert set(other.cpu_affinity()) == set(parent.cpu_affinity()) == usable
        assert len(pinned.probe(2)) == 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process")
def test_cores_that_do_not_exist_have_no_speed() -> None:
    with contextlib.closing(Scorer(PREPARE, [], "none", inherited(), limit=60)) as scorer:
        with pytest.raises(ScorerUnavailable, match="starts no process that measures"):
            Calibration(scorer, [4095]).probe(1)
        assert len(Calibration(scorer).probe(1)) == 1


# -- the scorer -------------------------------------------------------------------------------------------


def test_without_a_scorer_there_is_no_clock_and_no_run(tmp_path: Path) -> None:
    scorer = Scorer("raise SystemExit('the corpus is not installed')", [], "none", inherited(), limit=60)
    run = Run(tmp_path, scorer, budget=3)
    with pytest.raises(ScorerUnavailable, match="the scorer did not start: the corpus is not installed"):
        run.follow("harness.open_data('train.tokens')\ntrain(60)")
    assert not [
        child for child in psutil.Process().children(recursive=True) if child.cwd() == str(run.folder)
    ]


def test_probing_and_scoring_do_not_disturb_each_other(
    tmp_path: Path, scorer: Scorer, calibration: Calibration
) -> None:
    content, digest = sealed(Attention().eval())
    (tmp_path / "model").write_bytes(content)
    with (tmp_path / "model").open("rb") as model:
        first = scorer.score(model, digest, 1.0).score
        assert len(calibration.probe(3)) == 3
        assert scorer.score(model, digest, 1.0).score == pytest.approx(first, rel=1e-9)
