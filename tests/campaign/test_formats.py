"""``docs/formats.md`` names every key that the code writes, and no trailer that it does not."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from pytest_autoresearch.campaign import baseline
from pytest_autoresearch.campaign.baseline import Baseline, Claim
from pytest_autoresearch.campaign.refs import CampaignRefs
from pytest_autoresearch.judging.judge import Noise
from pytest_autoresearch.records import measurement, proposal, trailers, trial
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.overheads import Overheads

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
SECTIONS = {title: text for title, _, text in (part.partition("\n") for part in PAGE.split("\n## "))}
RUN = Measurement(score=1.5, seed=1, wall_seconds=1.0, overheads=Overheads(1.0, 1.0, 1.0, 1))


def named(section: str) -> set[str]:
    return set(re.findall(r"`([\w-]+)`", SECTIONS[section]))


def test_the_trailers_are_those_of_the_page() -> None:
    told = set(re.findall(r"(?m)^\| `([\w-]+):` \|", SECTIONS["Commit messages"]))
    assert told == set(trailers.RESERVED)


def test_the_keys_of_a_run_and_of_its_cost_are_on_the_page() -> None:
    known = {*measurement.FIELDS, *proposal.COUNTS, *RUN.to_json()["overheads"]}
    assert known <= named("Commit messages")
    assert set(trial.VERDICTS) <= set(re.findall(r"`([a-z ]+)`", SECTIONS["Commit messages"]))


def test_the_keys_of_the_ledger_are_on_the_page() -> None:
    assert set(trial.FIELDS) == named("`ledger.jsonl`")


def test_the_keys_of_a_record_are_on_the_page() -> None:
    measured = Baseline.measured({}, "val_bpb", "c", "t", (RUN, RUN))
    claim = Claim.of((RUN, RUN), (RUN, RUN), Noise.of([1.0, 1.1]))
    record = dataclasses.replace(measured, start="c", claim=claim).to_json()
    assert {"version", "platforms", *record, *record["claim"]} <= named("`baseline.json`")
    assert f"`version`, {baseline.VERSION}," in SECTIONS["`baseline.json`"]


def test_the_refs_are_those_of_the_page() -> None:
    refs = CampaignRefs("<tag>")
    every = {refs.head, refs.header, refs.trial(1), refs.claim, refs.log(1), refs.costs}
    assert every == set(re.findall(r"(?m)^\| `(refs/[^`]+)`", SECTIONS["Refs"]))
