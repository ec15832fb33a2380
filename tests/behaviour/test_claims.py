"""What a campaign claims in the end are fresh runs of its start and of its incumbent, side by side."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import COUNTED, NOISY, Project

GAIN, MORE = ("LR = 0.04", "LR = 0.05"), ("BATCH = 64", "BATCH = 32")
LOSS = ("LR = 0.04", "LR = 0.01")
CLAIM = "refs/autoresearch/t/claim"


def test_a_claim_is_free_of_the_luck_of_the_kept(pytester: pytest.Pytester) -> None:
    project = Project(pytester, script=NOISY)
    counted = COUNTED.format(file=str(project.path / "count"))
    (project.path / ".gitignore").write_text("__pycache__/\ncount\n")
    lucky = f"LR = 0.10\n{counted}LR -= 0.04 if before == 0 else 0"
    session = project.proposes(("LR = 0.30", lucky)).research("--autoresearch-sandbox=none")
    session.exits(0).decides("kept")
    session.shows("KEPT (0.9600, ", "::claim PASSED (val_bpb -0.2000 ± 0.0", " in 2 fresh runs each)")
    session.shows("val_bpb 1.2000 -> 1.0000 (-0.2000 ± 0.0", "in 2 fresh runs each, side by side")
    session.hides("no verdict saw").leaves_clean()
    [record] = project.records
    claim = record["claim"]
    assert claim["gain"] == pytest.approx(-0.2)
    assert claim["margin"] > 0.01
    assert [run["score"] for run in claim["start"]] == [1.2, 1.2]
    assert [run["score"] for run in claim["final"]] == [1.0, 1.0]
    seeds = [run["seed"] for run in claim["start"]]
    assert seeds == [run["seed"] for run in claim["final"]]
    seen = [run["seed"] for run in project.ledger()[0]["measurements"]]
    assert len({*seeds, 1, 2, 3, *seen}) == 6  # none that anybody has seen
    assert record["start"] == project.git("rev-parse", "refs/autoresearch/t/0000^")
    message = project.message(CLAIM)
    assert message.startswith("Claim val_bpb -0.2000 ± 0.0")
    assert message.count("\nMeasurement: ") == message.count("\nIncumbent-Run: ") == 2
    assert project.refs()["claim"] == project.git("rev-parse", "autoresearch/t")
    assert project.git("diff", "--name-only", "HEAD^", "HEAD") == "experiment/baseline.json"


def test_what_gains_nothing_claims_nothing(project: Project) -> None:
    session = project.proposes(LOSS).research().exits(0).decides("discarded").counts("1 passed, 1 discarded")
    session.hides("fresh runs", "believed, not claimed")
    assert "claim" not in project.refs()
    assert "claim" not in project.records[0]


def test_an_interrupted_campaign_claims_when_it_is_told_to(project: Project) -> None:
    project.proposes(GAIN)
    conftest = project.path / "conftest.py"
    conftest.write_text(conftest.read_text() + "    else:\n        raise KeyboardInterrupt\n")
    session = project.commit().research().exits(2).decides("kept").hides("::claim")
    session.shows("val_bpb 0.9800 -> 0.9700, estimated: not yet confirmed")
    session.shows("pytest --autoresearch --autoresearch-trials=0 --autoresearch-tag=t")
    assert "claim" not in project.refs()
    session = project.research("--autoresearch-trials=0").exits(0).decides("kept").leaves_clean()
    session.shows("::claim PASSED (val_bpb -0.0100 ± 0.0000 ")
    assert project.message(CLAIM).startswith("Claim val_bpb -0.0100")


def test_another_keep_is_claimed_anew(project: Project) -> None:
    project.proposes(GAIN, MORE).research("--autoresearch-trials=1").exits(0).shows("::claim PASSED")
    first = project.refs()["claim"]
    session = project.research().exits(0).decides("kept", "kept").leaves_clean()
    session.shows("::claim PASSED (val_bpb -0.0150 ± 0.0000 ")
    kept = json.loads(project.git("show", "refs/autoresearch/t/0002:experiment/baseline.json"))
    assert "claim" not in kept["platforms"][0]
    assert project.records[0]["claim"]["gain"] == pytest.approx(-0.015)
    assert project.refs()["claim"] == project.git("rev-parse", "HEAD") != first
    session = project.research("--autoresearch-trials=0").exits(0).hides("::claim")
    session.shows("(-0.0150 ± 0.0000) in 2 fresh runs each")


def test_a_claim_reproduces_beside_its_start(project: Project) -> None:
    project.proposes(GAIN).research().exits(0)
    session = project.pytest("-k", "baseline").exits(0)
    session.shows("::baseline PASSED (0.9700, stored 0.9700", "; -0.0100 ± 0.0000 from its campaign's start)")
    shallow = project.clone("--depth=1")
    assert shallow.git("rev-list", "--count", "HEAD") == "1"
    session = shallow.pytest("-k", "baseline").exits(0).hides("campaign's start")
    session.shows(
        "::baseline PASSED (0.9700, stored 0.9700", "; the start is not in this clone: run 'git fetch"
    )


# Which token follows which, learned by counting: sealed by hand, for the sake of speed.
COUNTING = """\
import math

