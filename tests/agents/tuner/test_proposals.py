"""The tuner proposes new values for the constants of a script."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from pytest_autoresearch.records.trial import Value
from pytest_autoresearch.source import constants, validation
from tests.agents.tuner.campaign import (
    FIXED,
    SCRIPT,
    SIZES,
    TUNED,
    Device,
    brief,
    campaign,
    entry,
    forty,
    propose,
)


def changed(before: str, after: str, device: Device) -> list[str]:
    old, new = constants.values(before, device), constants.values(after, device)
    assert list(old) == list(new)
    return [name for name in old if old[name] != new[name]]


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_forty_proposals_are_sound_and_change_a_few_constants(device: Device) -> None:
    run = forty(device)
    assert len(run.proposals) == 40
    for proposal, incumbent in zip(run.proposals, run.incumbents, strict=True):
        validation.check(proposal.files["train.py"], incumbent, device, FIXED)
        names = changed(incumbent, proposal.files["train.py"], device)
        assert 1 <= len(names) <= 3
        assert set(names) <= set(TUNED)
        assert [change.split()[0] for change in proposal.description.split(", ")] == names
    outcomes = [tuple(tried.constants.items()) for tried in run.history]
    assert len(set(outcomes)) == 40


@pytest.mark.parametrize(("device", "other"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_only_the_column_of_the_device_is_edited(device: Device, other: Device) -> None:
    columns = ["DEPTH", "HEAD_DIM", "TOTAL_BATCH_SIZE", "DEVICE_BATCH_SIZE", "WINDOW_PATTERN"]
    start, end = (constants.values(source, other) for source in (SCRIPT, forty(device).script))
    assert [start[name] for name in columns] == [end[name] for name in columns]
    assert changed(SCRIPT, forty(device).script, device)


def test_every_integer_is_first_moved_one_step_down() -> None:
    run = campaign(lambda _: 3.0, len(SIZES))
    assert [proposal.description for proposal in run.proposals] == [
        "DEPTH 4 -> 2",
        "ASPECT_RATIO 64 -> 32",
        "HEAD_DIM 32 -> 16",
        "TOTAL_BATCH_SIZE 2**12 -> 2**11",
        "DEVICE_BATCH_SIZE 16 -> 8",
    ]


def test_what_is_being_measured_is_not_proposed_again() -> None:
    running = propose(brief())
    assert running is not None
    ahead = propose(dataclasses.replace(brief(number=2), running=(running,)))
    assert ahead is not None
    assert (running.description, ahead.description) == ("DEPTH 4 -> 2", "ASPECT_RATIO 64 -> 32")


def test_a_step_that_an_assert_forbids_is_taken_with_another() -> None:
    script = "TOTAL = 2**12\nOTHER = 16\nDEVICE = 2**12\nassert TOTAL % DEVICE == 0\n"
    proposal = propose(brief(script))
    assert proposal is not None
    assert proposal.description == "TOTAL 2**12 -> 2**11, DEVICE 2**12 -> 2**11"


def test_a_step_down_that_was_kept_is_taken_once_more() -> None:
    def smaller_batches(known: Mapping[str, Value]) -> float:
        return float(known["TOTAL_BATCH_SIZE"]) / 2**12

    run = campaign(smaller_batches, 8)
    descriptions = [proposal.description for proposal in run.proposals]
    first = descriptions.index("TOTAL_BATCH_SIZE 2**12 -> 2**11")
    assert descriptions[first + 1] == "TOTAL_BATCH_SIZE 2**11 -> 2**10"
    # At the lowest of its range it ends; so it does where the next step is not kept.
    assert not descriptions[first + 2].startswith("TOTAL_BATCH_SIZE")


def test_screening_starts_from_the_incumbent_and_minds_other_agents() -> None:
    start = constants.values(SCRIPT, "cpu")
    history = [entry(1, start | {"DEPTH": 5}), entry(2, start | {"ASPECT_RATIO": 128})]
    incumbent = constants.replace(SCRIPT, {"DEPTH": "3", "HEAD_DIM": "64"}, "cpu")
    proposal = propose(brief(incumbent, history, start=SCRIPT))
    assert proposal is not None
    assert proposal.description == "HEAD_DIM 64 -> 32"


def test_a_forbidden_step_is_skipped() -> None:
    script = SCRIPT + "assert DEPTH == per_device(cuda=8, cpu=4)\n"
    run = campaign(lambda _: 3.0, 20, script=script)
    assert run.proposals[0].description == "ASPECT_RATIO 64 -> 32"
    assert len(run.proposals) == 20
    assert all("DEPTH" not in proposal.description for proposal in run.proposals)


def test_the_same_history_gives_the_same_proposal() -> None:
    history = forty("cpu").history
    for count in (0, 7, 20, 39):
        again = propose(brief(forty("cpu").incumbents[count], history[:count], start=SCRIPT))
        assert again == forty("cpu").proposals[count]
    briefing = brief(forty("cpu").incumbents[30], history[:30], start=SCRIPT)
    others = {propose(dataclasses.replace(briefing, tag=tag)).description for tag in ("a", "b", "c")}
    assert len(others) > 1, "another campaign goes another way"


def test_another_process_proposes_the_same() -> None:
    code = (
        "from tests.agents.tuner.campaign import bowl, campaign;"
        "print([p.description for p in campaign(bowl, 19).proposals][-4:])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{[proposal.description for proposal in forty('cpu').proposals[15:19]]}\n"}


def test_crashes_are_not_repeated_and_become_rare() -> None:
    def narrow(known: Mapping[str, Value]) -> float | None:
        return None if float(known["MATRIX_LR"]) > 0.04 else 2.0 + float(known["MATRIX_LR"])

    script = "MATRIX_LR = 0.04\nOTHER_LR = 0.04\n"
    run = campaign(narrow, 60, script=script)
    crashed = [tried.verdict == "crashed" for tried in run.history]
    assert sum(crashed[30:]) <= 3
    assert len({tuple(tried.constants.items()) for tried in run.history}) == 60


def test_what_runs_out_of_memory_becomes_rare() -> None:
    def small(known: Mapping[str, Value]) -> float | None:
        size = float(known["DEPTH"]) * float(known["WIDTH"]) * float(known["ROWS"])
        return None if size > 8 * 512 * 32 * 1.5 else 3.0 - math.log2(size) / 10

    script = "DEPTH = 8\nWIDTH = 512\nROWS = 32\nMATRIX_LR = 0.04\nSOFTCAP = 15.0\n"
    run = campaign(small, 60, script=script, failure="out of memory")
    failed = [tried.verdict == "out of memory" for tried in run.history]
    assert sum(failed) <= 15
    assert run.best < 3.0 - math.log2(8 * 512 * 32 * 1.2) / 10, "though larger is better"
