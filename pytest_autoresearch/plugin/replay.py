"""A trial of the past, measured again: ``--autoresearch-replay=TAG/NUMBER``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_autoresearch.campaign import baseline
from pytest_autoresearch.campaign.git import Repository
from pytest_autoresearch.errors import AssertionFailure, BaselineFormatError, RepositoryError, RunFailed
from pytest_autoresearch.judging import judge
from pytest_autoresearch.judging.judge import Estimate
from pytest_autoresearch.plugin.items import ExperimentItem, fresh_seed
from pytest_autoresearch.records.measurement import Measurement, format_exact, format_score
from pytest_autoresearch.records.overheads import Overheads
from pytest_autoresearch.records.trailers import parse_trial, trailers_of
from pytest_autoresearch.records.trial import Trial
from pytest_autoresearch.runs.experiment import RECORDS

if TYPE_CHECKING:
    from pytest_autoresearch.settings import Settings

FAILED = ("crashed", "out of memory", "timeout")


@dataclasses.dataclass(frozen=True, slots=True)
class StoredTrial:
    """A trial as its refs hold it."""

    name: str
    """Its tag and its number, ``mar5/0007``."""
    entry: Trial
    source: str
    """The proposed script."""
    platform: Mapping[str, str]
    """Of its campaign."""
    records: list[baseline.Baseline]
    """The baselines at the time."""

    @classmethod
    def of(cls, settings: Settings) -> StoredTrial:
        """Read the trial that was asked for.

        Raises:
            RepositoryError: there is none, it had no proposal, or it is of another experiment or metric.
        """
        assert settings.replay is not None
        tag, number = settings.replay
        repository, name = Repository.of(settings.script), f"{tag}/{number:04d}"
        trials = repository.commits(f"refs/autoresearch/{tag}/{number:04d}")
        openings = repository.commits(f"refs/autoresearch/{tag}/0000")
        if not trials or not openings or not number:
            last = max(repository.refs(f"refs/autoresearch/{tag}/[0-9]*"), default="0").rpartition("/")[2]
            has = f"the last trial of {tag} is {last}" if int(last) else f"no trials of {tag} are here"
            raise RepositoryError(f"there is no trial {name}: {has}")
        [trial], [opening] = trials, openings
        trailers = trailers_of(opening.message)
        for key, now in (("Experiment", repository.script), ("Metric", settings.metric)):
            if (then := trailers.get(key, ["unknown"])[0]) != now:
                raise RepositoryError(f"{name} is of {key.lower()} {then}, and this one is {now}")
        try:
            entry = parse_trial(trial.message, trial.name)
            platform = json.loads(trailers["Platform"][0])
            records = baseline.read(repository.committed(repository.beside(RECORDS), trial.name))
        except (ValueError, KeyError, BaselineFormatError) as error:
            raise RepositoryError(f"{name} is no trial of this version: {error}") from error
        if entry.unanswered:
            raise RepositoryError(f"nobody had a proposal for trial {name}: there is nothing to measure")
        source = repository.committed(repository.script, trial.name)
        if source is None:
            raise RepositoryError(f"{name} holds no {repository.script}")
        return cls(name, entry, source, platform, records)


STORED_TRIAL = pytest.StashKey[StoredTrial]()


class ReplayItem(ExperimentItem):
    """Runs a trial's script once more, with the ``prepare.py`` that it had; the same has to come out."""

    def __init__(self, *, past: StoredTrial, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.past = past

    def needs(self) -> Overheads | None:
        """Return what the baseline of the trial's campaign took, if that was on this platform."""
        record = self._record
        return None if record is None or self.past.platform != self.experiment.platform else record.needs

    @property
    def _record(self) -> baseline.Baseline | None:
        """The baseline at the time; None if somebody has committed another baseline.json by hand."""
        return baseline.find(self.past.records, self.past.platform, self.experiment.settings.metric)

    def runtest(self) -> None:
        """Measure once, and compare with what is stored if that was on this platform.

        Raises:
            Unmet: something else came out.
        """
        past, entry = self.past, self.past.entry
        then = f"{entry.verdict} then, {entry.reason}"
        try:
            run = self.measure(past.source, seed=fresh_seed())
        except RunFailed as error:
            if entry.score is not None and past.platform == self.experiment.platform:
                raise AssertionFailure(
                    f"trial {past.name} gives no score: {error}", then, *error.tail
                ) from error
            self.autoresearch_outcome = "passed", f"{error}; {then}"
            return
        metric = self.experiment.settings.metric
        self.note(**{metric: run.score})
        if past.platform != self.experiment.platform:
            then = f"{then}; on another platform, so not compared"
        elif entry.score is not None:
            self._reproduce(entry, run)
        elif entry.verdict in FAILED:
            raise AssertionFailure(f"trial {past.name} gives {metric} {format_score(run.score)}", then)
        self.autoresearch_outcome = "passed", f"{format_score(run.score)}; {then}"

    def _reproduce(self, entry: Trial, run: Measurement) -> None:
        metric = self.experiment.settings.metric
        record = self._record
        assert entry.score is not None
        if record is None:
            return
        scores = [one.score for one in entry.measurements]
        tolerance = judge.tolerance(Estimate.of(scores, record.noise), record.noise)
        if abs(run.score - entry.score) > tolerance:
            raise AssertionFailure(
                f"{metric} {format_score(run.score)}: trial {self.past.name} does not reproduce",
                f"stored      {', '.join(map(format_exact, scores))}, {entry.verdict}",
                f"measured    {format_exact(run.score)}",
                f"difference  {run.score - entry.score:+.6g}",
                f"tolerance   {format_exact(tolerance)}, noise {format_exact(record.noise.spread)}",
            )
