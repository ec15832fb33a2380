"""No process of a run survives its end, however it hides; exit codes and processor seconds are true.

Every process of a run holds the writing end of a pipe: when the last of them is gone, and no sooner, its
reading end is at its end.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from pytest_autoresearch.sandbox import launch
from pytest_autoresearch.sandbox.policy import Enforcer, Policy
from pytest_autoresearch.sandbox.process import SandboxedProcess
from tests.enforcers import VARIANTS, usable

pytestmark = pytest.mark.timeout(60)  # so that waiting without end fails

LONGEST = 20.0  # seconds that anything here may take

# The ways to leave a parent. Each writes a byte when it has got away.
BODY = """
import os, signal, sys, time
way, pipe = sys.argv[1], int(sys.argv[2])

def away():
    os.write(pipe, b".")

def sleep():
    away()
    time.sleep(60)

def daemon():
    if os.fork():
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    return True

def respawn(pause, leave):
    while True:
        away()
        time.sleep(pause)
        if os.fork():
            os._exit(0)
        if leave:
            os.setsid()

if way == "itself":
    sleep()
elif way == "child":
    os.fork() or sleep()
elif way == "session":
    os.fork() or os.setsid() or sleep()
elif way == "daemon":
    daemon() and sleep()
elif way == "respawner":
    daemon() and respawn(0.005, leave=False)
elif way == "sprinter":
    daemon() and respawn(0, leave=True)
elif way == "signaller":
    if os.fork() == 0:
        [os.fork() for _ in range(2)]
        away()
        while True:
            try:
                os.kill(os.getpid(), 0)
                os.kill(os.getppid(), 0)
            except OSError:
                pass
elif way == "family":
    [os.fork() for _ in range(4)]
    sleep()
if "leave" in sys.argv:
    os.read(int(sys.argv[3]), 1)
    os._exit(3)
