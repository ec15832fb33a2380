"""What is in doubt is measured again, the incumbent too, and every run is kept with its trial."""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from pytest_autoresearch.judging.judge import STRICT as CONFIDENCE
from pytest_autoresearch.judging.judge import JudgePolicy, JudgeState
from pytest_autoresearch.judging.noise import Estimate, Noise
from tests.project import AGENT, COUNTED, NOISY, Project

STRICT, NO_SANDBOX = "--autoresearch-confidence=0.95", "--autoresearch-sandbox=none"
CLEAR, THIN = ("LR = 0.30", "LR = 0.10"), ("LR = 0.10", "LR = 0.07")
TELLING = (
    AGENT.replace("briefing):\n", "briefing):\n    told(briefing)\n")
    + """

def told(briefing):
    with open("told", "a") as file:
        print(briefing.number, len(briefing.history), briefing.score, briefing.noise, file=file)
"""
)


@pytest.fixture
def noisy(pytester: pytest.Pytester) -> Project:
    """Return a scratch project whose runs differ by 0.01."""
    return Project(pytester, script=NOISY)


def test_thin_evidence_is_measured_again(noisy: Project) -> None:
    session = noisy.proposes(CLEAR, THIN).research(STRICT, "--junitxml=junit.xml").exits(0)
    session.decides("kept", "kept")
    clear, thin = noisy.ledger()
    assert clear["reason"].endswith(" after 1 run")
    assert thin["reason"].endswith(f" after {len(thin['measurements'])} runs")
    assert clear["incumbent_runs"] == []
    seeds = [run["seed"] for run in thin["measurements"]]
    again = [run["seed"] for run in thin["incumbent_runs"]]
    assert len(seeds) > 1
    assert again
    every = [*seeds, *again, clear["measurements"][0]["seed"], 1, 2, 3]
    assert len(set(every)) == len(every)
    assert {run["score"] for run in thin["measurements"]} == {0.97}
    assert {run["score"] for run in thin["incumbent_runs"]} == {1.0}
    message = noisy.message("refs/autoresearch/t/0002").splitlines()
    for trailer, runs in (
        ("Measurement: ", thin["measurements"]),
        ("Incumbent-Run: ", thin["incumbent_runs"]),
    ):
        stored = [json.loads(line.removeprefix(trailer)) for line in message if line.startswith(trailer)]
        assert stored == runs
    cases = list(ET.parse(noisy.path / "junit.xml").iter("testcase"))  # noqa: S314 - our own file
    scores = [item.get("value") for item in cases[2].iter("property") if item.get("name") == "val_bpb"]
    assert scores == ["0.97"] * len(seeds)


def test_a_score_of_several_runs_is_their_mean(noisy: Project) -> None:
    noisy.script.write_text(NOISY.replace("LUCK.get(seed, 0.0)", "LUCK.get(seed, seed % 101 / 1e5)"))
    noisy.commit().proposes(CLEAR, THIN).research(STRICT).exits(0)
    runs = noisy.ledger()[1]["measurements"]
    mean = statistics.fmean(run["score"] for run in runs)
    assert len(runs) > 1
    assert mean != runs[0]["score"]
    assert f"Val-Bpb: {mean:.6f}\n" in noisy.message("refs/autoresearch/t/0002")
    assert noisy.rows()[3][1] == f"{mean:.6f}"


def test_a_resumed_campaign_knows_what_it_knew(noisy: Project) -> None:
    edits = [CLEAR, THIN, ("LR = 0.07", "LR = 0.19")]
    conftest = noisy.path / "conftest.py"
    conftest.write_text(TELLING.format(proposals=edits))
    noisy.commit().research(STRICT).exits(0).decides("kept", "kept", "discarded")
    ledger = noisy.ledger()
    (noisy.path / ".autoresearch" / "t" / "ledger.jsonl").unlink()
    conftest.write_text(TELLING.format(proposals=[*edits, ("LR = 0.07", "LR = 0.18")]))
    noisy.commit().research(STRICT).exits(0).decides("kept", "kept", "discarded", "discarded")
    told = (noisy.path / "told").read_text().splitlines()
    state = replayed(ledger)
    assert [float(word) for word in told[3].split()[2:]] == pytest.approx(
        [state.incumbent.mean, state.noise.std], rel=1e-7
    )
    assert told[3].startswith("4 3 ")
    assert told[4] == told[3]  # asked in vain for the fourth trial, and again after the start
    assert len({line.partition(" ")[2] for line in told[:4]}) == 4
    *before, last = noisy.ledger()
    assert before == ledger
    # What the second session measured first is as good as any other run of the incumbent.
    assert len(last["incumbent_runs"]) == 1
    assert "\nIncumbent-Run: " in noisy.message("refs/autoresearch/t/0004")


