"""Memory: a hard limit ends a run, a soft one is only spoken of."""

from __future__ import annotations

import re

import pytest

from tests.project import SCRIPT, Project

HUNGRY = "LR = 0.05\nimport time\nhoard = b'x' * (300 << 20)\ntime.sleep(60)"
# In a session of its own, as workers of a data loader may be.
CHILD = """LR = 0.05
import subprocess, sys
hoard = "import time; hoard = b'x' * (300 << 20); time.sleep(60)"
subprocess.run([sys.executable, "-c", hoard], start_new_session=True)
"""
PEAK = "peak_vram_mb:     512.0"
TELLING = SCRIPT.replace(f'"{PEAK}"', '"peak_vram_mb:", MEMORY').replace("BATCH", "MEMORY = 512\nBATCH", 1)


def limited(project: Project, **limits: int) -> Project:
    lines = [f"autoresearch_memory_{name} = {limit}\n" for name, limit in limits.items()]
    return project.write(pytest_ini="[pytest]\n" + "".join(lines))


def test_a_run_beyond_the_limit_is_ended(project: Project) -> None:
    project.script.write_text(SCRIPT.replace(PEAK, "peak_vram_mb:     64.0"))
    limited(project, limit=200).proposes(
        ("LR = 0.04", HUNGRY),
        ("LR = 0.04", CHILD),
        ("peak_vram_mb:     64.0", "peak_vram_mb:     900.0"),
        ("LR = 0.04", "LR = 0.05"),
    )
    session = project.research().exits(0).decides(*["out of memory"] * 3, "kept")
    session.shows(
        *["trial[0001", "OUT OF MEMORY (it used ", " MB of memory, its limit is 200 MB)"],
        *["trial[0002", "OUT OF MEMORY (it used ", " MB of memory, its limit is 200 MB)"],
        *["trial[0003", "OUT OF MEMORY (it used 900 MB of memory, its limit is 200 MB)"],
    )
    used = [int(figure) for figure in re.findall(r"it used (\d+) MB of memory, its", session.screen)]
    assert all(200 < figure < 1000 for figure in used), used
    assert not any(entry["measurements"] for entry in project.ledger()[:3])


def test_a_start_beyond_the_limit_begins_nothing(project: Project) -> None:
    session = limited(project, limit=400).commit().research().exits(1)
    session.shows("it used 512 MB of memory, its limit is 400 MB").hides("Traceback", "::trial")


@pytest.mark.parametrize(("limits", "limit"), [({}, 768), ({"soft_limit": 600}, 600)], ids=["own", "asked"])
def test_more_than_the_soft_limit_is_kept_and_spoken_of(
    pytester: pytest.Pytester, limits: dict[str, int], limit: int
) -> None:
    project = Project(pytester, script=TELLING)
    limited(project, **limits).proposes(
        ("LR = 0.04", "LR = 0.05"), ("MEMORY = 512\nBATCH = 64", "MEMORY = 900\nBATCH = 32")
    )
    session = project.research().exits(0).decides("kept", "kept")
    modest, greedy = (entry["reason"] for entry in project.ledger())
    assert "MB" not in modest
    assert greedy.endswith(f", 900 MB of memory, {limit} is the soft limit")
    session.shows(f"memory: 512 MB -> 900 MB, soft limit {limit} MB, which is over")


def test_an_agent_is_told_of_the_limits(project: Project) -> None:
    limited(project, limit=4000, soft_limit=600).proposes()
    conftest = project.path / "conftest.py"
    told = "print(briefing.memory_mb, briefing.memory_soft_limit_mb, briefing.memory_limit_mb)"
    conftest.write_text(conftest.read_text().replace("briefing):", f"briefing):\n    {told}"))
    project.commit().research("-s").exits(0).shows("512.0 600.0 4000.0")
