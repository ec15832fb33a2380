"""``kill -9`` at every step that writes something down, and at random moments: nothing is lost but a run."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from pytest_autoresearch.system.log import HEAD, TAIL
from tests.project import Project, Session, wait_for

FAULTS = Path(__file__).parent
OPTIONS = ("--autoresearch", "--autoresearch-tag=t", "--autoresearch-sandbox=none")
KILLS = int(os.environ.get("AUTORESEARCH_TEST_KILLS", "30"))  # at random moments
# What is on the screen a moment before: nothing, what comes before the first run, the first verdict.
MOMENTS = ("", "trust:", "::baseline PASSED", "::trial[", "::trial[")
# In the order in which a new campaign comes to them; the last two bring the opening to the working tree.
OPENING = (
    "git switch",
    "git hash-object",
    "git hash-object of a tree",
    "git commit-tree",
    "git update-ref",
    "git reset",
    "git checkout-index",
)
STEPS = (
    "take a lock",
    "sign a lock",
    "open ledger.jsonl",
    "open results.tsv",
    "drop a log",
    "git hash-object",
    "git hash-object of a tree",
    "git commit-tree",
    "git update-ref",
    "note a log",
    "git reset",
    "git checkout-index",
    "git maintenance",
    "add to ledger.jsonl",
    "let a line reach the disk",
    "add to results.tsv",
    "remove a folder",
    "let go of a lock",
)
# Each trial has a value of its own; every other one is better, and is kept. git packs after those.
AGENT = """
from pytest_autoresearch import Proposal
from pytest_autoresearch.campaign import writer

writer.PACKED_EVERY = 2

def pytest_autoresearch_propose(briefing):
    rate, batch = briefing.script.splitlines()[2:4]
    if briefing.number % 2:
        old, new = rate, f"LR = {float(rate.split()[2]) + 1e-5:.5f}"
    else:
        old, new = batch, f"BATCH = {1000 + briefing.number}"
    return Proposal(briefing.edit(old, new), f"{old} -> {new}")
"""
CHILD = """
import subprocess, sys
sys.stdout.flush()
subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(30)"], start_new_session=True)
"""


def prepared(project: Project) -> Project:
    project.script.write_text(project.script.read_text() + CHILD)
    project.write(conftest_py=AGENT, _gitignore="__pycache__/\nresults.tsv\n").commit()
    return project


def assert_whole(project: Project, known: dict[str, str]) -> dict[str, str]:
    """Look at what a killed session has left, before the next puts anything right; return the refs.

    Everything that was *known* is still there, no trial is missing before the last, and exactly the kept
    ones are on the branch, which ends with a keep, a baseline or a claim.
    """
    fsck = ["git", "fsck", "--strict", "--no-dangling"]
    subprocess.run(fsck, cwd=project.path, capture_output=True, check=True)
    refs = project.refs()
    assert {name: refs.get(name) for name in known if name != "claim"} == {
        name: commit for name, commit in known.items() if name != "claim"
    }
    trials = sorted(name for name in refs if name.isdecimal())
    assert trials == [f"{number:04d}" for number in range(len(trials))]
    if trials:
        form = "--format=%(refname:lstrip=3) %(contents:trailers:key=Verdict,valueonly,separator=%2C)"
        rows = project.git("for-each-ref", form, "refs/autoresearch/t/[0-9]*").splitlines()
        branch = set(project.git("rev-list", "autoresearch/t").split())
        on_it = {name for name in trials if refs[name] in branch}
        assert on_it - {"0000"} == {row.split()[0] for row in rows if row.endswith(" kept")}
        assert project.git("rev-parse", "autoresearch/t") in refs.values()
    return refs


def assert_no_process(project: Project) -> None:
    """Every process of a run has its working directory in the project's own TMPDIR."""
    deadline = time.monotonic() + 5
    while left := [process for process in psutil.process_iter() if _is_in(process, project)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def _is_in(process: psutil.Process, project: Project) -> bool:
    try:
        return process.cwd().startswith(str(project.temporary))
    except (psutil.Error, OSError):  # it has ended, or sits in a folder that has no name
        return False


def killed_at(project: Project, step: str) -> Session:
    """A session of two trials that is killed before *step*, if it comes to that."""
    path = os.pathsep.join(filter(None, (str(FAULTS), os.environ.get("PYTHONPATH"))))
    arguments = (*OPTIONS, "--autoresearch-trials=2", "-p", "killer")
    return project.pytest(*arguments, PYTHONPATH=path, KILL_AT=step)


def test_a_kill_before_any_step_loses_nothing(project: Project) -> None:
    """Each session goes on from what the one before has left."""
    prepared(project)
    known: dict[str, str] = {}
    killed: list[str] = []
    trials = (f"{name}:{occurrence}" for occurrence in (1, 2) for name in STEPS)
    for step in (*(f"{name}:1" for name in OPENING), *trials):
        session = killed_at(project, step)
        if session.code:
            assert session.code == -signal.SIGKILL, session.screen
            killed.append(step)
        session.hides("Traceback", "INTERNALERROR", "rror:")
        known = assert_whole(project, known)
        assert_no_process(project)
    assert {f"{name}:1" for name in (*OPENING, *STEPS)} <= {*killed}
    session = project.pytest(*OPTIONS, "--autoresearch-trials=1").exits(0).leaves_clean()
    session.decides(*(entry["verdict"] for entry in project.ledger()))
    project.pytest(*OPTIONS, "--autoresearch-trials=0").exits(0).hides("recovered")
    assert not list(project.temporary.iterdir())


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing(project: Project) -> None:
    """Some come while trials go on, others while a session starts and heals what is there."""
    prepared(project)
    chance, known, recovered = random.Random(6), dict[str, str](), 0
    for _ in range(KILLS):
        with project.start(*OPTIONS) as process:
            assert process.stdout is not None
            screen, awaited = "", chance.choice(MOMENTS)
            while awaited not in screen and (line := process.stdout.readline()):
                screen += line
            time.sleep(chance.uniform(0, 0.4))
            process.kill()
            screen += process.stdout.read()
        assert process.returncode == -signal.SIGKILL, screen
        assert "Traceback" not in screen
        recovered += "recovered: taken over" in screen
        known = assert_whole(project, known)
        assert_no_process(project)
    assert recovered > KILLS / 2
    assert len(known) > KILLS / 4
    session = project.pytest(*OPTIONS, "--autoresearch-trials=1").exits(0).leaves_clean()
    session.decides(*(entry["verdict"] for entry in project.ledger()))
    assert not [*project.temporary.rglob("*")], session.screen


PRINTS = """
import sys, time
from pathlib import Path
print("first words")
print("x" * {length})
print("last words", flush=True)
Path({ready!r}).touch()
time.sleep(60)
"""


@pytest.mark.parametrize("length", [10, HEAD + 1000, HEAD + 3 * TAIL])
def test_what_a_run_had_printed_is_in_its_log(project: Project, length: int) -> None:
    ready = project.temporary / "ready"
    project.proposes(("LR = 0.04", f"LR = 0.05{PRINTS.format(length=length, ready=str(ready))}"))
    with project.start(*OPTIONS) as process:
        wait_for(ready.exists() for _ in itertools.count())
        time.sleep(0.3)  # for what is still in the pipe
        process.kill()
    assert_no_process(project)
    printed = (project.path / ".autoresearch" / "t" / "logs" / "0001.log").read_text()
    assert printed.startswith("first words\nx")
    assert printed.endswith("x\nlast words\n")
    assert len(printed) >= min(length, HEAD + TAIL)
