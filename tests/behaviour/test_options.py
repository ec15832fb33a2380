"""Bad input is one clear line and exit code 4, before anything runs."""

from __future__ import annotations

import pytest

from tests.project import Project


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--autoresearch-trials=few",), "'few' is not a number of trials"),
        (("--autoresearch-trials=-1",), "'-1' is not a number of trials"),
        (("--autoresearch-hours=0",), "'0' is not a positive number"),
        (("--autoresearch-hours=nan",), "'nan' is not a positive number"),
        (("--autoresearch-time-budget=inf",), "'inf' is not a positive number"),
        (("--autoresearch-tag=a/b",), "'a/b' is not a tag"),
        (("--autoresearch-tag=--force",), "'--force' is not a tag"),
        (("--autoresearch-tag=",), "'' is not a tag"),
        (("--autoresearch-agent=nobody",), "there is no agent 'nobody'"),
        (("--autoresearch-sandbox=jail",), "invalid choice: 'jail'"),
        (("--autoresearch-confidence=2",), "'2' is not a probability between 0 and 1"),
        (("--autoresearch-confidence=1",), "'1' is not a probability between 0 and 1"),
        (("--autoresearch-confidence=x",), "'x' is not a probability between 0 and 1"),
        (("-n2",), "an experiment needs the machine to itself"),
        (("--lf",), "drop --lf and --ff"),
        (("--ff",), "drop --lf and --ff"),
        (("tests",), "drop tests"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_it_is_refused(project: Project, arguments: tuple[str, ...], reason: str) -> None:
    project.write(tests__test_unit_py="def test_unit(): pass\n")
    session = project.pytest("--autoresearch", "-p", "cacheprovider", *arguments).exits(4)
    session.shows(reason).hides("Traceback", "INTERNALERROR", "::baseline")
    assert project.git("branch", "--list", "autoresearch/*") == ""


@pytest.mark.parametrize("option", ["trials=3", "hours=1", "tag=x", "agent=tuner"])
def test_an_option_of_the_loop_needs_the_loop(project: Project, option: str) -> None:
    name = option.partition("=")[0]
    project.pytest(f"--autoresearch-{option}").exits(4).shows(f"--autoresearch-{name} needs --autoresearch")


@pytest.mark.parametrize(
    ("ini", "reason"),
    [
        ("autoresearch_direction = sideways", "'minimize' or 'maximize', not 'sideways'"),
        ("autoresearch_experiment = lost/train.py", "set autoresearch_experiment in the ini file"),
        ("autoresearch_token_price = abc", "autoresearch_token_price is a number from 0 on, not 'abc'"),
        ("autoresearch_token_price = -1", "autoresearch_token_price is a number from 0 on, not '-1'"),
        ("autoresearch_memory_limit = -1", "autoresearch_memory_limit is a positive number, not '-1'"),
        ("autoresearch_memory_limit = 0", "autoresearch_memory_limit is a positive number, not '0'"),
        ("autoresearch_memory_soft_limit = inf", "autoresearch_memory_soft_limit is a positive number, not"),
    ],
)
def test_an_ini_value_is_checked(project: Project, ini: str, reason: str) -> None:
    project.write(pytest_ini=f"[pytest]\n{ini}\n").commit()
    project.pytest("--autoresearch").exits(4).shows(reason).hides("Traceback")


def test_the_experiment_may_live_elsewhere(project: Project) -> None:
    project.git("mv", "experiment", "study")
    project.write(pytest_ini="[pytest]\nautoresearch_experiment = study/train.py\n").commit()
    project.research("--autoresearch-trials=0").exits(0).shows("study/train.py::baseline PASSED")
    project.pytest("-k", "baseline").exits(0).shows("study/train.py::baseline PASSED")


def test_the_experiment_can_be_named_with_the_loop(project: Project) -> None:
    project.research("--autoresearch-trials=0", "experiment/train.py").exits(0).shows("::baseline PASSED")


def test_help_needs_no_clean_tree(project: Project) -> None:
    project.script.write_text("LR = 1\n")
    project.pytest("--autoresearch", "--help").exits(0).shows("--autoresearch-trials=N")


def test_a_loop_without_its_start_is_refused(project: Project) -> None:
    project.research("-k", "nothing").exits(4).shows("the baseline was not measured")
    project.research("experiment/train.py::candidate").exits(4).shows("drop train.py")


def test_planning_changes_nothing(project: Project) -> None:
    for option in ("--collect-only", "--setup-plan", "--setup-only"):
        project.research(option).exits(0).shows("baseline")
    assert project.git("branch", "--list") == "* main"
    assert not project.refs()


def test_help_lists_every_option(project: Project) -> None:
    session = project.pytest("--help").exits(0)
    options = ("agent=NAME", "trials=N", "hours=H", "tag=TAG", "time-budget=SECONDS", "confidence=P", "prune")
    for name in options:
        session.shows(f"--autoresearch-{name}")
    session.shows(
        "autoresearch_experiment (string)", "autoresearch_metric (string)", "autoresearch_direction"
    )
    session.shows(
        *(f"autoresearch_{name} (string)" for name in ("token_price", "memory_soft_limit", "memory_limit"))
    )
    project.pytest("--markers").shows("@pytest.mark.experiment")


FULL = """
import errno, tempfile


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device", tempfile.gettempdir())


tempfile.mkdtemp = full
"""


@pytest.mark.parametrize("arguments", [("--autoresearch",), ("-k", "baseline")], ids=["research", "again"])
def test_no_room_to_try_a_sandbox_is_one_line(project: Project, arguments: tuple[str, ...]) -> None:
    project.write(conftest_py=FULL).commit()
    session = project.pytest(*arguments).exits(1).hides("Traceback", "INTERNALERROR")
    session.shows("the disk is full: No space left on device", "free some space, and start again")


@pytest.mark.parametrize("name", ["run.sh", "notebook.ipynb"])
def test_what_is_no_python_is_no_experiment(project: Project, name: str) -> None:
    project.write(pytest_ini=f"[pytest]\nautoresearch_experiment = {name}\n")
    (project.path / name).write_text('{"cells": [{"outputs": null}]}\n')
    project.commit()
    said = f"autoresearch_experiment is {name}, which is no Python script: name a .py file"
    for arguments in (["--autoresearch"], ["-k", "baseline"]):
        project.pytest(*arguments).exits(4).shows(said).hides("Traceback")
    project.write(tests__test_unit_py="def test_unit(): pass\n").pytest("tests").exits(0)
