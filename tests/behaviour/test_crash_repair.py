"""Whoever proposed a script that crashes gets three tries to mend it, within the trial."""

from __future__ import annotations

import pytest

from tests.project import NOISY, Project

# Proposes one script after the other, and mends with what is left of its list.
AGENT = """\
from pathlib import Path

from pytest_autoresearch import Proposal, Usage

EDITS = {edits!r}


def changed(briefing, edit):
    return Proposal(briefing.edit({old!r}, edit), edit, usage=Usage(calls=1, cost=0.25))


def pytest_autoresearch_propose(briefing):
    if EDITS:
        return changed(briefing, EDITS.pop(0))


def pytest_autoresearch_fix(briefing, failure):
    with open("told", "a") as file:
        print(failure.attempt, failure.reason, "|", failure.log.strip().splitlines()[-1:], file=file)
    {fix}
"""
MEND = "return changed(briefing, EDITS.pop(0)) if EDITS else None"


def agent(project: Project, *edits: str, fix: str = MEND, old: str = "LR = 0.04") -> Project:
    (project.path / "conftest.py").write_text(AGENT.format(edits=list(edits), fix=fix, old=old))
    return project.commit("Add an agent")


def test_a_crash_that_is_mended_is_judged_as_any_other(project: Project) -> None:
    agent(project, "LR = oops", "LR = 0.05").research("--autoresearch-trials=1").exits(0).decides("kept")
    [entry] = project.ledger()
    assert entry["description"] == "LR = 0.05"
    assert entry["reason"] == "0.9700, -0.0100 ± 0.0000 after 1 run (repaired 1 time)"
    assert entry["crashes"] == ["exit code 1: \"NameError: name 'oops' is not defined\""]
    assert entry["usage"] == {"calls": 2, "cost": 0.5}
    assert 'Crash: exit code 1: "NameError' in project.message("refs/autoresearch/t/0001")
    told = (project.path / "told").read_text()
    assert told.startswith(
        "0 exit code 1: \"NameError: name 'oops' is not defined\" | [\"NameError: name 'oops'"
    )


def test_it_is_given_up_after_three_tries(project: Project) -> None:
    project = agent(project, *(f"LR = oops{number}" for number in range(6)))
    session = project.research("--autoresearch-trials=1").exits(0).decides("crashed")
    session.shows("CRASHED (exit code 1: \"NameError: name 'oops3' is not defined\" (repaired 3 times))")
    [entry] = project.ledger()
    assert [crash[-23:] for crash in entry["crashes"]] == [f"'oops{n}' is not defined\"" for n in range(3)]


def test_what_is_mended_into_something_worthless_is_mended_again(project: Project) -> None:
    project = agent(project, "LR = oops", "LR = (", "LR = 0.04", "LR = 0.05")
    project.research("--autoresearch-trials=1").exits(0).decides("kept")
    reasons = project.ledger()[0]["crashes"]
    assert "'(' was never closed" in reasons[1]
    assert reasons[2] == "nothing was changed"


def test_memory_is_told_by_its_own_word(project: Project) -> None:
    project = agent(project, "LR = 0.04; raise MemoryError")
    session = project.research("--autoresearch-trials=1").exits(0).decides("out of memory")
    session.shows('OUT OF MEMORY (exit code 1: "MemoryError")', "1 out of memory")
    assert (project.path / "told").read_text().startswith('0 exit code 1: "MemoryError"')
    assert project.rows()[2][3] == "crash"


def test_nobody_has_to_mend(project: Project) -> None:
    project = agent(project, "LR = oops", "LR = 0.05", fix="return None")
    project.research("--autoresearch-trials=2").exits(0).decides("crashed", "kept")
    assert project.ledger()[0]["crashes"] == []


@pytest.mark.parametrize(
    ("fix", "reason"),
    [
        ("raise OSError('no\\nroute')", "no fix: OSError: no route"),
        ("return 'LR = 1'", "no fix: TypeError: a Proposal was expected, not 'LR = 1'"),
    ],
    ids=["error", "text"],
)
def test_a_fix_that_fails_gives_up_the_trial_alone(project: Project, fix: str, reason: str) -> None:
    session = agent(project, "LR = oops", "LR = 0.05", fix=fix).research("--autoresearch-trials=2").exits(0)
    session.decides("crashed", "kept").shows(f'is not defined" ({reason}))', "KEPT")


def test_a_crash_in_a_repeated_run_is_not_mended(pytester: pytest.Pytester) -> None:
    project = Project(pytester, NOISY)
    count = project.path / "count"
    once = f"from pathlib import Path; c = Path({str(count)!r}); n = c.exists(); c.touch(); assert not n"
    project = agent(project, f"LR = 0.275; {once}", "LR = 0.2", old="LR = 0.30")
    options = ("--autoresearch-trials=1", "--autoresearch-sandbox=none", "--autoresearch-confidence=0.95")
    project.research(*options).exits(0).decides("crashed")
    assert project.ledger()[0]["measurements"]
    assert not (project.path / "told").exists()


def test_a_fix_is_told_of_its_own_script_alone(project: Project) -> None:
    project = agent(project, "print('the first'); LR = oops", "LR = (", "LR = 0.05")
    project.research("--autoresearch-trials=1").exits(0).decides("kept")
    first, second = (project.path / "told").read_text().splitlines()
    assert "NameError: name 'oops'" in first
    assert second.endswith("| []")  # it was not run
