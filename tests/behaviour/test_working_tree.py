"""``pytest experiment/train.py`` measures the script of the working tree."""

from __future__ import annotations

import pytest

from tests.project import SCRIPT, Project


@pytest.fixture
def measured(project: Project) -> Project:
    """Return the project after its first measurement."""
    project.research("--autoresearch-trials=0").exits(0)
    return project


@pytest.mark.parametrize("argument", ["experiment/train.py", "experiment", "experiment/train.py::candidate"])
def test_a_better_script_passes(measured: Project, argument: str) -> None:
    measured.script.write_text(SCRIPT.replace("LR = 0.04", "LR = 0.05"))
    measured.pytest(argument).exits(0).shows("::candidate PASSED (0.9700, -0.0100").hides("::baseline")


def test_a_worse_script_fails_in_a_few_lines(measured: Project) -> None:
    measured.script.write_text(SCRIPT.replace("LR = 0.04", "LR = 0.01"))
    session = measured.pytest("experiment/train.py").exits(1)
    session.shows("val_bpb 1.0100: the baseline of 0.9800 is not beaten")
    session.shows("difference  +0.0300 ± 0.0000 after 1 run", "1 failed")
    session.hides("Traceback", "items.py")


def test_the_recorded_script_is_skipped(measured: Project) -> None:
    measured.pytest("experiment/train.py").exits(0).shows("train.py is the baseline", "1 skipped")


def test_it_says_how_to_get_a_record(project: Project) -> None:
    project.pytest("experiment/train.py").exits(1).shows("no baseline is known", "--autoresearch-trials=0")


def test_it_can_be_selected_by_name(measured: Project) -> None:
    measured.pytest("-k", "candidate").exits(0).shows("1 skipped", "1 deselected")


def test_nothing_is_written(measured: Project) -> None:
    before = measured.git("rev-parse", "HEAD"), measured.refs()
    measured.script.write_text(SCRIPT.replace("LR = 0.04", "LR = 0.05"))
    measured.pytest("experiment/train.py").exits(0)
    assert (measured.git("rev-parse", "HEAD"), measured.refs()) == before
    assert measured.git("status", "--porcelain", "--untracked-files=no") == " M experiment/train.py"
