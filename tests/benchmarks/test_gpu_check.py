"""benchmarks/gpu.py, the check of the CUDA path: tried on a CPU. None of it has run on a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# All stages, but each enforcer once for a sealed run and once for a campaign: those take longest.
TRIED = {
    1: ["sandboxes", "ours", "upstream", "warm", "attention", "ours_with_masks"],
    2: ["sealed_bwrap", "campaign_landlock"],
}
MET = {
    "ours": {
        "tokens_per_second": 1.7e6,
        "peak_vram_mb": 44e3,
        "mfu_percent": 41.0,
        "first_step_s": 35.0,
        "sealed_minus_own": -4e-4,
    },
    "upstream": {"tokens_per_second": 1.7e6, "peak_vram_mb": 44e3, "mfu_percent": 40.0},
    "warm": {"first_step_s": 12.0},
    "sealed_bwrap": {"sealed_and_scored_s": 20.0},
    "campaign_bwrap": {"exit_code": 0},
    "campaign_landlock": {"exit_code": 0},
}
MISSED = {
    "ours": {
        "tokens_per_second": 1.6e6,
        "peak_vram_mb": 45e3,
        "mfu_percent": 39.0,
        "first_step_s": 35.1,
        "sealed_minus_own": -6e-4,
    },
    "upstream": MET["upstream"],
    "warm": {"first_step_s": 12.1},
    "sealed_bwrap": {"sealed_and_scored_s": 20.1},
    "campaign_bwrap": {"exit_code": 1},
    "campaign_landlock": {"exit_code": 4},
}
FAILED = {stage: {"failed": "exit code 1 after 3 s"} for stage in MET}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize(
    ("found", "verdict"), [(MET, "met"), (MISSED, "missed"), (FAILED, "not run"), ({}, "not run")]
)
def test_each_goal_is_met_missed_or_was_not_run(found: dict[str, Any], verdict: str) -> None:
    from gpu_check.goals import goals, table

    rows = goals(found)
    assert len(rows) == 9
    assert {row.verdict for row in rows} == {"-", verdict}
    assert table(rows).count(verdict) == 8


def test_a_constant_that_is_gone_is_an_error() -> None:
    from gpu_check.constants import changed

    source = "DEPTH = per_device(cuda=8, cpu=4)  # layers\nWIDTH = 2\n"
    assert changed(source, {"DEPTH": "1"}) == "DEPTH = 1  # layers\nWIDTH = 2\n"
    with pytest.raises(LookupError, match="HEADS"):
        changed(source, {"HEADS": "1"})


def test_the_speed_is_that_of_the_steps_after_the_first_ones(tmp_path: Path) -> None:
    from gpu_check.command import Command

    lines = [f"\\rstep {step:05d} (1.0%) | dt: 1ms | tok/sec: {speed:,} | epoch: 1"
             for step, speed in [(1, 10), (12, 10), (13, 2_000), (14, 6_000)]]  # fmt: skip
    code = f"print('{''.join(lines)}'); print('---'); print('val_bpb:   0.9'); raise SystemExit(3)"
    run = Command([sys.executable, "-c", code], tmp_path, {}, 20, tmp_path / "log")
    found = run.training()
    assert (found["tokens_per_second"], found["steps_timed"], found["val_bpb"]) == (3_000, 2, 0.9)
    assert found["failed"].startswith("exit code 3")  # beside the figures that it gave before


def test_a_command_is_ended_at_its_limit(tmp_path: Path) -> None:
    from gpu_check.command import Command

    began = time.monotonic()
    code = "print('begun', flush=True); import time; time.sleep(60)"
    run = Command([sys.executable, "-c", code], tmp_path, {}, 2, tmp_path / "log")
    assert time.monotonic() - began < 20
    assert run.text == ["begun"]
    assert run.found()["failed"].startswith("exit code -9")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_dry_run_finds_what_each_stage_is_to_find(tmp_path: Path) -> None:
    """It shows that the check keeps up with the project; its figures, from a CPU, mean nothing."""
    found = dry_run(tmp_path, 1) | dry_run(tmp_path, 2)
    assert set(found) == {"machine", "data", *TRIED[1], *TRIED[2]}
    assert "not run" in found.pop("upstream")  # whose scripts are no part of this project
    assert not [stage for stage in found.values() if "failed" in stage]
    assert "documents:" in found["data"]["shards"]
    assert found["data"]["platform"]["device"] == "cpu"
    for enforcer in ("none", "bwrap", "landlock"):
        inside = found["sandboxes"][enforcer]
        assert "not run" in inside or inside["fork_within_the_scorers_memory"]["product"] == 4096
    assert "not run" not in found["sandboxes"]["none"]
    for name in ("ours", "warm", "ours_with_masks"):
        assert found[name]["tokens_per_second"] > 0
        assert found[name]["first_step_s"] > 0
        assert found[name]["peak_vram_mb"] > 0
    ours = found["ours"]
    assert abs(ours["sealed_minus_own"]) < 1e-5
    assert ours["own"] == pytest.approx(ours["val_bpb"], abs=1e-6)
    assert ours["own"] == pytest.approx(ours["own_compiled"], abs=1e-5)
    assert ours["sealed"] == ours["sealed_all_probed"]
    assert found["attention"]["sdpa mask"] > 0
    if "not run" not in (sealed := found["sealed_bwrap"]):
        assert sealed["trust"] == "sealed"
        assert sealed["sealed_and_scored_s"] > 0
        assert sealed["overheads"]["startup_seconds"] > 0
    if "not run" not in (campaign := found["campaign_landlock"]):
        assert campaign["exit_code"] == 0
        assert "DISCARDED" in " ".join(campaign["said"])


def dry_run(folder: Path, part: int) -> dict[str, Any]:
    arguments = f"{part} --dry-run --seconds 300 --out out --work work --only".split()
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu.py", *arguments, *TRIED[part]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads((folder / "out" / f"part{part}.json").read_text())
    assert document["dry_run"]
    return document["stages"]
