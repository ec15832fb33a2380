"""A process whose first thread has ended is seen as what it is, though the kernel calls it a zombie."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pytest_autoresearch.runs import clock
from pytest_autoresearch.sandbox import launch, seccomp
from tests.enforcers import keeper

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not seccomp.supported(), reason="needs the number of a system call"),
]
MIB = 300
PAUSE = 0.3  # seconds
EXIT = seccomp.number((60, 93)) if seccomp.supported() else 0  # of a thread, not of its process
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
def leaderless(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[launch.SandboxedProcess]:
    """Return a run that works in the second thread of a process, whose first thread has ended."""
    with keeper(request.param) as enforcer:
        command = [sys.executable, "-c", LEADERLESS]
        with launch.start(command, launch.Policy(tmp_path), enforcer, {}) as run:
            assert run.process.stdout is not None
            assert run.process.stdout.readline() == b"\n"
            family = psutil.Process(run.process.pid).children(recursive=True)
            assert family[-1].status() == psutil.STATUS_ZOMBIE
            yield run


def used_in(seconds: float, run: launch.SandboxedProcess) -> float:
    """Return the processor seconds that a run uses meanwhile."""
    before = run.cpu_seconds()
    time.sleep(seconds)
    return run.cpu_seconds() - before


def test_it_is_stopped_and_goes_on(leaderless: launch.SandboxedProcess) -> None:
    with leaderless.stopped():
        assert used_in(PAUSE, leaderless) <= clock.RESTLESS
    assert used_in(PAUSE, leaderless) > PAUSE / 10


def test_its_memory_counts(leaderless: launch.SandboxedProcess) -> None:
    assert MIB <= leaderless.memory() < MIB + 100
