"""``baseline.json``: what is to be beaten, one entry per platform."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Self

from pytest_autoresearch.errors import BaselineFormatError
from pytest_autoresearch.judging import judge
from pytest_autoresearch.judging.judge import Estimate, Noise
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.overheads import Overheads

VERSION = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """A gain, from fresh runs of a campaign's start and of its incumbent, side by side."""

    start: tuple[Measurement, ...]
    final: tuple[Measurement, ...]
    gain: float
    """The mean of the incumbent's runs less that of the start's."""
    margin: float
    """Half the width of its 95 % interval."""

    @classmethod
    def of(cls, start: tuple[Measurement, ...], final: tuple[Measurement, ...], noise: Noise) -> Self:
        """Compare the runs, of sealed ones on text that no verdict saw; its noise is taken to be alike."""
        before, after = ([run.claimed for run in runs] for runs in (start, final))
        found = judge.GainEstimate.of(before, after, noise.pooled(before, after))
        return cls(start, final, found.gain, found.margin)

    def __str__(self) -> str:
        return str(judge.GainEstimate(self.gain, self.margin))

    def to_json(self) -> dict[str, Any]:
        """Return what is stored."""
        return {
            "gain": _ten_digits(self.gain),
            "margin": _ten_digits(self.margin),
            "start": [run.to_json() for run in self.start],
            "final": [run.to_json() for run in self.final],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild what :meth:`to_json` gave."""
        start, final = (tuple(map(Measurement.from_json, document[key])) for key in ("start", "final"))
        return cls(start, final, float(document["gain"]), float(document["margin"]))


@dataclasses.dataclass(frozen=True, slots=True)
class Baseline:
    """The best version so far on one platform, and its measurements."""

    platform: Mapping[str, str]
    """The machine, its software, the data and the budget, as ``prepare.py`` describes them."""
    metric: str
    commit: str
    """A git revision whose tree holds the measured script: a hash, or a trial's ref."""
    blob: str
    """The git blob of the measured script, by which a changed script is told."""
    measurements: tuple[Measurement, ...]
    """The runs that the version was kept for, the luckiest of many, or those of a first baseline."""
    belief: Estimate
    """Of its true score, the figure to be beaten: less lucky than the mean of these runs."""
    noise: Noise
    """Of one run on this platform."""
    needs: Overheads | None = None
    """What the runs of the platform's first baseline took beside training; None if scores are reported."""
    start: str | None = None
    """The git blob of the script that its campaign began with; None until something is kept."""
    claim: Claim | None = None
    """What the campaign gained, once that is measured."""

    @classmethod
    def measured(
        cls, platform: Mapping[str, str], metric: str, commit: str, blob: str, runs: tuple[Measurement, ...]
    ) -> Self:
        """Return the record of a platform's first baseline, from at least two runs of one script."""
        scores = [run.score for run in runs]
        noise = Noise.of(scores)
        belief = Estimate.of(scores, noise)
        return cls(platform, metric, commit, blob, runs, belief, noise, Overheads.of(runs))

    def begun(self, runs: tuple[Measurement, ...]) -> Self:
        """Return the record with which another campaign begins: with fresh *runs*, and nothing gained."""
        belief = self.belief
        for run in runs:
            belief = belief.updated(run.score, self.noise)
        return dataclasses.replace(self, belief=belief, start=None, claim=None)

    @property
    def tolerance(self) -> float:
        """How far a fresh run may lie from the mean for the figure to have reproduced."""
        return judge.tolerance(self.belief, self.noise)

    def is_of(self, platform: Mapping[str, str], metric: str) -> bool:
        """Tell whether the record was measured on *platform*, for *metric*."""
        return self.platform == platform and self.metric == metric

    def to_json(self) -> dict[str, Any]:
        """Return what is stored."""
        document = {
            "platform": dict(self.platform),
            "metric": self.metric,
            "commit": self.commit,
            "blob": self.blob,
            "mean": _ten_digits(self.belief.mean),
            "error": _ten_digits(self.belief.error),
            "spread": _ten_digits(self.noise.spread),
            "freedom": self.noise.freedom,
            "measurements": [run.to_json() for run in self.measurements],
        }
        if self.needs is not None:
            document["needs"] = self.needs.to_json()
        if self.start is not None:
            document["start"] = self.start
        if self.claim is not None:
            document["claim"] = self.claim.to_json()
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild what :meth:`to_json` gave."""
        return cls(
            platform={str(key): str(value) for key, value in document["platform"].items()},
            metric=document["metric"],
            commit=document["commit"],
            blob=document["blob"],
            measurements=tuple(map(Measurement.from_json, document["measurements"])),
            belief=Estimate(float(document["mean"]), float(document["error"])),
            noise=Noise(float(document["spread"]), int(document["freedom"])),
            needs=Overheads.from_json(document["needs"]) if "needs" in document else None,
            start=document.get("start"),
            claim=Claim.from_json(document["claim"]) if "claim" in document else None,
        )


def read(text: str | None) -> list[Baseline]:
    """Return the records in the text of a ``baseline.json``; none if there is no such file.

    Raises:
        BaselineFormatError: the text is not what :func:`write` gave.
    """
    if text is None:
        return []
    try:
        document = json.loads(text)
        if document["version"] != VERSION:
            msg = (
                f"version {document['version']} of baseline.json is not known here: "
                "delete and commit it, and every platform is measured anew"
            )
            raise BaselineFormatError(msg)
        return [Baseline.from_json(entry) for entry in document["platforms"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"baseline.json cannot be read ({type(error).__name__}: {error}): restore it from git"
        raise BaselineFormatError(msg) from error


def find(records: list[Baseline], platform: Mapping[str, str], metric: str) -> Baseline | None:
    """Return the record of this platform and metric."""
    return next((record for record in records if record.is_of(platform, metric)), None)


def write(records: list[Baseline], new: Baseline) -> str:
    """Return the text of a ``baseline.json`` in which *new* replaces the record of its platform."""
    others = [record for record in records if not record.is_of(new.platform, new.metric)]
    entries = [record.to_json() for record in [*others, new]]
    return json.dumps({"version": VERSION, "platforms": entries}, indent=2) + "\n"


def _ten_digits(figure: float) -> float:
    return float(f"{figure:.10g}")
