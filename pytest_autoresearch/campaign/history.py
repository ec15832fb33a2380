"""A campaign as its refs tell it, read without a lock, a checkout or a run.

RepositoryError is raised where something is torn, missing, or not written by a campaign; it says what to do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from typing import Self

from pytest_autoresearch.campaign import baseline
from pytest_autoresearch.campaign.baseline import Baseline, Claim
from pytest_autoresearch.campaign.git import Commit, Repository
from pytest_autoresearch.campaign.refs import CampaignRefs, padded
from pytest_autoresearch.errors import BaselineFormatError, RepositoryError
from pytest_autoresearch.judging.judge import JudgePolicy, JudgeState
from pytest_autoresearch.judging.pruning import (
    CurvePair,
    Margins,
    Points,
    PruneRule,
    PruningBacktest,
    backtest,
)
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.proposal import Usage
from pytest_autoresearch.records.trailers import parse_measurements, parse_trial, trailers_of
from pytest_autoresearch.records.trial import Trial
from pytest_autoresearch.source.files import digest

SOFT_LIMIT = 1.5  # of the start's memory, unless the user names another
OTHER_TAG = "choose another --autoresearch-tag"


@dataclasses.dataclass(frozen=True, slots=True)
class CampaignHeader:
    """What a campaign started with: its first commit, ``0000``."""

    commit: str
    start: str
    """The commit that the campaign started from, the parent of the header."""
    files: Mapping[str, str]
    """The editable files, by path from the experiment's folder."""
    measurements: tuple[Measurement, ...]
    """The runs that the campaign started with."""
    baseline: Baseline
    """The record that the campaign started with."""

    @property
    def runs(self) -> tuple[Measurement, ...]:
        """Its runs, and those that the score of the files was known from before."""
        return tuple(dict.fromkeys((*self.baseline.measurements, *self.measurements)))

    @property
    def memory_mb(self) -> float | None:
        """Peak memory of the runs in MiB, None if they do not say."""
        return max((run.memory_mb for run in self.runs if run.memory_mb), default=None)


@dataclasses.dataclass(frozen=True, slots=True)
class CampaignHistory:
    """Everything that is stored of a campaign, up to its latest trial."""

    tag: str
    header: CampaignHeader
    trials: tuple[Trial, ...]
    """Every trial, in the order of their numbers, which may have gaps."""
    incumbent: Baseline
    """The record of the best version so far."""
    replaced: Mapping[int, Baseline]
    """The records of versions that somebody committed by hand in the incumbent's place.

    The key is the number of the first trial that was judged against the version, or is going to be.
    """

    @classmethod
    def load(cls, repository: Repository, tag: str) -> Self:
        """Read a campaign."""
        refs = CampaignRefs(tag)
        commits, tip = read_commits(repository, refs)
        if 0 not in commits:
            raise RepositoryError(f"there is no campaign {tag}", hint=f"{refs.header} is not here")
        first = commits.pop(0)
        platform, runs = _of_header(first)
        try:
            trials = tuple(parse_trial(commit.message, commit.name) for commit in commits.values())
        except ValueError as error:
            raise RepositoryError(f"a ref below {refs.root}/ is no trial: {error}") from error
        tip, bases = tip or first.name, [parent_of(commit) for commit in commits.values()]
        trees = repository.trees(first.name, *bases, tip)
        record = functools.partial(_record, repository, platform)
        start = first.parent or first.name  # in a shallow clone the header itself has to do
        files = repository.files_at(first.name)
        header = CampaignHeader(first.name, start, files, runs, record(first.name))
        replaced, latest, tree = dict[int, Baseline](), first.name, trees[first.name]
        for trial, base in zip(trials, bases, strict=True):
            if trees[base] != tree:
                replaced[trial.number], latest, tree = record(base), base, trees[base]
            if trial.is_kept:
                latest, tree = trial.commit, trial.tree
        incumbent = _readable(repository, tip, platform)
        if incumbent is None or incumbent.tree != trees[tip]:  # a version that was never measured
            incumbent = record(latest)
        elif incumbent.tree != tree:
            replaced[1 + max(commits, default=0)] = incumbent
        return cls(tag, header, trials, incumbent, replaced)

    @property
    def next_number(self) -> int:
        """The number of the next trial."""
        return 1 + max((trial.number for trial in self.trials), default=0)

    @property
    def kept(self) -> tuple[Trial, ...]:
        """The trials that became the incumbent, in turn."""
        return tuple(trial for trial in self.trials if trial.is_kept)

    @property
    def usage(self) -> Usage:
        """What the proposals of all trials have cost."""
        return sum((trial.usage for trial in self.trials), Usage())

    def trial_like(self, files: Mapping[str, str]) -> int | None:
        """Return the first trial whose editable files do what *files* do, 0 for the start; None if none."""
        wanted = digest(files)
        if wanted == digest(self.header.files):
            return 0
        return next((trial.number for trial in self.trials if trial.digest == wanted), None)

    @property
    def claim(self) -> Claim | None:
        """What this campaign has claimed of its incumbent."""
        return self.incumbent.claim if self.incumbent.start == self.header.start else None

    @property
    def is_to_claim(self) -> bool:
        """Whether something was gained, and how much has not been measured yet."""
        return bool(self.kept) and self.incumbent.tree != self.header.baseline.tree and self.claim is None

    def judge_state(self, policy: JudgePolicy) -> JudgeState:
        """Return the state of the judge before the next trial: every trial is replayed from the header on."""
        known = self.header.baseline
        state = JudgeState.initial(policy, known.estimate, known.noise)
        for trial in self.trials:
            state = after_trial(self._on_incumbent(state, trial.number), trial)
        return self._on_incumbent(state, self.next_number)

    def _on_incumbent(self, state: JudgeState, number: int) -> JudgeState:
        if record := self.replaced.get(number):
            return dataclasses.replace(state, incumbent=record.estimate, noise=record.noise)
        return state

    def memory_soft_limit(self, asked: float | None) -> float | None:
        """Return the MiB that a run should stay below: *asked*, else a multiple of the start's, if known."""
        memory = self.header.memory_mb
        return SOFT_LIMIT * memory if asked is None and memory is not None else asked

    def prune_rule(self, state: JudgeState) -> PruneRule:
        """Return what the trials teach about when a run is hopeless."""
        repeats = [run.curve for run in self.header.runs]
        margins = Margins.learned(self.curve_pairs(), repeats, state.noise.std, state.policy.direction)
        return PruneRule(self.incumbent.measurements[0].curve, margins)

    def backtest(self, state: JudgeState) -> PruningBacktest:
        """Return what pruning would have done to the trials that ran to their end."""
        repeats = [run.curve for run in self.header.runs]
        return backtest(self.curve_pairs(), repeats, state.noise.std, state.policy.direction)

    def curve_pairs(self) -> Iterator[CurvePair]:
        """Yield the loss curve of each scored trial beside that of the incumbent at the time."""
        incumbent: Points = self.header.runs[0].curve
        for trial in self.trials:
            if trial.is_scored and trial.score is not None:
                curve = trial.measurements[0].curve
                yield CurvePair(curve, trial.score, incumbent, trial.incumbent_score, trial.is_kept)
            if trial.is_kept:
                incumbent = trial.measurements[0].curve