def test_a_script_that_was_committed_by_hand_is_judged_by_its_own_runs(noisy: Project) -> None:
    (noisy.path / ".gitignore").write_text("__pycache__/\ntold\nresults.tsv\n")
    conftest = noisy.path / "conftest.py"
    conftest.write_text(TELLING.format(proposals=[CLEAR]))
    noisy.commit().research().exits(0).decides("kept")
    noisy.script.write_text(NOISY.replace("LR = 0.30", "LR = 0.60"))
    conftest.write_text(TELLING.format(proposals=[CLEAR, ("LR = 0.60", "LR = 0.40")]))
    noisy.commit().research().exits(0).decides("kept", "kept").shows("KEPT (1.3000, -0.")
    noisy.research().exits(0)
    lines = (noisy.path / "told").read_text().splitlines()
    told = [[float(word) for word in line.split()] for line in lines]
    assert told[2][:3] == pytest.approx([2, 1, 1.5])
    assert told[3][:3] == pytest.approx([3, 2, 1.3], abs=0.01)
    assert told[4] == pytest.approx(told[3], rel=1e-7)  # as replayed


def replayed(ledger: Sequence[Mapping[str, Any]]) -> JudgeState:
    """What follows from the opening and from every run in a ledger."""
    opening = [1.19, 1.2, 1.21]
    noise = Noise.of(opening)
    state = JudgeState.initial(JudgePolicy(confidence=CONFIDENCE), Estimate.of(opening, noise), noise)
    for entry in ledger:
        own, again = ([run["score"] for run in entry[key]] for key in ("measurements", "incumbent_runs"))
        state = state.after(own, again, kept=entry["verdict"] == "kept")
    return state


def test_runs_before_a_failure_are_kept_with_the_trial(noisy: Project) -> None:
    counted = COUNTED.format(file=str(noisy.path / "count"))
    fails = f"LR = 0.27\n{counted}if before: raise SystemExit('out of luck')"
    (noisy.path / ".gitignore").write_text("__pycache__/\ncount\n")
    session = noisy.proposes(("LR = 0.30", fails)).research(STRICT, NO_SANDBOX).exits(0)
    session.decides("crashed").shows('CRASHED (exit code 1: "out of luck")')
    [run] = noisy.ledger()[0]["measurements"]
    assert run["score"] == pytest.approx(1.17)
    assert noisy.rows()[2][1:4] == ["0.000000", "0.0", "crash"]


@pytest.mark.parametrize(("failing", "verdict"), [("(3,)", "kept"), ("(3, 4)", "discarded")])
def test_an_incumbent_that_fails_says_nothing_of_the_proposal(
    noisy: Project, failing: str, verdict: str
) -> None:
    counted = COUNTED.format(file=str(noisy.path / "count")) + f"if before in {failing}: raise SystemExit(1)"
    source = (
        NOISY.replace("LR =", "FAILING = True\nLR =") + "if FAILING:\n" + textwrap.indent(counted, "    ")
    )
    noisy.script.write_text(source)
    (noisy.path / ".gitignore").write_text("__pycache__/\ncount\n")
    noisy.commit().proposes(("LR = 0.30", "LR = 0.27\nFAILING = False"))
    session = noisy.research(STRICT, NO_SANDBOX).exits(0).decides(verdict)
    if verdict == "discarded":
        session.shows("DISCARDED (the incumbent, measured again, failed twice: exit code 1")


def test_more_confidence_asks_for_more_runs(noisy: Project) -> None:
    noisy.proposes(("LR = 0.30", "LR = 0.27")).research(tag="bold").exits(0).decides("kept", tag="bold")
    noisy.git("checkout", "--quiet", "main")
    noisy.research(STRICT, tag="strict").exits(0)
    bold, strict = (noisy.ledger(tag)[0]["measurements"] for tag in ("bold", "strict"))
    assert len(strict) > len(bold)


def test_the_working_tree_is_measured_until_it_is_decided(noisy: Project) -> None:
    noisy.research("--autoresearch-trials=0").exits(0)
    noisy.script.write_text(NOISY.replace("LR = 0.30", "LR = 0.27"))
    noisy.pytest("experiment/train.py", STRICT).exits(0).shows("candidate PASSED (1.1700, ", " runs)")
    noisy.script.write_text(NOISY.replace("LR = 0.30", "LR = 0.40"))
    session = noisy.pytest("experiment/train.py", STRICT).exits(1)
    session.shows("1.3000: the baseline of 1.2000 is not beaten", "measured    1.300000\n", "after 1 run")
