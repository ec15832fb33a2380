"""A clock that jumps, and a machine that sleeps, cost no trial."""

from __future__ import annotations

import os
import signal
import time

from tests.project import Project

JUMPS = """

import itertools, time

real, jumps = time.time, itertools.cycle((-400_000.0, 0.0, 400_000.0))
time.time = lambda: real() + next(jumps)
"""
SLOW = ("LR = 0.04", "LR = 0.05\nimport time; time.sleep(0.5)")
SECOND = ("BATCH = 64", "BATCH = 32")


def test_a_clock_that_jumps_ends_nothing(project: Project) -> None:
    project.proposes(SLOW, SECOND)
    conftest = project.path / "conftest.py"
    conftest.write_text(conftest.read_text() + JUMPS)
    options = ("--autoresearch-hours=1", "--autoresearch-trials=2")
    project.commit().research(*options).exits(0).decides("kept", "kept")
    for entry in project.ledger():
        assert all(0 <= run["wall_seconds"] < 60 for run in entry["measurements"])


def test_a_session_that_sleeps_goes_on(project: Project) -> None:
    """All of it is stopped in the middle of a run, as a machine that is suspended does."""
    project.proposes(SLOW, SECOND)
    with project.start("--autoresearch", "--autoresearch-tag=t", "--autoresearch-sandbox=none") as process:
        log = project.path / ".autoresearch" / "t" / "logs" / "0001.log"
        while not log.exists():
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(2)
        os.killpg(process.pid, signal.SIGCONT)
        screen, _ = process.communicate(timeout=60)
    assert process.returncode == 0, screen
    assert [entry["verdict"] for entry in project.ledger()] == ["kept", "kept"]
