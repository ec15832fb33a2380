"""The main job on the real experiment, in seconds instead of minutes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_autoresearch.source import constants
from tests.project import Project

ROOT = Path(__file__).parents[2]
BUDGET = "--autoresearch-time-budget=1"


@pytest.mark.slow
def test_the_tuner_researches_a_real_model(project: Project) -> None:
    shutil.rmtree(project.script.parent)
    measured = shutil.ignore_patterns("__pycache__", "baseline.json")  # by a campaign here, maybe
    shutil.copytree(ROOT / "experiment", project.script.parent, ignore=measured)
    prepare = project.script.with_name("prepare.py")
    text, count = re.subn(r"cpu=(256|65536)\)", lambda size: f"cpu={int(size[1]) // 4})", prepare.read_text())
    assert count == 2  # MAX_SEQ_LEN and EVAL_TOKENS: a thousand probes of shorter rows take less time
    prepare.write_text(text)
    # A model of two layers is sealed and scored in half the time.
    project.script.write_text(constants.replace(project.script.read_text(), {"DEPTH": "2"}, "cpu"))
    project.commit("Bring the real experiment")
    cache = str(project.path / ".autoresearch" / "cache")
    session = project.research(BUDGET, "--autoresearch-trials=1", AUTORESEARCH_CACHE=cache).exits(0)
    session.leaves_clean()
    session.shows("prepared in", "trust: sealed", "::baseline PASSED", "trial[0001-")
    [record] = project.records
    assert record["platform"]["time_budget"] == "1"
    assert record["platform"]["device"] == "cpu"
    assert 1.5 < project.ledger()[0]["incumbent_score"] < 4
    for entry in project.ledger():
        for run in entry["measurements"] + entry["incumbent_runs"]:
            assert run["steps"] > 1
            assert 0.3 < run["training_seconds"] < 1.5
            assert run["trust"] == "sealed"
    assert len(project.rows()) == 3
    # Three runs of one second know little of their own noise: sometimes they agree by chance.
    records = project.script.with_name("baseline.json")
    records.write_text(re.sub(r'"noise_std": [\d.e-]+', '"noise_std": 0.05', records.read_text()))
    project.pytest("-k", "baseline", BUDGET, AUTORESEARCH_CACHE=cache).exits(0).shows("::baseline PASSED")


def test_one_word_selects_the_reproduction_alone() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-k", "baseline"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if "::" in line]
    assert found == ["experiment/train.py::baseline"]
