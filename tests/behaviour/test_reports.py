"""What other tools read: JUnit, ``-q``, a log without a terminal."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from tests.project import Project

GAIN = ("LR = 0.04", "LR = 0.05")
EDITS = (GAIN, ("LR = 0.05", "LR = 0.09"), ("LR = 0.05", "LR = oops"))


def test_junit_holds_every_trial(project: Project) -> None:
    project.proposes(*EDITS).research("--junitxml=junit.xml", "-o", "junit_family=xunit1").exits(0)
    suite = ET.parse(project.path / "junit.xml").getroot()[0]  # noqa: S314 - our own file
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5", "failures": "0", "errors": "0", "skipped": "2",
    }  # fmt: skip
    first, kept, dropped, crashed, claim = suite
    assert first.get("name") == "baseline"
    kind = {"trust", "sandbox"}  # test_trust.py
    assert {name: value for name, value in properties(kept).items() if name not in kind} == {
        "trial": "1",
        "verdict": "kept",
        "reason": "0.9700, -0.0100 ± 0.0000 after 1 run",
        "description": "LR = 0.04 -> LR = 0.05",
        "val_bpb": "0.97",
    }
    assert properties(dropped)["val_bpb"] == "0.99"
    assert "val_bpb" not in properties(crashed)
    assert properties(dropped)["reason"] == "0.9900, +0.0200 ± 0.0000 after 1 run"
    assert float(properties(claim)["gain"] or 0) == pytest.approx(-0.01)
    assert dropped.find("skipped") is not None


def properties(case: ET.Element) -> dict[str | None, str | None]:
    """Return a test case's properties."""
    return {entry.get("name"): entry.get("value") for entry in case.iter("property")}


def test_quiet_gives_a_letter_a_trial(project: Project) -> None:
    project.proposes(*EDITS).research("-q").exits(0).shows(".Kdc.").hides("trial[")


def test_it_works_without_a_terminal_reporter(project: Project) -> None:
    project.proposes(GAIN).research("-p", "no:terminal").exits(0).decides("kept")
    project.pytest("-k", "baseline", "-p", "no:terminal").exits(0)


def test_it_works_without_pytest_timeout(project: Project) -> None:
    project.proposes(GAIN).research("-p", "no:timeout").exits(0).decides("kept")


def test_first_failure_options_do_not_stop_at_a_dropped_trial(project: Project) -> None:
    project.proposes(*EDITS).research("-x", "--maxfail=1").exits(0).decides("kept", "discarded", "crashed")


def test_prepare_says_what_it_does(project: Project) -> None:
    project.research("--autoresearch-trials=0").shows("prepare.py: nothing to fetch")


def test_a_prepare_that_fails_is_one_line(project: Project) -> None:
    project.script.with_name("prepare.py").write_text("raise SystemExit('the data is gone')\n")
    session = project.commit().research().exits(1)
    session.shows('prepare.py failed, exit code 1: "the data is gone"').hides("Traceback", "::baseline P")


def test_a_run_inherits_no_key(project: Project) -> None:
    project.write(
        experiment__train_py="""
            import os
            for name, value in os.environ.items():
                print(name, value)
            print("val_bpb: 1.0" if "secret" not in str(os.environ) else "leaked")
        """
    ).commit()
    project.research("--autoresearch-trials=0", ANTHROPIC_API_KEY="secret", GITHUB_TOKEN="secret").exits(0)  # noqa: S106


def test_a_narrow_screen_has_the_whole_reason(project: Project) -> None:
    # pytest itself shortens the reason of an expected failure, down to nothing.
    session = project.proposes(("LR = 0.04", "raise ValueError('of a rather long kind')")).research(
        COLUMNS="60"
    )
    session.shows('CRASHED (exit code 1: "ValueError: of a rather long kind")')
