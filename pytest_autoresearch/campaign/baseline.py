"""``baseline.json``: the scores to beat, one entry per platform and metric."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Self

from pytest_autoresearch.campaign.git import Repository
from pytest_autoresearch.errors import BaselineFormatError
from pytest_autoresearch.judging.noise import Estimate, Noise, gain_and_margin, tolerance
from pytest_autoresearch.records.measurement import Measurement, format_score
from pytest_autoresearch.records.overheads import Overheads

VERSION = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """A gain, from fresh runs of a campaign's start and of its incumbent, side by side."""

    start: tuple[Measurement, ...]
    final: tuple[Measurement, ...]
    gain: float
    """The mean score of the incumbent's runs minus the mean of the start's."""
    margin: float
    """Half the width of the 95 % interval of the gain."""

    @classmethod
    def of(cls, start: tuple[Measurement, ...], final: tuple[Measurement, ...], noise: Noise) -> Self:
        """Compare the runs; sealed ones by their scores on text that no verdict used, with the same noise."""
        before, after = ([run.claimed for run in runs] for runs in (start, final))
        return cls(start, final, *gain_and_margin(before, after, noise.pooled(before, after)))

    def __str__(self) -> str:
        return f"{format_score(self.gain, '+')} ± {format_score(self.margin)}"

    def to_json(self) -> dict[str, Any]:
        """Return the stored JSON object."""
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
    """Machine, software, data and budget, as ``prepare.py`` describes them."""
    metric: str
    commit: str
    """A git revision that holds the measured files: a hash, or a trial's ref."""
    tree: str
    """The id of the git tree of the measured editable files, which tells whether they are the same."""
    measurements: tuple[Measurement, ...]
    """The runs that the version was kept for, which were selected for luck, or those of a first baseline."""
    estimate: Estimate
    """The estimate of its true score, which is to be beaten: less lucky than the mean of these runs."""
    noise: Noise
    """The noise of one run on this platform."""
    overheads: Overheads | None = None
    """What the runs of the platform's first baseline took beside training; None if scores are reported."""
    start: str | None = None
    """The commit that its campaign started from; None until something is kept."""
    claim: Claim | None = None
    """The gain of its campaign, once that is measured."""

    @classmethod
    def measured(
        cls, platform: Mapping[str, str], metric: str, commit: str, tree: str, runs: tuple[Measurement, ...]
    ) -> Self:
        """Return the record of a platform's first baseline, from at least two runs of one version."""
        scores = [run.score for run in runs]
        noise, overheads = Noise.of(scores), Overheads.typical(run.overheads for run in runs)
        return cls(platform, metric, commit, tree, runs, Estimate.of(scores, noise), noise, overheads)

    def started(self, runs: tuple[Measurement, ...]) -> Self:
        """Return the record that another campaign starts with: with fresh *runs*, and nothing gained."""
        estimate = self.estimate
        for run in runs:
            estimate = estimate.updated(run.score, self.noise)
        return dataclasses.replace(self, estimate=estimate, start=None, claim=None)

    @property
    def tolerance(self) -> float:
        """How far a fresh run may lie from the mean for the figure to have reproduced."""
        return tolerance(self.estimate, self.noise)

    def is_of(self, platform: Mapping[str, str], metric: str) -> bool:
        """Return whether the record was measured on *platform*, for *metric*."""
        return self.platform == platform and self.metric == metric

    def to_json(self) -> dict[str, Any]:
        """Return the stored JSON object."""
        document = {
            "platform": dict(self.platform),
            "metric": self.metric,
            "commit": self.commit,
            "tree": self.tree,
            "mean": _ten_digits(self.estimate.mean),
            "std": _ten_digits(self.estimate.std),
            "noise_std": _ten_digits(self.noise.std),
            "noise_dof": self.noise.dof,
            "measurements": [run.to_json() for run in self.measurements],
            "overheads": self.overheads and self.overheads.to_json(),
            "start": self.start,
            "claim": self.claim and self.claim.to_json(),
        }
        return {key: value for key, value in document.items() if value is not None}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild what :meth:`to_json` gave."""
        return cls(
            platform={str(key): str(value) for key, value in document["platform"].items()},
            metric=document["metric"],
            commit=document["commit"],
            tree=document["tree"],
            measurements=tuple(map(Measurement.from_json, document["measurements"])),
            estimate=Estimate(float(document["mean"]), float(document["std"])),
            noise=Noise(float(document["noise_std"]), int(document["noise_dof"])),
            overheads=Overheads.from_json(document["overheads"]) if "overheads" in document else None,
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
            raise BaselineFormatError(
                f"version {document['version']} of baseline.json is not known here: "
                "delete and commit it, and every platform is measured anew"
            )
        return [Baseline.from_json(entry) for entry in document["platforms"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"baseline.json cannot be read ({type(error).__name__}: {error})"
        raise BaselineFormatError(reason, hint="restore it from git") from error


def records_at(repository: Repository, revision: str) -> list[Baseline]:
    """Return the records of a commit, as :func:`read` does."""
    return read(repository.committed(repository.spec.baseline, revision))


def find(records: list[Baseline], platform: Mapping[str, str], metric: str) -> Baseline | None:
    """Return the record of this platform and metric."""
    return next((record for record in records if record.is_of(platform, metric)), None)


def find_at(repository: Repository, revision: str, platform: Mapping[str, str]) -> Baseline | None:
    """Return the record of a platform in a commit, as :func:`read` does."""
    return find(records_at(repository, revision), platform, repository.spec.metric)


def write(records: list[Baseline], new: Baseline) -> str:
    """Return the text of a ``baseline.json`` in which *new* replaces the record of its platform."""
    others = [record for record in records if not record.is_of(new.platform, new.metric)]
    entries = [record.to_json() for record in [*others, new]]
    return json.dumps({"version": VERSION, "platforms": entries}, indent=2) + "\n"


def _ten_digits(figure: float) -> float:
    return float(f"{figure:.10g}")
