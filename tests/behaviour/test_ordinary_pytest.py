"""Installing the plugin costs an ordinary run nothing, and nothing trains by accident."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.project import Project

HEAVY = (
    "anthropic", "datasets", "git", "gitdb", "numpy", "optuna", "psutil", "tiktoken", "torch",
    "pytest_autoresearch.campaign", "pytest_autoresearch.plugin.items", "pytest_autoresearch.records.trial",
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
    tested.is_warm = False
    tested.pytest("tests").exits(0).shows("1 passed")


def test_a_project_without_experiment_is_not_disturbed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_unit="def test_unit(): pass")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize("arguments", [("-n1", "-k", "candidate"), ("-k", "baseline"), ("-m", "experiment")])
def test_words_mean_nothing_without_an_experiment(
    pytester: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    pytester.makepyfile(test_unit="def test_candidate_and_baseline(): pass")
    result = pytester.runpytest_subprocess(*arguments)
    assert result.ret in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    result.stdout.no_fnmatch_line("*trust:*")


def test_words_mean_nothing_for_other_folders(tested: Project) -> None:
    tested.write(tests__test_unit_py="def test_baseline(): pass\n")
    tested.pytest("tests", "-n1", "-k", "baseline").exits(0).shows("1 passed").hides("trust:")


def test_a_link_to_the_script_is_not_imported(tested: Project) -> None:
    tested.write(pytest_ini="[pytest]\n")
    link = tested.path.with_name(tested.path.name + "-link")
    link.symlink_to(tested.path)
    (tested.path / "other").symlink_to(tested.path / "experiment")
    for argument in (str(link / "experiment" / "train.py"), "other/train.py"):
        tested.pytest(argument).exits(1).shows("::candidate FAILED").hides("during collection")
    tested.pytest(str(link)).exits(0).shows("1 passed").hides("it was run")


def test_a_script_beside_the_ini_is_not_trained_by_a_dot(pytester: pytest.Pytester) -> None:
    project = Project(pytester)
    project.git("mv", "experiment/train.py", "train.py")
    project.git("mv", "experiment/prepare.py", "prepare.py")
    project.write(
        pytest_ini="[pytest]\nautoresearch_experiment = train.py\n", test_unit_py="def test_(): pass\n"
    )
    project.commit().pytest(".").exits(0).shows("1 passed, 2 deselected")
    project.research("--autoresearch-trials=0", "--autoresearch-agent=tuner").exits(0).shows(
        "train.py::baseline P"
    )