time.sleep(60)
"""
WAYS = ("child", "session", "daemon", "respawner", "sprinter", "signaller", "family")
ENOUGH = {
    "respawner": 10,
    "sprinter": 100,
    "signaller": 4,
    "family": 16,
}  # bytes by which it is well under way

STARTER = """
import sys, time
from pathlib import Path
from pytest_autoresearch.sandbox import launch
from pytest_autoresearch.sandbox.policy import Enforcer, Policy
from pytest_autoresearch.sandbox.process import SandboxedProcess
folder, enforcer, pipe, *command = sys.argv[1:]
run = launch.start(command, Policy(Path(folder)), enforcer, {}, [int(pipe)])
time.sleep(60)
"""


@pytest.fixture(params=[*VARIANTS, "none"])
def enforcer(request: pytest.FixtureRequest) -> Iterator[Enforcer]:
    with usable(request.param) as name:
        yield name


class Lifeline:
    """A pipe that the processes of a run hold open."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()
        os.close(self.reader)

    def let_go(self) -> None:
        """Leave the writing end to the run alone."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def wait_for(self, count: int) -> None:
        """Wait until *count* bytes have arrived."""
        deadline = time.monotonic() + LONGEST
        while count > 0:
            ready, _, _ = select.select([self.reader], [], [], deadline - time.monotonic())
            assert ready, "it never got away"
            read = len(os.read(self.reader, count))
            assert read, "it has ended"
            count -= read

    def is_cut(self, timeout: float = 0.0) -> bool:
        """Return whether no process holds the writing end within *timeout* seconds."""
        deadline = time.monotonic() + timeout
        while select.select([self.reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not os.read(self.reader, 1 << 16):
                return True
        return False


@pytest.fixture
def lifeline() -> Iterator[Lifeline]:
    with Lifeline() as line:
        yield line


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code, *arguments]


def start(folder: Path, enforcer: Enforcer, command: list[str], *descriptors: int) -> SandboxedProcess:
    return launch.start(command, Policy(folder), enforcer, {"PATH": "/usr/bin:/bin"}, descriptors)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_alive_after_the_end(
    way: str, enforcer: Enforcer, lifeline: Lifeline, tmp_path: Path
) -> None:
    with start(tmp_path, enforcer, python(BODY, way, str(lifeline.writer)), lifeline.writer) as run:
        lifeline.let_go()
        lifeline.wait_for(ENOUGH.get(way, 1))
        assert run.exit_code() is None
        run.end()
        assert lifeline.is_cut()
        assert run.exit_code() == -signal.SIGKILL
        run.end()


@pytest.mark.parametrize("way", WAYS)
def test_nothing_outlives_a_killed_starter(
    way: str, enforcer: Enforcer, lifeline: Lifeline, tmp_path: Path
) -> None:
    number = str(lifeline.writer)
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path), enforcer, number, *python(BODY, way, number)],
        pass_fds=[lifeline.writer],
    )
    lifeline.let_go()
    try:
        lifeline.wait_for(ENOUGH.get(way, 1))
    finally:
        starter.kill()
        starter.wait()
    assert lifeline.is_cut(LONGEST)


@pytest.mark.parametrize("way", WAYS[:-1])
def test_nothing_outlives_a_run_that_ends_by_itself(
    way: str, enforcer: Enforcer, lifeline: Lifeline, tmp_path: Path
) -> None:
    with Lifeline() as go:
        command = python(BODY, way, str(lifeline.writer), str(go.reader), "leave")
        with start(tmp_path, enforcer, command, lifeline.writer, go.reader) as run:
            lifeline.let_go()
            lifeline.wait_for(ENOUGH.get(way, 1))
            os.write(go.writer, b".")
            assert run.wait(LONGEST) == 3
            assert lifeline.is_cut()


def test_a_run_outlives_the_thread_that_started_it(
    enforcer: Enforcer, lifeline: Lifeline, tmp_path: Path
) -> None:
    runs = []
    command = python(BODY, "child", str(lifeline.writer))
    thread = threading.Thread(target=lambda: runs.append(start(tmp_path, enforcer, command, lifeline.writer)))
    thread.start()
    thread.join()
    lifeline.wait_for(1)
    with runs[0] as run, pytest.raises(subprocess.TimeoutExpired):
        run.wait(0.3)


@pytest.mark.parametrize("way", ["itself", "daemon"])
def test_a_run_ends_when_its_supervisor_is_killed(
    way: str, enforcer: Enforcer, lifeline: Lifeline, tmp_path: Path
) -> None:
    with start(tmp_path, enforcer, python(BODY, way, str(lifeline.writer)), lifeline.writer) as run:
        lifeline.let_go()
        lifeline.wait_for(1)
        if way == "daemon" and enforcer != "bwrap":
            run.cpu_seconds()  # so that it knows the processes
        run.supervisor.kill()
        assert run.wait(LONGEST) == -signal.SIGKILL
        run.end()
    assert lifeline.is_cut(LONGEST)


def test_what_a_run_closes_is_closed(enforcer: Enforcer, lifeline: Lifeline, tmp_path: Path) -> None:
    close = f"import os, time; os.close({lifeline.writer}); os.close(1); os.close(2); time.sleep(60)"
    with start(tmp_path, enforcer, python(close), lifeline.writer) as run:
        lifeline.let_go()
        assert lifeline.is_cut(LONGEST)
        if enforcer != "bwrap":  # whose own process keeps the standard streams
            assert run.output.read() == b""
        assert run.exit_code() is None


def test_a_stopped_supervisor_can_be_ended(tmp_path: Path) -> None:
    stop = "import os, signal, time; os.kill(os.getppid(), signal.SIGSTOP); print(flush=True); time.sleep(60)"
    with start(tmp_path, "none", python(stop)) as run:
        run.output.readline()
        ended = threading.Thread(target=run.end, daemon=True)
        ended.start()
        ended.join(LONGEST)
        assert not ended.is_alive()


@pytest.mark.parametrize("number", ["TERM", "INT", "HUP"])
def test_a_supervisor_that_is_terminated_ends_the_run(
    number: str, enforcer: Enforcer, lifeline: Lifeline, tmp_path: Path
) -> None:
    with start(tmp_path, enforcer, python(BODY, "daemon", str(lifeline.writer)), lifeline.writer) as run:
        lifeline.let_go()
        lifeline.wait_for(1)
        run.supervisor.send_signal(signal.Signals[f"SIG{number}"])
        run.wait(LONGEST)
        assert lifeline.is_cut()


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -TERM $$", -15),
        ("kill -KILL $$", -9),
        ("kill -SEGV $$", -11),
        ("kill -PIPE $$", -13),  # which Python ignores, and what it starts must not
    ],
)
def test_how_a_run_ended_is_reported(command: str, code: int, enforcer: Enforcer, tmp_path: Path) -> None:
    with start(tmp_path, enforcer, ["sh", "-c", command]) as run:
        assert run.wait(LONGEST) == code
        assert run.exit_code() == code


def test_a_command_that_does_not_exist_is_named(enforcer: Enforcer, tmp_path: Path) -> None:
    with start(tmp_path, enforcer, ["no-such-program"]) as run:
        output = run.output.read()
        assert b"no-such-program" in output
        assert b"Traceback" not in output
        assert run.wait(LONGEST) > 0


def test_output_and_errors_come_in_one_stream_that_ends(enforcer: Enforcer, tmp_path: Path) -> None:
    with start(tmp_path, enforcer, ["sh", "-c", "echo out; echo error >&2; pwd"]) as run:
        assert run.output.read() == f"out\nerror\n{tmp_path.resolve()}\n".encode()


def test_a_missing_folder_starts_nothing(enforcer: Enforcer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        start(tmp_path / "missing", enforcer, ["true"])


BUSY = """
import os, signal, sys, time
def burn(seconds):
    while time.process_time() < seconds:
        pass
