"""A campaign's refs and its branch, moved, torn or deleted: what can be worked on, and what is refused."""

from __future__ import annotations

import re

import pytest

from pytest_autoresearch.records.measurement import Measurement
from tests.project import Project

ALONE = ("--autoresearch-sandbox=none",)
NEXT = (*ALONE, "--autoresearch-trials=1")


def is_refused(project: Project, *reasons: str) -> str:
    """Assert that a session refuses before anything runs, and changes nothing; return its screen."""
    state = project.git("status", "--porcelain", "--branch"), project.git("ls-files", "--stage")
    session = project.research(*NEXT).exits(4).shows(*reasons)
    session.hides("Traceback", "INTERNALERROR", "prepare.py", "::baseline")
    assert (project.git("status", "--porcelain", "--branch"), project.git("ls-files", "--stage")) == state
    return session.screen


def test_a_lost_opening_is_refused(campaign: Project) -> None:
    campaign.git("update-ref", "-d", "refs/autoresearch/t/0000")
    is_refused(campaign, "refs/autoresearch/t/0000, the campaign's header, is gone: restore it, or choose")


@pytest.mark.parametrize("last", ["discarded", "kept"])
def test_a_lost_branch_is_refused_and_can_be_restored(campaign: Project, last: str) -> None:
    """As in a clone into which only the refs were fetched."""
    if last == "kept":
        campaign.git("update-ref", "-d", "refs/autoresearch/t/0002")
    campaign.git("checkout", "--quiet", "main")
    campaign.git("branch", "-D", "autoresearch/t")
    screen = is_refused(campaign, "branch autoresearch/t is gone, and its trials are there: run 'git branch")
    relief = re.search(r"'git (branch \S+ \S+)'", screen)
    assert relief is not None
    campaign.git(*relief[1].split())
    assert campaign.git("rev-parse", "autoresearch/t") == campaign.refs()["0001"]
    campaign.research(*NEXT).exits(0).shows("::baseline PASSED (0.9700, stored 0.9700", "::trial[000")


@pytest.mark.parametrize(
    ("ref", "of"), [("0000", "main"), ("0002", "HEAD^{tree}"), ("0002", "refs/autoresearch/t/0001")]
)
def test_a_ref_to_something_else_is_refused(campaign: Project, ref: str, of: str) -> None:
    campaign.git("update-ref", f"refs/autoresearch/t/{ref}", campaign.git("rev-parse", of))
    is_refused(
        campaign, f"refs/autoresearch/t/{ref} is no trial: commit", "git update-ref -d refs/autoresearch/t"
    )


@pytest.mark.parametrize(
    ("ref", "content"),
    [
        ("autoresearch/t/0000", ""),
        ("autoresearch/t/0002", "garbage\n"),
        ("autoresearch/t/0002", "1" * 40 + "\n"),
        ("heads/autoresearch/t", ""),
        ("heads/autoresearch/t", "1" * 40 + "\n"),
    ],
    ids=["opening", "trial", "trial-nowhere", "branch", "branch-nowhere"],
)
def test_a_torn_ref_is_refused(campaign: Project, ref: str, content: str) -> None:
    """As a power cut leaves one; it does not become a missing trial."""
    (campaign.path / ".git" / "refs" / ref).write_text(content)
    session = campaign.research(*NEXT).exits(4).hides("Traceback", "INTERNALERROR", "::baseline")
    session.shows(
        "fatal: missing object 1111" if content.startswith("1") else f"refs/{ref} is torn", "fetch it again"
    )
    assert (campaign.path / ".git" / "refs" / ref).read_text() == content


@pytest.mark.parametrize(
    "what", ["0000:experiment/train.py", "0002:experiment/train.py", "0002^{tree}", "0002"]
)
def test_a_lost_object_is_refused(campaign: Project, what: str) -> None:
    name = campaign.git("rev-parse", f"refs/autoresearch/t/{what}")
    (campaign.path / ".git" / "objects" / name[:2] / name[2:]).unlink()
    reasons = ("missing object",) if what == "0002" else ("is not all there: run 'git fetch", "'git fsck'")
    campaign.research(*NEXT).exits(4).shows(*reasons).hides("Traceback", "INTERNALERROR", "::baseline")


