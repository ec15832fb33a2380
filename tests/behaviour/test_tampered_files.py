"""Files that somebody has torn, edited or removed: rebuilt from the refs, or refused, never believed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.project import Project

ALONE = ("--autoresearch-sandbox=none", "--autoresearch-trials=0")
NEXT = ("--autoresearch-sandbox=none", "--autoresearch-trials=1")

Tamper = Callable[[Path], object]


def torn(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-30])


def edited(file: Path) -> None:
    text = file.read_text()
    file.write_text(text.replace("discarded", "kept").replace("discard\t", "keep\t").replace("0.98", "0.91"))


def longer(file: Path) -> None:
    file.write_text(file.read_text() + file.read_text().splitlines()[-1] + "\n")


def shorter(file: Path) -> None:
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


def emptied(file: Path) -> None:
    file.write_text("")


def folder(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.mkdir()


def binary(file: Path) -> None:
    file.write_bytes(bytes(range(256)))


@pytest.mark.parametrize("tamper", [torn, edited, longer, shorter, emptied, Path.unlink])
def test_what_follows_from_the_refs_is_written_again(campaign: Project, tamper: Tamper) -> None:
    files = [campaign.path / ".autoresearch/t/ledger.jsonl", campaign.path / "results.tsv"]
    before = [file.read_bytes() for file in files]
    for file in files:
        tamper(file)
    session = campaign.research(*ALONE).exits(0).decides("kept", "discarded")
    assert [file.read_bytes() for file in files] == before
    if tamper in {emptied, Path.unlink}:
        session.hides("recovered: ")
    else:
        session.shows(
            "recovered: ledger.jsonl differed from the refs", "recovered: results.tsv differed from"
        )


def test_a_ledger_of_anything_is_written_again(campaign: Project) -> None:
    ledger = campaign.path / ".autoresearch/t/ledger.jsonl"
    before = ledger.read_bytes()
    binary(ledger)
    campaign.research(*ALONE).exits(0)
    assert ledger.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "tamper", "reason"),
    [
        ("results.tsv", folder, "results.tsv is not a campaign's: move it away first"),
        ("results.tsv", binary, "results.tsv is not a campaign's: move it away first"),
        (".autoresearch/t/ledger.jsonl", folder, "ledger.jsonl is no file: move it away first"),
        (".autoresearch", lambda path: (shutil.rmtree(path), path.touch()), "is no folder: move it away"),
    ],
    ids=["results-folder", "results-binary", "ledger-folder", "state-file"],
)
def test_what_cannot_be_written_over_is_refused(
    campaign: Project, name: str, tamper: Tamper, reason: str
) -> None:
    tamper(campaign.path / name)
    refs, before = campaign.refs(), (campaign.path / name).stat()
    campaign.research(*ALONE).exits(4).shows(reason).hides("Traceback", "INTERNALERROR", "::baseline")
    assert campaign.refs() == refs
    assert (campaign.path / name).stat().st_ino == before.st_ino


@pytest.mark.parametrize("tamper", [torn, Path.unlink])
def test_an_uncommitted_record_is_refused(campaign: Project, tamper: Tamper) -> None:
    records = campaign.script.with_name("baseline.json")
    tamper(records)
    before = records.read_bytes() if records.exists() else None
    campaign.research(*ALONE).exits(4).shows("uncommitted changes in experiment/baseline.json: commit or")
    assert (records.read_bytes() if records.exists() else None) == before


def rewrite(project: Project, **values: object) -> None:
    """Change figures of the record by hand, in a commit."""
    file = project.script.with_name("baseline.json")
    document = json.loads(file.read_text())
    place: dict[str, Any] = document
    for name, value in values.items():
        *path, last = name.split("__")
        place = document["platforms"][0] if path or name not in document else document
        for key in path:
            place = place[key]
        place[last] = value
    file.write_text(json.dumps(document))
    project.commit("By hand")


@pytest.mark.parametrize(
    "change",
    [
        {"mean": 0.9699999},
        {"noise_std": 0.5, "std": 0.5},  # with which anything would reproduce
        {"claim__gain": -0.5},
        {"measurements": []},
        {"version": 9},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_edited_record_is_refused(campaign: Project, change: dict[str, object]) -> None:
    before = campaign.records
    rewrite(campaign, **change)
    state = campaign.git("rev-parse", "HEAD"), campaign.refs()
    session = campaign.research(*NEXT).exits(4).hides("Traceback", "INTERNALERROR", "::baseline", "::trial")
    session.shows(
        "experiment/baseline.json as it is committed: ", "restore it with 'git checkout", "and commit"
    )
    assert (campaign.git("rev-parse", "HEAD"), campaign.refs()) == state
    if "claim__gain" in change:  # what is advised helps, for the last claim too
        relief = re.search(r"'git (checkout \w+ -- \S+)'", session.screen)
        assert relief is not None
        campaign.git(*relief[1].split())
        assert campaign.records == before
        campaign.commit("As it was").research(*NEXT).exits(0).decides("kept", "discarded", "kept")


def test_a_torn_record_that_is_committed_is_refused(campaign: Project) -> None:
    torn(campaign.script.with_name("baseline.json"))
    session = campaign.commit("By hand").research(*NEXT).exits(4)
    session.shows("baseline.json cannot be read (JSONDecodeError", "; restore it with 'git checkout")


@pytest.mark.parametrize("change", ["file", "platform", "tree"])
def test_a_record_that_is_gone_is_measured_anew(campaign: Project, change: str) -> None:
    """And what is believed still follows from the refs."""
    records = campaign.script.with_name("baseline.json")
    if change == "file":
        records.unlink()
        campaign.commit("By hand")
    else:
        rewrite(campaign, **({"platforms": []} if change == "platform" else {"tree": "0" * 40}))
    session = campaign.research(*NEXT).exits(0).shows("::baseline PASSED (0.9700, noise 0.0000 in 3 runs)")
    session.decides("kept", "discarded", "kept")
    assert campaign.ledger()[-1]["incumbent_score"] == 0.97


def test_figures_of_another_platform_are_nobodys_business(campaign: Project) -> None:
    records = campaign.script.with_name("baseline.json")
    document = json.loads(records.read_text())
    document["platforms"].append({**document["platforms"][0], "platform": {"device": "elsewhere"}})
    records.write_text(json.dumps(document))
    campaign.commit("Merge").research(*ALONE).exits(0).shows("stored 0.9700")


def test_a_script_of_the_user_is_measured_and_its_figures_are_guarded_too(campaign: Project) -> None:
    campaign.script.write_text(campaign.script.read_text().replace("LR = 0.05", "LR = 0.055"))
    campaign.git("commit", "--quiet", "--all", "--message", "By hand")
    campaign.research(*ALONE).exits(0).shows("::baseline PASSED (0.9650, noise 0.0000 in 3 runs)")
    campaign.research(*ALONE).exits(0).shows("::baseline PASSED (0.9650, stored 0.9650")
    rewrite(campaign, mean=0.9649999)
    campaign.research(*ALONE).exits(4).shows("somebody has changed what was measured; restore it with")