"""


def seconds_of(run: SandboxedProcess, at_least: float) -> list[float]:
    """Ask for the processor seconds until they are *at_least* so many."""
    asked = [run.cpu_seconds()]
    deadline = time.monotonic() + LONGEST
    while asked[-1] < at_least and time.monotonic() < deadline:
        time.sleep(0.05)
        asked.append(run.cpu_seconds())
    assert asked == sorted(asked)
    return asked


def test_processor_seconds_of_a_child_in_its_own_session_count(enforcer: Enforcer, tmp_path: Path) -> None:
    code = f"{BUSY}\nos.fork() or os.setsid() or burn(60)\ntime.sleep(60)"
    with start(tmp_path, enforcer, python(code)) as run:
        assert seconds_of(run, 0.3)[-1] >= 0.3


def test_processor_seconds_of_children_that_have_ended_count(enforcer: Enforcer, tmp_path: Path) -> None:
    once = "os.fork() or burn(0.2) or os._exit(0)\nos.wait()\n"
    code = f"{BUSY}\n{once * 3}time.sleep(60)"
    with start(tmp_path, enforcer, python(code)) as run:
        seconds = seconds_of(run, 0.55)[-1]
    assert 0.55 <= seconds < 2
    assert run.cpu_seconds() == seconds


def test_processor_seconds_of_ignored_children_count(enforcer: Enforcer, tmp_path: Path) -> None:
    # The kernel adds nothing to a parent that ignores the ends of its children.
    once = "os.fork() or burn(0.5) or os._exit(0)\ntime.sleep(0.8)\n"
    code = f"{BUSY}\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n{once * 3}time.sleep(60)"
    with start(tmp_path, enforcer, python(code)) as run:
        assert seconds_of(run, 0.8)[-1] >= 0.8


def test_an_idle_run_uses_no_processor(enforcer: Enforcer, tmp_path: Path) -> None:
    with start(tmp_path, enforcer, ["sleep", "60"]) as run:
        time.sleep(0.3)
        assert run.cpu_seconds() < 0.1


@pytest.fixture
def right_to_priority() -> Iterator[None]:
    """Give this process a right to real time and to priority, as some systems do for music."""
    if sys.platform != "linux":
        pytest.skip("these limits are Linux's")
    before = {limit: resource.getrlimit(limit) for limit in (resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE)}
    try:
        for limit in before:
            resource.setrlimit(limit, (40, 40))
    except ValueError:
        pytest.skip("it needs CAP_SYS_RESOURCE")
    yield
    for limit, numbers in before.items():
        resource.setrlimit(limit, numbers)


@pytest.mark.usefixtures("right_to_priority")
def test_a_run_cannot_raise_its_priority(enforcer: Enforcer, tmp_path: Path) -> None:
    attempts = ("os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))", "os.nice(-1)")
    for attempt in attempts:
        with start(tmp_path, enforcer, python(f"import os; {attempt}")) as run:
            assert (run.wait(LONGEST) != 0) == (enforcer != "none"), attempt


def test_the_supervisor_holds_no_key(
    enforcer: Enforcer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTORESEARCH_TEST_API_KEY", "sk-secret")
    with start(tmp_path, enforcer, ["sh", "-c", "echo; sleep 60"]) as run:
        run.output.readline()
        with contextlib.suppress(FileNotFoundError):  # no /proc
            assert b"secret" not in Path(f"/proc/{run.supervisor.pid}/environ").read_bytes()