from prepare import VOCAB_SIZE, WIDTH, hand_in_graph, start_clock

SMOOTH = 1000.0

tokens = start_clock()
counts = [[SMOOTH] * VOCAB_SIZE for _ in range(VOCAB_SIZE)]
for place in range(1, len(tokens)):
    if place % WIDTH:
        counts[tokens[place - 1]][tokens[place]] += 1
logits = [[math.log(count) for count in row] for row in counts]
hand_in_graph([("tokens",), ("weight", "table"), ("aten.embedding.default", (1,), (0,))], table=logits)
"""
MINIATURE = Path(__file__).parents[1] / "cheats" / "experiment" / "prepare.py"
VOCABULARY, WIDTH = 64, 33


def pairs(tokens: bytes) -> list[tuple[int, int]]:
    """Each token with the one before it in its row."""
    return [(tokens[place - 1], tokens[place]) for place in range(1, len(tokens)) if place % WIDTH]


def bits(trained: bytes, held_out: bytes, smooth: float) -> float:
    """What counting comes to on a split: no token but the first of a row, of which nothing is told, is 0."""
    counts = [[smooth] * VOCABULARY for _ in range(VOCABULARY)]
    for before, token in pairs(trained):
        counts[before][token] += 1
    return -statistics.fmean(math.log2(counts[a][b] / sum(counts[a])) for a, b in pairs(held_out))


def test_a_sealed_claim_is_made_on_text_that_no_verdict_saw(
    pytester: pytest.Pytester, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("data")
    for name in ("shared.sealed", "shared.digest"):
        (data / name).touch()
    patient = MINIATURE.read_text().replace("TIME_BUDGET = 2.0", "TIME_BUDGET = 5")
    prepare = patient.replace("clock: calibrated", "clock: cpu")
    project = Project(pytester, script=COUNTING, prepare=prepare)
    make = [sys.executable, "-c", "import prepare; prepare.make()"]
    cached = {"AUTORESEARCH_CACHE": str(data)}
    subprocess.run(make, cwd=project.script.parent, env=os.environ | cached, check=True)
    session = project.proposes(("SMOOTH = 1000.0", "SMOOTH = 0.1")).research(**cached).exits(0)
    session.decides("kept").shows(
        "sealed scores", "in 2 fresh runs each, side by side, on text that no verdict saw"
    )

    trained = (data / "train.tokens").read_bytes()
    found, gains = project.records[0]["claim"], {}
    for field, name in (("score", "val"), ("claim", "claim")):
        held_out = (data / "held-out" / f"{name}.tokens").read_bytes()
        gains[field] = bits(trained, held_out, 0.1) - bits(trained, held_out, 1000.0)
        for runs, smooth in (("start", 1000.0), ("final", 0.1)):
            expected = pytest.approx(bits(trained, held_out, smooth), rel=1e-5)
            assert [run[field] for run in found[runs]] == [expected, expected]
    assert found["gain"] == pytest.approx(gains["claim"], rel=1e-4)
    assert found["gain"] != pytest.approx(gains["score"], rel=1e-4)
    [entry] = project.ledger()
    assert [run.keys() & {"score", "claim"} for run in entry["measurements"]] == [{"score"}]
