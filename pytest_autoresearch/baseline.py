"""``baseline.json``: what is to be beaten, one entry per platform."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Self

from pytest_autoresearch import judge
from pytest_autoresearch.agents.briefing import Direction
from pytest_autoresearch.judge import Noise
from pytest_autoresearch.measuring.measurement import Measurement, mean_score

VERSION = 1


class Unreadable(Exception):
    """The file is not a ``baseline.json`` of this version; the message is one line."""


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """The best version so far on one platform, and its measurements."""

    platform: Mapping[str, str]
    """The machine, its software, the data and the budget, as ``prepare.py`` describes them."""
    metric: str
    commit: str
    """A git revision whose tree holds the measured script: a hash, or a trial's ref."""
    blob: str
    """The git blob of the measured script, by which a changed script is told."""
    measurements: tuple[Measurement, ...]
    mean: float
    """The mean score of the measurements: the figure to be beaten."""
    noise: Noise
    """From the platform's first baseline: a kept trial inherits it."""

    @classmethod
    def measured(
        cls, platform: Mapping[str, str], metric: str, commit: str, blob: str, runs: tuple[Measurement, ...]
    ) -> Self:
        """Return the record of a platform's first baseline, from at least two runs of one script."""
        noise = Noise.of([run.score for run in runs])
        return cls(platform, metric, commit, blob, runs, mean_score(runs), noise)

    def improved(self, commit: str, blob: str, runs: tuple[Measurement, ...]) -> Self:
        """Return the record after a kept trial."""
        return dataclasses.replace(self, commit=commit, blob=blob, measurements=runs, mean=mean_score(runs))

    def judge(self, score: float, direction: Direction) -> judge.Judgement:
        """Judge one run of another script against this baseline."""
        return judge.judge([score], self.mean, len(self.measurements), self.noise, direction)

    @property
    def tolerance(self) -> float:
        """How far a fresh run may lie from the mean for the figure to have reproduced."""
        return judge.tolerance(self.noise, len(self.measurements))

    def is_of(self, platform: Mapping[str, str], metric: str) -> bool:
        """Tell whether the record was measured on *platform*, for *metric*."""
        return self.platform == platform and self.metric == metric

    def to_json(self) -> dict[str, Any]:
        """Return what is stored."""
        return {
            "platform": dict(self.platform),
            "metric": self.metric,
            "commit": self.commit,
            "blob": self.blob,
            "mean": _ten_digits(self.mean),
            "spread": _ten_digits(self.noise.spread),
            "spread_runs": self.noise.runs,
            "measurements": [run.to_json() for run in self.measurements],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild what :meth:`to_json` gave."""
        return cls(
            platform={str(key): str(value) for key, value in document["platform"].items()},
            metric=document["metric"],
            commit=document["commit"],
            blob=document["blob"],
            measurements=tuple(Measurement.from_json(run) for run in document["measurements"]),
            mean=float(document["mean"]),
            noise=Noise(float(document["spread"]), int(document["spread_runs"])),
        )


def read(text: str | None) -> list[Record]:
    """Return the records in the text of a ``baseline.json``; none if there is no such file.

    Raises:
        Unreadable: the text is not what :func:`write` gave.
    """
    if text is None:
        return []
    try:
        document = json.loads(text)
        if document["version"] != VERSION:
            msg = f"version {document['version']} of baseline.json is not known here"
            raise Unreadable(msg)
        return [Record.from_json(entry) for entry in document["platforms"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"baseline.json cannot be read ({type(error).__name__}: {error}): restore it from git"
        raise Unreadable(msg) from error


def find(records: list[Record], platform: Mapping[str, str], metric: str) -> Record | None:
    """Return the record of this platform and metric."""
    return next((record for record in records if record.is_of(platform, metric)), None)


def write(records: list[Record], new: Record) -> str:
    """Return the text of a ``baseline.json`` in which *new* replaces the record of its platform."""
    others = [record for record in records if not record.is_of(new.platform, new.metric)]
    entries = [record.to_json() for record in [*others, new]]
    return json.dumps({"version": VERSION, "platforms": entries}, indent=2) + "\n"


def _ten_digits(figure: float) -> float:
    return float(f"{figure:.10g}")
