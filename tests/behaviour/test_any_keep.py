"""The project's own tests pass whatever a campaign has kept in its experiment."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_autoresearch.agents.tuner.space import space
from pytest_autoresearch.source import constants
from tests.project import Project

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"\d+\.\d+|\d+\*\*\d+|\d+")
PROFILES = "cpu", "cuda"


def another(text: str) -> str:
    """Return another value than the one written as *text*: half of a whole number, nine tenths of a share."""
    if not NUMBER.fullmatch(text):
        return '"SL"'  # the only choice of words: a pattern of attention windows
    if "**" in text:
        base, exponent = text.split("**")
        return f"{base}**{int(exponent) - 1}"
    if "." in text:
        return f"{0.9 * float(text) or 0.1:.3g}"
    return str(max(int(text) // 2, 1))


def changed(script: str) -> str:
    """Return *script* with every constant that the tuner may move, of both profiles, moved."""
    for device in PROFILES:
        tunable = {axis.name for axis in space(script, device)}
        found = {each.name: each.text for each in constants.find(script, device) if each.name in tunable}
        assert len(found) > 15
        script = constants.replace(script, {name: another(text) for name, text in found.items()}, device)
    return script


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this project in which a campaign has moved everything, and measured it."""
    folder = tmp_path_factory.mktemp("kept")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listing.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    script = folder / "experiment" / "train.py"
    before = script.read_text(encoding="utf-8")
    script.write_text(changed(before), encoding="utf-8")
    for device in PROFILES:
        then, now = constants.values(before, device), constants.values(script.read_text("utf-8"), device)
        assert {name for name in then if then[name] != now[name]} == {
            axis.name for axis in space(before, device)
        }
    script.with_name("baseline.json").write_text("of another version\n", encoding="utf-8")
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@localhost")
    for command in (["init", "-q"], ["add", "--all"], [*who, "commit", "-q", "-m", "Keep something"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_whole_suite_is_collected(kept: Path) -> None:
    done = pytest_in(kept, "--collect-only", "tests")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_every_test_that_reads_the_experiment_passes(kept: Path) -> None:
    readers = ["tests/experiment/test_training.py", "tests/runs/test_devices.py"]
    one = "tests/behaviour/test_end_to_end.py::test_one_word_selects_the_reproduction_alone"
    done = pytest_in(kept, *readers, one)
    assert done.returncode == 0, done.stdout


def test_a_reproduction_goes_on_beside_tests_that_cannot_be_collected(project: Project) -> None:
    project.research("--autoresearch-trials=0").exits(0)
    project.write(tests__test_broken_py="import there_is_no_such_module\n")
    session = project.pytest("-k", "baseline").exits(1)
    session.shows("::baseline PASSED", "there_is_no_such_module")
