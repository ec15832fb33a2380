"""Installing the plugin costs an ordinary run nothing, and nothing trains by accident."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.project import Project

HEAVY = (
    "anthropic", "datasets", "git", "gitdb", "numpy", "optuna", "psutil", "tiktoken", "torch",
    "pytest_autoresearch.campaign", "pytest_autoresearch.items", "pytest_autoresearch.ledger",
)  # fmt: skip


@pytest.fixture
def tested(project: Project) -> Project:
    """Return the project with a unit test beside its experiment."""
    project.write(tests__test_unit_py="def test_unit(): pass\n")
    project.research("--autoresearch-trials=0").exits(0)
    project.script.write_text("raise SystemExit('it was run')\n")
    return project


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (".",),
        ("tests",),
        ("-k", "unit"),
        ("-k", "not baseline"),
        ("-k", "not candidate"),
        ("-m", "not experiment"),
        ("--doctest-modules",),
        ("-n0",),
        ("-n1", "-k", "not baseline"),
        ("-p", "no:terminal"),
        ("-p", "no:timeout"),
    ],
    ids=lambda arguments: " ".join(arguments).replace("baseline", "that"),  # lest -k finds this test
)
def test_it_does_not_train(tested: Project, arguments: tuple[str, ...]) -> None:
    session = tested.pytest(*arguments).exits(0).hides("it was run", "experiment/train.py")
    if "no:terminal" not in arguments:
        session.shows("1 passed")


def test_it_does_not_train_from_inside_the_folder(tested: Project) -> None:
    tested.write(pytest_ini="[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest"],
        cwd=tested.script.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "2 deselected" in done.stdout


def test_it_imports_nothing_heavy(tested: Project) -> None:
    tested.write(
        tests__test_unit_py=f"""
            import sys

            def test_unit():
                assert not set({HEAVY!r}) & set(sys.modules)
        """
    )
    tested.pytest("tests").exits(0).shows("1 passed")


def test_a_project_without_experiment_is_not_disturbed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_unit="def test_unit(): pass")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
