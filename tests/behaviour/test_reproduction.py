"""``pytest -k baseline`` measures the committed script again."""

from __future__ import annotations

import pytest

from tests.project import SCRIPT, Project

NOISY = SCRIPT.replace("LR = 0.04", "import os\nLR = 0.04 + int(os.environ['AUTORESEARCH_SEED']) % 3 / 1000")


@pytest.fixture
def measured(project: Project) -> Project:
    """Return the project after its first measurement, with the record committed on its branch."""
    project.research("--autoresearch-trials=0").exits(0)
    return project


@pytest.mark.parametrize(
    "arguments", [("-k", "baseline"), ("experiment/train.py::baseline",), ("-m", "experiment")]
)
def test_it_passes_when_the_figure_reproduces(measured: Project, arguments: tuple[str, ...]) -> None:
    measured.pytest(*arguments).exits(0).shows("::baseline PASSED (0.9800, stored 0.9800")
    assert measured.is_clean()


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_it_fails_when_the_stored_figure_is_another(measured: Project, factor: float) -> None:
    records = measured.script.with_name("baseline.json")
    records.write_text(records.read_text().replace('"mean": 0.98', f'"mean": {0.98 * factor}'))
    session = measured.pytest("-k", "baseline").exits(1)
    session.shows(
        f"val_bpb 0.9800: the baseline of {0.98 * factor:.4f} does not reproduce", "stored", "measured"
    )
    session.shows("1 failed").hides("Traceback", "items.py")
    assert len(session.screen.splitlines()) < 25


def test_it_allows_for_the_noise_of_the_platform(pytester: pytest.Pytester) -> None:
    project = Project(pytester, script=NOISY)
    project.research("--autoresearch-trials=0").exits(0).shows("noise 0.0010 in 3 runs")
    project.pytest("-k", "baseline").exits(0)
    records = project.script.with_name("baseline.json")
    records.write_text(records.read_text().replace('"mean": 0.979', '"mean": 0.962'))
    project.pytest("-k", "baseline").exits(1).shows("0.9620 does not reproduce", "tolerance   0.011")


def test_a_platform_without_a_record_is_told_how_to_get_one(project: Project) -> None:
    session = project.pytest("-k", "baseline").exits(1)
    session.shows("no baseline is known for this platform", "--autoresearch-trials=0", "toy processor")


def test_a_script_that_was_committed_unmeasured_is_not_passed(measured: Project) -> None:
    measured.script.write_text(SCRIPT.replace("LR = 0.04", "LR = 0.05"))
    measured.commit("By hand")
    session = measured.pytest("-k", "baseline").exits(1)
    session.shows("no baseline is known for this version of train.py", "--autoresearch-trials=0")
    measured.research("--autoresearch-trials=0").exits(0).shows("PASSED (0.9700, noise 0.0000 in 3 runs)")
    measured.pytest("-k", "baseline").exits(0)


def test_another_budget_is_another_platform(measured: Project) -> None:
    prepare = measured.script.with_name("prepare.py")
    prepare.write_text(prepare.read_text().replace("time_budget:  1", "time_budget:  2"))
    measured.commit("Change the budget")
    measured.pytest("-k", "baseline").exits(1).shows("no baseline is known for this platform")


def test_the_working_tree_does_not_count(measured: Project) -> None:
    measured.script.write_text("raise SystemExit('the working tree was run')\n")
    measured.pytest("-k", "baseline").exits(0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"version": 4, "platf', "baseline.json cannot be read (JSONDecodeError"),
        ('{"version": 9, "platforms": []}', "version 9 of baseline.json is not known here"),
        ('{"version": 4, "platforms": [{}]}', "baseline.json cannot be read (KeyError"),
        ("[]", "baseline.json cannot be read (TypeError"),
    ],
    ids=["torn", "version", "empty", "list"],
)
def test_a_torn_record_is_one_line(measured: Project, text: str, reason: str) -> None:
    measured.script.with_name("baseline.json").write_text(text)
    measured.pytest("-k", "baseline").exits(1).shows(reason).hides("Traceback")


def test_the_loop_does_not_start_from_what_does_not_reproduce(measured: Project) -> None:
    records = measured.script.with_name("baseline.json")
    records.write_text(records.read_text().replace('"mean": 0.98', '"mean": 0.9'))
    measured.commit("Boast").proposes(("LR = 0.04", "LR = 0.05"))
    measured.research(tag="u").exits(1).shows("does not reproduce").hides("::trial")


def test_workers_do_not_share_a_machine(measured: Project) -> None:
    measured.pytest("-n2", "-k", "baseline").exits(4).shows("run it without -n")