@dataclasses.dataclass(frozen=True, slots=True)
class StoredTrial:
    """One trial as its refs hold it, read without the rest of its campaign."""

    name: str
    """The tag and the number, ``mar5/0007``."""
    trial: Trial
    files: Mapping[str, str]
    """The proposed editable files, by path from the experiment's folder."""
    platform: Mapping[str, str]
    """The platform of its campaign."""
    baseline: Baseline | None
    """The record that its campaign had then; None if somebody has committed another baseline.json by hand."""

    @classmethod
    def load(cls, repository: Repository, tag: str, number: int) -> Self:
        """Read a trial of this experiment and metric, which has a proposal."""
        refs, name, spec = CampaignRefs(tag), f"{tag}/{padded(number)}", repository.spec
        commits = {commit.ref: commit for commit in repository.commits(refs.trial(number), refs.header)}
        if not number or len(commits) < 2:
            last = max(read_commits(repository, refs)[0], default=0)
            has = f"the last trial of {tag} is {padded(last)}" if last else f"no trials of {tag} are here"
            raise RepositoryError(f"there is no trial {name}: {has}")
        header, commit = commits[refs.header], commits[refs.trial(number)]
        for key, value in {"Experiment": repository.path_of(spec.script), "Metric": spec.metric}.items():
            if (then := trailers_of(header.message).get(key, ["unknown"])[0]) != value:
                raise RepositoryError(f"{name} is of {key.lower()} {then}, and this one is {value}")
        try:
            trial = parse_trial(commit.message, commit.name)
        except ValueError as error:
            raise RepositoryError(f"{name} is no trial of this version: {error}") from error
        if trial.unanswered:
            raise RepositoryError(f"no agent had a proposal for trial {name}: there is nothing to measure")
        files, (platform, _) = repository.files_at(commit.name), _of_header(header)
        return cls(name, trial, files, platform, _readable(repository, commit.name, platform))


def read_commits(repository: Repository, refs: CampaignRefs) -> tuple[dict[int, Commit], str | None]:
    """Return a campaign's trials by number, in order, with the header as 0; and the branch's tip, if any."""
    commits = {commit.ref: commit for commit in repository.commits(refs.commits, refs.head)}
    tip, _ = commits.pop(refs.head, None), commits.pop(refs.claim, None)
    trials = {refs.number_of(ref): commit for ref, commit in commits.items()}
    return dict(sorted(trials.items())), None if tip is None else tip.name


def parent_of(commit: Commit) -> str:
    """Return a revision for the parent of a trial; a shallow clone has commits without their parents."""
    return commit.parent or f"{commit.ref}^"


def after_trial(state: JudgeState, trial: Trial) -> JudgeState:
    """Return the state of the judge after *trial*."""
    return state.after(
        [run.score for run in trial.measurements if trial.is_scored],
        [run.score for run in trial.incumbent_runs],
        kept=trial.is_kept,
        code_size_change=trial.code_size_change,
    )


def _of_header(commit: Commit) -> tuple[Mapping[str, str], tuple[Measurement, ...]]:
    """Return platform and runs of a campaign's header."""
    trailers = trailers_of(commit.message)
    try:
        return dict(json.loads(trailers["Platform"][0])), parse_measurements(trailers)
    except (KeyError, TypeError, ValueError) as error:
        raise RepositoryError(f"{commit.ref} is no header of a campaign: {error}") from error


def _record(repository: Repository, platform: Mapping[str, str], revision: str) -> Baseline:
    """Return the record in a commit of a campaign, which has to have one."""
    try:
        found = baseline.find_at(repository, revision, platform)
    except BaselineFormatError as error:
        raise RepositoryError(f"{revision} is of another version ({error})", hint=OTHER_TAG) from error
    if found is None:
        raise RepositoryError(f"{revision} holds no baseline of the campaign", hint=OTHER_TAG)
    return found


def _readable(repository: Repository, revision: str, platform: Mapping[str, str]) -> Baseline | None:
    """Return the record in a commit; None if there is none that can be read."""
    with contextlib.suppress(BaselineFormatError):
        return baseline.find_at(repository, revision, platform)
    return None
