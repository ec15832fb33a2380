"""A campaign goes on where it stopped, on the terms that it was started with."""

from __future__ import annotations

import json

import pytest

from tests.project import Project

GAIN = ("LR = 0.04", "LR = 0.05")
LOSS = ("LR = 0.05", "LR = 0.30")
SECOND = ("BATCH = 64", "BATCH = 32")


def test_a_tag_goes_on_with_everything_that_is_known(project: Project) -> None:
    edits = GAIN, LOSS, SECOND
    project.proposes(*edits).research(tag="whole").exits(0)
    project.git("checkout", "--quiet", "main")
    for trials in (1, 1, 1):
        project.research(f"--autoresearch-trials={trials}").exits(0)
    assert [entry["number"] for entry in project.ledger()] == [1, 2, 3]
    for entry, other in zip(project.ledger(), project.ledger("whole"), strict=True):
        same = {"tree", "verdict", "constants", "description", "digest"}
        assert {key: entry[key] for key in same} == {key: other[key] for key in same}
    assert project.subjects()[0].startswith("Claim")


def test_the_branch_names_the_campaign(project: Project) -> None:
    project.proposes(GAIN, SECOND).research("--autoresearch-trials=1").exits(0)
    assert project.git("branch", "--show-current") == "autoresearch/t"
    session = project.pytest("--autoresearch").exits(0).decides("kept", "kept")
    session.shows("campaign: autoresearch/t")


def test_the_tuner_proposes_what_it_would_have(project: Project) -> None:
    options = ("--autoresearch-agent=tuner",)
    project.research(*options, "--autoresearch-trials=6").exits(0)
    known = [entry["constants"] for entry in project.ledger()]
    project.git("checkout", "--quiet", "main")
    project.git("branch", "-D", "autoresearch/t")
    for ref in project.git("for-each-ref", "--format=%(refname)", "refs/autoresearch").split():
        project.git("update-ref", "-d", ref)
    (project.path / "results.tsv").unlink()
    for seed in "123":  # whatever the order of sets
        project.research(*options, "--autoresearch-trials=2", PYTHONHASHSEED=seed).exits(0)
    assert [entry["constants"] for entry in project.ledger()] == known


@pytest.mark.parametrize(
    ("ini", "options", "said"),
    [
        (
            "autoresearch_metric = loss",
            (),
            "started with metric val_bpb, now it is loss",
        ),
        ("autoresearch_direction = maximize", (), "started with direction minimize, now it is maximize"),
        (
            "autoresearch_experiment = experiment/other.py",
            (),
            "started with experiment experiment/train.py, now it is experiment/other.py",
        ),
        ("", ("--autoresearch-time-budget=7",), "started with time_budget 1, now it is 7"),
    ],
    ids=["metric", "direction", "experiment", "budget"],
)
def test_other_terms_are_refused(project: Project, ini: str, options: tuple[str, ...], said: str) -> None:
    prepare = project.script.with_name("prepare.py")
    told = 'import os\n    print("time_budget: ", os.environ.get("AUTORESEARCH_TIME_BUDGET", "1"))'
    prepare.write_text(prepare.read_text().replace('print("time_budget:  1")', told))
    project.write(experiment__other_py="LR = 1\nprint('val_bpb: 1')\n").commit()
    project.research("--autoresearch-trials=0").exits(0)
    before = project.git("for-each-ref")
    project.write(pytest_ini=f"[pytest]\n{ini}\n").git("add", "pytest.ini")
    project.git("commit", "--quiet", "--message=Change the terms")
    project.git("checkout", "--quiet", "-B", "main")
    project.git("checkout", "--quiet", "-B", "autoresearch/t", before.split()[0])
    project.git("checkout", "--quiet", "main")
    before = project.git("for-each-ref")
    session = project.research(*options).exits(4).hides("Traceback", "::baseline PASSED")
    session.shows(f"campaign t was {said}: undo that, or choose another --autoresearch-tag")
    assert project.git("for-each-ref") == before


def test_another_trust_is_refused_by_name(project: Project) -> None:
    project.research("--autoresearch-trials=0").exits(0)
    opening = project.message("refs/autoresearch/t/0000")
    sealed = opening.replace('"trust": "reported"', '"trust": "sealed"')
    assert sealed != opening
    tree = project.git("rev-parse", "refs/autoresearch/t/0000^{tree}")
    commit = project.git("commit-tree", tree, "-p", "main", "-m", sealed)
    project.git("update-ref", "refs/autoresearch/t/0000", commit)
    (project.path / "results.tsv").unlink()  # which names the opening
    project.research().exits(4).shows("t was started with trust sealed, now it is reported")


def test_a_header_says_what_the_campaign_was_started_with(project: Project) -> None:
    project.research("--autoresearch-trials=0").exits(0)
    message = project.message("refs/autoresearch/t/0000").splitlines()
    assert {
        "Experiment: experiment/train.py",
        "Editable: train.py",
        "Metric: val_bpb",
        "Direction: minimize",
    } <= set(message)
    [platform] = [line.removeprefix("Platform: ") for line in message if line.startswith("Platform: ")]
    assert json.loads(platform)["device_name"] == "toy processor"


def test_a_repository_that_git_has_packed_goes_on(project: Project) -> None:
    project.proposes(GAIN, LOSS, SECOND).research("--autoresearch-trials=2").exits(0)
    known = project.ledger()
    project.git("gc", "--quiet", "--prune=now")
    project.research().exits(0).decides("kept", "discarded", "kept").hides("recovered")
    assert project.ledger()[:2] == known
    assert "val_bpb" in project.git("show", "refs/autoresearch/t/log/0002")


# Their ids have no "baseline": -k would choose them for a reproduction.
@pytest.mark.parametrize("metric", ["usage", "baseline", "platform", "trial"], ids=lambda word: word[0])
def test_a_metric_may_be_called_like_what_a_commit_tells(project: Project, metric: str) -> None:
    project.script.write_text(project.script.read_text().replace("val_bpb:", f"{metric}:"))
    project.write(
        pytest_ini=f"[pytest]\nautoresearch_metric = {metric}\n", _gitignore="__pycache__/\nresults.tsv\n"
    )
    project.proposes(GAIN, LOSS)
    for verdicts in (["kept"], ["kept", "discarded"]):
        project.research("--autoresearch-trials=1").exits(0).decides(*verdicts)
