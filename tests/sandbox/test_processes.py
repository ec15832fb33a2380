"""A process is reported with all its threads, even when the kernel calls it a zombie; and how it ended."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pytest_autoresearch.runs import clock
from pytest_autoresearch.sandbox import launch, system_calls
from pytest_autoresearch.sandbox.policy import Policy
from pytest_autoresearch.sandbox.process import SandboxedProcess
from pytest_autoresearch.system.signals import exit_reason
from tests.enforcers import usable

pytestmark = pytest.mark.timeout(60)
MIB = 300
PAUSE = 0.3  # seconds
EXIT = {"x86_64": 60, "aarch64": 93}.get(platform.machine(), 0)  # of a thread, not of its process
LEADERLESS = f"""
import ctypes, threading

def work():
    hoard = b"x" * ({MIB} << 20)
    while b") Z " not in open("/proc/self/stat", "rb").read():
        pass
    print(flush=True)
    while True:
        pass

threading.Thread(target=work).start()
ctypes.CDLL(None).syscall(ctypes.c_long({EXIT}), 0)
"""


@pytest.fixture(params=["bwrap", "landlock", "none"])
def leaderless(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SandboxedProcess]:
    """Return a run that works in the second thread of a process, whose first thread has ended."""
    if not system_calls.supported():
        pytest.skip("needs the number of a system call")
    with usable(request.param) as enforcer:
        command = [sys.executable, "-c", LEADERLESS]
        with launch.start(command, Policy(tmp_path), enforcer, {}) as run:
            assert run.output.readline() == b"\n"
            family = psutil.Process(run.supervisor.pid).children(recursive=True)
            assert family[-1].status() == psutil.STATUS_ZOMBIE
            yield run


def used_in(seconds: float, run: SandboxedProcess) -> float:
    """Return the processor seconds that a run uses meanwhile."""
    before = run.cpu_seconds()
    time.sleep(seconds)
    return run.cpu_seconds() - before


def test_it_is_stopped_and_goes_on(leaderless: SandboxedProcess) -> None:
    with leaderless.stopped():
        assert used_in(PAUSE, leaderless) <= clock.MAX_CPU_WHILE_STOPPED
    assert used_in(PAUSE, leaderless) > PAUSE / 10


def test_its_memory_counts(leaderless: SandboxedProcess) -> None:
    assert MIB <= leaderless.memory() < MIB + 100


@pytest.mark.parametrize(
    ("code", "reason"),
    [(0, "exit code 0"), (3, "exit code 3"), (-9, "killed by SIGKILL"), (-40, "killed by signal 40")],
)
def test_how_a_process_ended_is_said_in_words(code: int, reason: str) -> None:
    assert exit_reason(code) == reason
