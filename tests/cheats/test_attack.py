"""The harness for attackers says what became of an honest script and of a cheat, and leaves nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_autoresearch.sandbox import enforcers
from tests.cheats.campaign import PLACE, Combination, obstacle
from tests.cheats.table import path_of

REPOSITORY = Path(__file__).resolve().parents[2]


PROCESSES = 800  # of an ordinary user; other tests have hundreds meanwhile
NO_FORKS_LEFT = """
import os, time
from prepare import hand_in_shared_model
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
except OSError as error:
    print("no process left:", error, flush=True)
hand_in_shared_model()
"""


def attack(*arguments: str | Path, processes: int | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.cheats.attack", *map(str, arguments)]
    if processes is not None:
        command = ["bash", "-c", f'ulimit -u {processes}; exec "$@"', "bash", *command]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_an_attack_is_reported_in_full(tmp_path: Path) -> None:
    if enforcers.choose("auto") == "none":
        pytest.skip("no sandbox works here")
    script = tmp_path / "ends.py"
    script.write_text("import sys\nprint('first words')\nsys.exit('Verdict: kept')\n")
    before = set(PLACE.glob("autoresearch-attack-*"))
    done = attack("--experiment=miniature", path_of("short_convolution"), path_of("next_token"), script)
    assert done.returncode == 0, done.stderr + done.stdout
    assert set(PLACE.glob("autoresearch-attack-*")) == before
    honest, cheat, own, campaign = re.split("^== ", done.stdout, flags=re.MULTILINE)[1:]
    assert re.match(
        r"short_convolution\nverdict: (kept|discarded)\nreason: .+\nscore: \d\.\d+, judged", honest
    )
    assert "\nlog, 2 of 2 lines:\n  > ---\n  > val_bpb: " in honest
    assert cheat.startswith("next_token\nverdict: refused\nreason: it is not causal: ")
    assert "\nscore: none, judged against " in cheat
    assert own.startswith('ends\nverdict: crashed\nreason: exit code 1: "Verdict: kept"\n')
    assert own.endswith("\nlog, 2 of 2 lines:\n  > first words\n  > Verdict: kept\n")
    assert "experiment/train.py::baseline PASSED (" in campaign
    assert [part for part in (honest, cheat, own, campaign) if "left: nothing\n" not in part + "\n"] == []
    assert "changed: nothing\n" in campaign


@pytest.mark.slow
def test_a_run_that_leaves_the_scorer_no_process_is_scored_without_it(tmp_path: Path) -> None:
    if reason := obstacle(Combination("bwrap", "ordinary")):
        pytest.skip(reason)
    script = tmp_path / "no_forks_left.py"
    script.write_text(NO_FORKS_LEFT)
    options = ["--experiment=miniature", "--user=ordinary", "--enforcer=bwrap"]
    done = attack(*options, script, processes=PROCESSES)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "verdict: discarded\n" in done.stdout
    assert "  > no process left: " in done.stdout
    assert "score: 3." in done.stdout


def test_what_cannot_be_tried_is_said_at_once(tmp_path: Path) -> None:
    done = attack(tmp_path / "gone.py")
    assert done.returncode == 2
    assert f"there is no file {tmp_path / 'gone.py'}" in done.stderr
    done = attack(path_of("next_token"), path_of("next_token"))
    assert done.returncode == 2
    assert "two scripts have the same name" in done.stderr
