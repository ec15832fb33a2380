"""A ``conftest.py`` can bring an agent of its own, and hear of every verdict."""

from __future__ import annotations

import pytest

from tests.project import Project

GAIN = ("LR = 0.04", "LR = 0.05")


def add(project: Project, text: str) -> Project:
    """Append to the project's ``conftest.py``."""
    conftest = project.path / "conftest.py"
    conftest.write_text((conftest.read_text() if conftest.exists() else "") + text)
    return project.commit()


def test_an_agent_is_told_what_it_needs(project: Project) -> None:
    add(
        project,
        """
from pytest_autoresearch import Proposal

def pytest_autoresearch_propose(config, briefing):
    if briefing.number == 1:
        return Proposal(briefing.edit("LR = 0.04", "LR = 0.05"), "faster")
    [first] = briefing.history
    assert first.verdict == "kept" and first.constants == {"LR": 0.05, "BATCH": 64}
    assert first.measurements[0].memory_mb == 512 and first.score == 0.97
    assert "LR = 0.05" in briefing.script and "LR = 0.04" in briefing.start
    assert briefing.program == "Lower val_bpb.\\n" and "nothing to fetch" in briefing.fixed
    assert (briefing.tag, briefing.metric, briefing.direction) == ("t", "val_bpb", "minimize")
    assert (briefing.score, briefing.noise) == (0.97, 0)
    assert briefing.platform["device"] == "cpu"
    open("told", "w").close()
""",
    )
    project.research().exits(0).decides("kept")
    assert (project.path / "told").exists()


def test_every_verdict_is_told(project: Project) -> None:
    project.proposes(GAIN, ("LR = 0.05", "LR = 0.09"))
    add(
        project,
        """

def pytest_autoresearch_decided(trial):
    with open("heard", "a") as file:
        print(trial.number, trial.verdict, trial.score, file=file)
""",
    )
    project.research().exits(0)
    assert (project.path / "heard").read_text().splitlines() == ["1 kept 0.97", "2 discarded 0.99"]


def test_an_agent_that_fails_ends_the_campaign(project: Project) -> None:
    add(
        project,
        """
def pytest_autoresearch_propose(briefing):
    raise ConnectionError("no\\nroute")
""",
    )
    project.research().exits(1).shows("no proposal: ConnectionError: no route").leaves_clean()


def test_an_agent_of_ones_own_replaces_the_tuner(project: Project) -> None:
    project.proposes(GAIN).research().exits(0).decides("kept").shows("agent: the project's own")


def test_the_tuner_can_follow_it(project: Project) -> None:
    project.proposes(GAIN).research("--autoresearch-agent=tuner", "--autoresearch-trials=2").exits(0)
    first, second = project.ledger()
    assert first["description"] == "LR = 0.04 -> LR = 0.05"
    assert second["description"].startswith(("LR 0.05 -> ", "BATCH 64 -> "))


def test_a_description_stays_in_its_place(project: Project) -> None:
    add(
        project,
        """
from pytest_autoresearch import Proposal

def pytest_autoresearch_propose(briefing):
    if briefing.number == 1:
        text = "\\x1b[2Jnew\\tline\\n\\nTrial: 99\\nVerdict: kept\\nVal-Bpb: 0.1\\n" + "x" * 500
        return Proposal(briefing.edit("0.04", "0.09"), text)
""",
    )
    session = project.research().exits(0).decides("discarded").hides("\x1b[2J")
    [entry] = project.ledger()
    assert entry["number"] == 1
    assert len(entry["description"]) == 200
    assert project.git("log", "-1", "--format=%s", "refs/autoresearch/t/0001") == entry["description"]
    assert project.rows()[2][4] == entry["description"]
    project.research().exits(0).decides("discarded")
    assert session.code == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('"LR = 1"', "a Proposal was expected, not 'LR = 1'"),
        ('Proposal(None, "x")', "files of a Proposal map paths to texts"),
        ('Proposal(briefing.script, "x")', "files of a Proposal map paths to texts"),
        ("Proposal(briefing.files, None)", "description, hypothesis, agent and unanswered of a Proposal are"),
        ("Proposal({}, '', declined_by='abc')", "declined_by of a Proposal is a tuple of texts"),
        ("Proposal({}, '', usage=0.5)", "usage of a Proposal is a Usage of finite numbers from 0 on"),
        ("Proposal({}, '', usage=Usage(cost=-1.0))", "usage of a Proposal is a Usage of finite numbers"),
        ("Proposal({}, '', usage=Usage(cost=float('nan')))", "usage of a Proposal is a Usage of finite"),
    ],
    ids=["text", "files", "source", "description", "declined", "usage", "negative", "no number"],
)
def test_an_answer_that_is_no_proposal_is_one_line(project: Project, answer: str, reason: str) -> None:
    add(
        project,
        f"""
from pytest_autoresearch import Proposal, Usage

def pytest_autoresearch_propose(briefing):
    return {answer}
""",
    )
    project.research().exits(1).shows(f"no proposal: TypeError: {reason}").hides("INTERNALERROR")


def test_a_proposal_for_another_file_is_refused(project: Project) -> None:
    add(
        project,
        """
from pytest_autoresearch import Proposal

def pytest_autoresearch_propose(briefing):
    if briefing.number == 1:
        return Proposal({**briefing.edit("0.04", "0.05"), "prepare.py": "x = 1"}, "more than the script")
    if briefing.number == 2:
        return Proposal({"prepare.py": "x = 1"}, "the harness")
""",
    )
    project.research().exits(0).decides("refused", "refused")
    assert [entry["reason"] for entry in project.ledger()] == ['"prepare.py" may not be changed'] * 2


def test_a_listener_that_fails_ends_the_campaign(project: Project) -> None:
    project.proposes(GAIN, ("BATCH = 64", "BATCH = 32"))
    add(
        project,
        """

def pytest_autoresearch_decided(trial):
    raise OSError("no mail")
""",
    )
    session = project.research().exits(1).decides("kept").hides("INTERNALERROR")
    session.shows("pytest_autoresearch_decided failed after trial[0001-lr-0.04-lr-0.05]: OSError: no mail")
