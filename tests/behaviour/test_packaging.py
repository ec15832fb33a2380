"""What is shipped, and what the README, the changelog and CI say of it, are the same."""

from __future__ import annotations

import email.parser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import pytest_autoresearch
from tests.project import Project

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pytest_autoresearch"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """Build the wheel and return its root."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [file] = folder.glob("*.whl")
    return zipfile.Path(file)


def metadata(wheel: zipfile.Path, name: str) -> str:
    [folder] = (entry for entry in wheel.iterdir() if entry.name.endswith(".dist-info"))
    return (folder / name).read_text(encoding="utf-8")


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def first_columns(pattern: str) -> list[str]:
    """Return the code in the first column of the README's tables, where it matches *pattern*."""
    return re.findall(rf"^\| `({pattern})` \|", readme(), re.MULTILINE)


def ci(folder: Path, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of ``.ci/run`` beside a README of this *text*."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci" / "run")
    (folder / "README.md").write_text(text, encoding="utf-8")
    command = ["bash", str(folder / ".ci" / "run")]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_pytest_finds_the_plugin() -> None:
    entries = importlib.metadata.entry_points(group="pytest11", name="autoresearch")
    assert {entry.value for entry in entries} == {"pytest_autoresearch.plugin.hooks"}


@pytest.mark.skipif("TOX_ENV_NAME" not in os.environ, reason="only tox builds a wheel")
def test_tox_tests_the_wheel() -> None:
    assert Path(pytest_autoresearch.__file__).parent != PACKAGE


def test_the_wheel_is_the_whole_package(wheel: zipfile.Path) -> None:
    assert isinstance(wheel.root, zipfile.ZipFile)
    entries = (entry for entry in wheel.root.infolist() if not entry.is_dir())
    shipped = {entry.filename for entry in entries if ".dist-info/" not in entry.filename}
    files = (file for file in PACKAGE.rglob("*") if file.is_file() and file.parent.name != "__pycache__")
    assert shipped == {file.relative_to(ROOT).as_posix() for file in files}
    assert "pytest_autoresearch/py.typed" in shipped


def test_the_core_is_light(wheel: zipfile.Path) -> None:
    requirements = email.parser.Parser().parsestr(metadata(wheel, "METADATA")).get_all("Requires-Dist", [])
    core = {re.split(r"[^\w-]", line)[0] for line in requirements if "extra ==" not in line}
    assert core == {"pytest", "pytest-timeout", "gitpython", "psutil"}


def test_the_wheel_has_the_entry_point_and_the_license(wheel: zipfile.Path) -> None:
    assert "autoresearch = pytest_autoresearch.plugin.hooks" in metadata(wheel, "entry_points.txt")
    assert metadata(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_changelog_begins_with_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


def test_ci_runs_the_command_of_the_readme(tmp_path: Path) -> None:
    command = "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox"
    assert f"\n<!-- the test command -->\n```sh\n{command}\n```\n" in readme()
    fake = tmp_path / "bin" / "python3"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "python3 $*"\nexit 7\n')
    fake.chmod(0o755)
    done = ci(tmp_path, readme(), PATH=f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 7
    assert done.stdout == "python3 -m venv .venv\n"


@pytest.mark.parametrize("code", [0, 1])
def test_ci_ends_with_the_summary_of_pytest(tmp_path: Path, code: int) -> None:
    summary = "=========== 3 passed, 1 skipped in 61.50s (0:01:01) ==========="
    script = f"echo '{summary}'\necho 'py: done (62 seconds)'\nexit {code}\n"
    done = ci(tmp_path, f"<!-- the test command -->\n```sh\n{script}```\n")
    assert done.returncode == code
    assert done.stdout.splitlines()[-1] == summary


def test_ci_does_not_pass_without_a_command(tmp_path: Path) -> None:
    done = ci(tmp_path, "```sh\ntrue\n```\n")
    assert done.returncode == 1
    assert "not found" in done.stderr


def test_the_readme_has_the_options_of_the_help(project: Project) -> None:
    helped = re.findall(r"^\s+(--autoresearch\S*)", project.pytest("--help").exits(0).screen, re.MULTILINE)
    assert helped
    assert first_columns(r"--autoresearch[^`]*") == helped


def test_the_readme_has_the_ini_values_of_the_help(pytester: pytest.Pytester, project: Project) -> None:
    helped = re.findall(r"^\s+(autoresearch_\w+) ", project.pytest("--help").exits(0).screen, re.MULTILINE)
    assert helped
    assert first_columns(r"autoresearch_\w+") == helped
    config = pytester.parseconfig()
    told = dict(re.findall(r"^\| `(autoresearch_\w+)` \| `(\S+)` \|", readme(), re.MULTILINE))
    assert told == {name: str(config.getini(name) or "none").lower() for name in helped}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_do_little(path: Path) -> None:
    workflow: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    more = {name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
    assert more == ({"push": {"contents": "write"}} if path.stem == "nightly" else {})
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    for step in steps:
        assert "${{" not in step.get("run", "")  # an expression there is code that somebody else wrote
        assert re.fullmatch(r"actions/[\w/-]+@[0-9a-f]{40}", step.get("uses", "actions/x@" + 40 * "0"))