def test_a_gap_is_nothing(campaign: Project) -> None:
    campaign.git("update-ref", "-d", "refs/autoresearch/t/0001")
    campaign.research(*NEXT).exits(0).shows("::trial[0003-lr-0.05-lr-0.06] KEPT (0.9600, -0.0100")
    assert sorted(campaign.refs()) == ["0000", "0002", "0003", "claim"]
    assert [entry["incumbent_score"] for entry in campaign.ledger()] == [0.97, 0.97]


@pytest.mark.parametrize(
    "command",
    [
        ("reset", "--quiet", "--hard", "refs/autoresearch/t/0000"),
        ("revert", "--no-edit", "HEAD", "HEAD^"),
    ],
    ids=["reset", "revert"],
)
def test_a_branch_that_was_set_back_goes_on_from_there(campaign: Project, command: tuple[str, ...]) -> None:
    campaign.git(*command)
    campaign.proposes(*[("LR = 0.04", "LR = 0.045")] * 3)
    session = campaign.research(*NEXT).exits(0).shows("::baseline PASSED (0.9800, stored 0.9800")
    session.decides("kept", "discarded", "kept").leaves_clean()
    assert campaign.ledger()[-1]["incumbent_score"] == 0.98


@pytest.mark.parametrize(
    "ref", ["refs/heads/autoresearch", "refs/heads/autoresearch/t/x", "refs/autoresearch/t"]
)
def test_a_ref_in_the_way_is_refused(project: Project, ref: str) -> None:
    project.git("update-ref", ref, "HEAD")
    is_refused(project, f"{ref} leaves no room for the branch autoresearch/t: rename or delete it")
    assert project.git("branch", "--show-current") == "main"


def test_a_trial_that_was_picked_from_another_campaign_is_none_of_this_one(campaign: Project) -> None:
    campaign.git("checkout", "--quiet", "main")
    campaign.research(*ALONE, "--autoresearch-trials=0", tag="u").exits(0)
    campaign.git("cherry-pick", "--strategy-option=theirs", campaign.refs()["0002"])
    campaign.git("commit", "--quiet", "--amend", "--message", campaign.message("refs/autoresearch/t/0001"))
    session = campaign.research(*ALONE, "--autoresearch-trials=0", tag="u").hides("trial 1 was kept")
    session.exits(0)
    assert sorted(campaign.refs("u")) == ["0000"]


def test_figures_that_cannot_be_are_refused(campaign: Project) -> None:
    message = campaign.message("refs/autoresearch/t/0002")
    tree = campaign.git("rev-parse", "refs/autoresearch/t/0002^{tree}")
    before = campaign.git("rev-parse", "refs/autoresearch/t/0002")
    for old, new in (("Constants:", 'Usage: {"cost": "x"}\nConstants:'), ('"score": 0.98', '"score": "x"')):
        assert old in message
        forged = message.replace(old, new)
        commit = campaign.git("commit-tree", tree, "-p", f"{before}^", "-m", forged)
        campaign.git("update-ref", "refs/autoresearch/t/0002", commit)
        session = campaign.research(*ALONE).exits(4).hides("Traceback", "INTERNALERROR")
        session.shows("a ref below refs/autoresearch/t/ is no trial")


def test_a_log_of_another_name_is_left_alone(campaign: Project) -> None:
    blob = campaign.git("rev-parse", "refs/autoresearch/t/log/0001")
    campaign.git("update-ref", "refs/autoresearch/t/log/notes", blob)
    campaign.research(*ALONE, "--autoresearch-trials=0").exits(0)
    assert campaign.git("rev-parse", "refs/autoresearch/t/log/notes") == blob


def test_stored_figures_that_cannot_be_are_ignored() -> None:
    known = {"score": 1.5, "seed": 1, "wall_seconds": 1.0}
    odd = {"memory_mb": 1e308, "steps": -1, "training_tokens": "many", "training_seconds": float("nan")}
    assert Measurement.from_json({**known, **odd}) == Measurement(**known)
    for score in (float("nan"), float("inf"), -1e308, 10**400, "1.5", None):
        with pytest.raises(ValueError, match="is no score"):
            Measurement.from_json({**known, "score": score})
