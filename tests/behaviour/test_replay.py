"""A trial of the past, measured again: the same has to come out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project import Project

GAIN = ("LR = 0.04", "LR = 0.05")
LOSS = ("BATCH = 64", "BATCH = 640")
CRASH = ("LR = 0.05", "LR = 0.05\nraise SystemExit('it went wrong')")


@pytest.fixture
def tried(project: Project) -> Project:
    """A campaign with a trial of each kind."""
    project.proposes(GAIN, LOSS, CRASH, ("print(", "print(("))
    project.research("--autoresearch-sandbox=none").exits(0)
    return project


def test_trials_of_every_kind_are_measured_again(tried: Project) -> None:
    before = tried.git("for-each-ref"), tried.git("status", "--porcelain", "--untracked-files=no")
    replay = tried.pytest
    kept = replay("--autoresearch-replay=t/0001").exits(0).counts("1 passed")
    kept.shows("experiment/train.py::replay[t/0001] PASSED (0.9700; kept then, 0.9700, -0.0100")
    replay("--autoresearch-replay=t/2").exits(0).shows("replay[t/0002] PASSED (1.0600; discarded then, 1.06")
    crashed = replay("--autoresearch-replay=t/0003").exits(0)
    crashed.shows('PASSED (exit code 1: "it went wrong"; crashed then, exit code 1: "it went wrong"')
    replay("--autoresearch-replay=t/0004").exits(0).shows("refused then")
    assert (tried.git("for-each-ref"), tried.git("status", "--porcelain", "--untracked-files=no")) == before


def test_a_score_that_does_not_come_again_fails(project: Project) -> None:
    """The script tells the day, as it were."""
    day = project.path / ".git" / "day"
    day.write_text("0")
    project.proposes((GAIN[0], f"LR = 0.05 + float(open({str(day)!r}).read())"))
    project.research("--autoresearch-sandbox=none").exits(0).decides("kept")
    options = ("--autoresearch-replay=t/1", "--autoresearch-sandbox=none")
    project.pytest(*options).exits(0)
    day.write_text("0.5")
    session = project.pytest(*options).exits(1).counts("1 failed").hides("Traceback")
    session.shows("val_bpb 1.4500: trial t/0001 does not reproduce", "stored      0.970000, kept")
    day.write_text("x")
    session = project.pytest(*options).exits(1).hides("replay.py")
    session.shows("trial t/0001 gives no score", "kept then")


def test_a_crash_that_does_not_come_again_fails(project: Project) -> None:
    fuse = project.path / ".git" / "fuse"
    fuse.touch()
    project.proposes((GAIN[0], f"LR = 0.05\nimport os; assert not os.path.exists({str(fuse)!r})"))
    project.research("--autoresearch-sandbox=none").exits(0).decides("crashed")
    fuse.unlink()
    session = project.pytest("--autoresearch-replay=t/1", "--autoresearch-sandbox=none").exits(1)
    session.shows("trial t/0001 gives val_bpb 0.9700", "crashed then")


def test_another_platform_is_not_compared(tried: Project) -> None:
    """Each trial has the ``prepare.py`` that it was proposed beside; only what that finds can be another."""
    there = tried.clone()
    there.git("fetch", "--quiet", "origin", "refs/autoresearch/t/*:refs/autoresearch/t/*")
    session = there.pytest("--autoresearch-replay=t/1", "--autoresearch-time-budget=3").exits(0)
    session.hides("not compared")  # this prepare.py knows one budget
    opening = there.message("refs/autoresearch/t/0000").replace("toy processor", "another processor")
    tree = there.git("rev-parse", "refs/autoresearch/t/0000^{tree}")
    commit = there.git("commit-tree", tree, "-p", "refs/autoresearch/t/0000^", "-m", opening)
    there.git("update-ref", "refs/autoresearch/t/0000", commit)
    there.pytest("--autoresearch-replay=t/1").exits(0).shows("PASSED (0.9700; kept", "so not compared")


def test_what_is_no_trial_is_one_line(tried: Project) -> None:
    for trial, said in (
        ("t/0009", "there is no trial t/0009: the last trial of t is 0004"),
        ("t/0000", "there is no trial t/0000: the last trial of t is 0004"),
        ("u/0001", "there is no trial u/0001: no trials of u are here"),
        ("t", "'t' is no trial: give its tag and its number, mar5/0007"),
        ("t/-1", "'t/-1' is no trial"),
        ("../t/1", "'../t/1' is no trial"),
    ):
        session = tried.pytest(f"--autoresearch-replay={trial}").exits(4).shows(said)
        session.hides("Traceback", "INTERNALERROR")


def test_a_replay_is_no_research(tried: Project) -> None:
    session = tried.pytest("--autoresearch", "--autoresearch-replay=t/1").exits(4)
    session.shows("--autoresearch-replay measures an earlier trial: give it without --autoresearch")
    tried.write(pytest_ini="[pytest]\nautoresearch_metric = training_seconds\n")
    session = tried.pytest("--autoresearch-replay=t/1").exits(4)
    session.shows("t/0001 is of metric val_bpb, and this one is training_seconds")


def test_a_trial_of_another_version_is_one_line(tried: Project) -> None:
    message = tried.message("refs/autoresearch/t/0001").replace("Digest:", "Spirit:")
    tree = tried.git("rev-parse", "refs/autoresearch/t/0001^{tree}")
    commit = tried.git("commit-tree", tree, "-p", "refs/autoresearch/t/0001^", "-m", message)
    tried.git("update-ref", "refs/autoresearch/t/0001", commit)
    session = tried.pytest("--autoresearch-replay=t/1").exits(4).hides("Traceback")
    session.shows("t/0001 is no trial of this version", "Digest")


def test_a_replay_can_be_asked_for_anywhere(tried: Project) -> None:
    """From a folder below the root, and on a branch that has never seen the trial."""
    tried.git("checkout", "--quiet", "main")
    tried.write(pytest_ini="[pytest]\n")
    below = tried.beside(tried.path / "experiment")
    below.pytest("--autoresearch-replay=t/0002").exits(0).shows("PASSED (1.0600; discarded")
    assert not Path(tried.path, "experiment", ".autoresearch").exists()


def test_a_replay_runs_alone_and_help_runs_nothing(tried: Project) -> None:
    tried.write(tests__test_a_py="def test_a():\n    assert False\n")
    session = tried.pytest("--autoresearch-replay=t/2", "tests/test_a.py").exits(4)
    session.shows("--autoresearch-replay runs train.py alone: drop test_a.py")
    tried.pytest("--autoresearch-replay=t/99", "--help").exits(0).shows("--autoresearch-replay=TAG/NUMBER")
