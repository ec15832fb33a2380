"""Everything that is written under a campaign's tag: one git transaction a step, then the files that follow.

The refs are the truth, see docs/formats.md. Each method moves the branch and the refs that belong together
in one transaction with their old values, so that a session that is killed leaves all of a step or none. The
working tree, ``ledger.jsonl`` and ``results.tsv`` follow; if they do not, the next session sees to it.
RepositoryError says that somebody else has moved a ref, or changed the experiment's files.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
from collections.abc import Mapping, Sequence

from pytest_autoresearch.campaign import baseline, checkout
from pytest_autoresearch.campaign.baseline import Baseline, Claim
from pytest_autoresearch.campaign.costs import CostTotal
from pytest_autoresearch.campaign.derived import DerivedFile, ledger_line, trial_row
from pytest_autoresearch.campaign.git import Moves, Repository
from pytest_autoresearch.campaign.history import CampaignHistory, after_trial
from pytest_autoresearch.campaign.logs import Logs
from pytest_autoresearch.campaign.refs import CampaignRefs
from pytest_autoresearch.errors import RepositoryError
from pytest_autoresearch.judging.judge import JudgeState
from pytest_autoresearch.records.measurement import Measurement, format_exact, format_score
from pytest_autoresearch.records.proposal import Proposal
from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.records.trailers import INCUMBENT_RUN, as_json, message_of, of_runs, trial_message
from pytest_autoresearch.records.trial import Decision, Trial
from pytest_autoresearch.source import constants
from pytest_autoresearch.source.files import digest, is_storable
from pytest_autoresearch.system.signals import deferred
from pytest_autoresearch.text import single_line

PACKED_EVERY = 500  # trials


@dataclasses.dataclass(slots=True)
class CampaignBranch:
    """The branch of a campaign, checked out: where it is, and the only way to move it."""

    repository: Repository
    refs: CampaignRefs
    tip: str

    def check_unchanged(self) -> None:
        """Check that the branch is checked out as it was left, and the files are as committed."""
        status = self.repository.status()
        if status.branch != self.refs.branch or status.commit != self.tip:
            msg = f"{self.refs.branch} is no longer checked out as the campaign left it: start again"
            raise RepositoryError(msg)
        if names := ", ".join(filter(self.repository.is_part, status.changed)):
            raise RepositoryError(f"{names} changed during the campaign: commit or restore, and start again")

    def with_record(self, record: Baseline) -> dict[str, str]:
        """Return path and text of the ``baseline.json`` at the tip, with *record* in it."""
        path = self.repository.path_of(self.repository.spec.baseline)
        return {path: baseline.write(baseline.records_at(self.repository, self.tip), record)}

    def store_record(self, record: Baseline, message: str, refs: Mapping[str, str | None]) -> None:
        """Commit *record* to the branch, and move *refs* from their old objects to the commit."""
        files = self.with_record(record)
        with deferred():
            commit = self.repository.commit(self.tip, files, message)
            self.move(commit, {ref: (old, commit) for ref, old in refs.items()}, advance=True)
            checkout.refresh(self.repository, list(files))

    def move(self, commit: str, refs: Moves, *, advance: bool) -> None:
        """Move *refs* in one transaction and, to *advance*, the branch to *commit*."""
        # The branch first: where that is all that happens, the ref can follow.
        branch: Moves = {self.refs.head: (self.tip, commit)} if advance else {}
        self.repository.move({**branch, **refs})
        if advance:
            self.tip = commit


@dataclasses.dataclass(eq=False, slots=True)
class CampaignWriter:
    """The only writer of a campaign, made by :meth:`CheckedOut.start` once the baseline is measured."""

    branch: CampaignBranch
    history: CampaignHistory
    state: JudgeState
    """The state of the judge before the next trial."""
    files: Mapping[str, str]
    """The editable files of the incumbent, by path from the experiment's folder."""
    logs: Logs
    costs: CostTotal
    ledger: DerivedFile
    results: DerivedFile
    unassigned: tuple[Measurement, ...]
    """Runs of the incumbent that no commit holds yet; the next trial's is to hold them."""
    device: str
    """The column of ``per_device`` that counts, for the constants of a trial."""
    recovered: tuple[str, ...]
    """Repairs of what a killed session left, a line each."""

    def add_trial(self, number: int, proposal: Proposal, decision: Decision) -> Trial:
        """Store a decided trial: its commit, its log and, if it is kept, the branch; then the files.

        Where somebody else has changed the experiment's files, the trial itself is stored before the error.
        """
        repository = self.branch.repository
        changed = proposed(proposal, repository.spec)
        paths = {name: repository.path_of(name) for name in changed}
        touched = set(filter(repository.is_part, repository.status().changed))
        touched -= {repository.path_of(name) for name in repository.spec.fixed}
        if decision.verdict == "kept":  # the working tree may have new files of the user's in the way
            new = (path for name, path in paths.items() if name not in self.files)
            touched |= {path for path in new if os.path.lexists(repository.root / path)}
        with deferred():
            trial = self._stored(number, proposal, decision, changed)
            try:
                self.ledger.append(ledger_line(trial))
                self.results.append(trial_row(trial))
            finally:
                if trial.is_kept and not touched:
                    self._follow(number, [*paths.values(), repository.path_of(repository.spec.baseline)])
            if number % PACKED_EVERY == 0:
                repository.pack()
        if touched:
            names = ", ".join(sorted(touched))
            raise RepositoryError(
                f"{names} changed during trial {number}, which is stored: restore and start again"
            )
        return trial

    def _stored(
        self, number: int, proposal: Proposal, decision: Decision, changed: Mapping[str, str]
    ) -> Trial:
        """Write the commit of a trial, whose *changed* files git can store, and move the refs."""
        branch, repository = self.branch, self.branch.repository
        files = {**self.files, **changed}
        incumbent_runs = self.unassigned + decision.incumbent_runs
        estimated = self.state.incumbent_after([run.score for run in incumbent_runs]).mean
        trial = Trial(
            number=number,
            description=proposal.description,
            verdict=decision.verdict,
            reason=single_line(decision.reason, 400),
            commit="",
            tree=repository.tree_of(files),
            # Rounded as the commit will hold it, so that a ledger that is rebuilt is the same.
            incumbent_score=float(format_exact(estimated)),
            measurements=decision.measurements,
            constants=constants.values(files.get(repository.spec.script, ""), self.device),
            digest=digest(files),
            incumbent_runs=incumbent_runs,
            code_size_change=decision.code_size_change,
            agent=proposal.agent,
            hypothesis=proposal.hypothesis,
            usage=proposal.usage,
            declined_by=proposal.declined_by,
            crashes=decision.crashes,
        )
        ref, incumbent = branch.refs.trial(number), self.history.incumbent
        state = after_trial(self.state, trial)
        texts = {repository.path_of(name): text for name, text in changed.items()}
        if trial.is_kept:
            incumbent = dataclasses.replace(
                incumbent,
                commit=ref,
                tree=trial.tree,
                measurements=trial.measurements,
                estimate=state.incumbent,
                noise=state.noise,
                start=self.history.header.start,
                claim=None,
            )
            texts |= branch.with_record(incumbent)
        commit = repository.commit(branch.tip, texts, trial_message(trial, incumbent.metric))
        moves: Moves = {ref: (None, commit), **self.logs.moves(number)}
        branch.move(commit, moves, advance=trial.is_kept)
        trial = dataclasses.replace(trial, commit=commit)
        self.logs.stored(number, moves)
        trials = (*self.history.trials, trial)
        self.history = dataclasses.replace(self.history, trials=trials, incumbent=incumbent)
        self.state, self.unassigned = state, ()
        if trial.is_kept:
            self.files = files
        return trial

    def _follow(self, number: int, paths: Sequence[str]) -> None:
        """Bring the working tree to a trial that was kept."""
        branch, repository = self.branch.refs.branch, self.branch.repository
        if repository.status().branch != branch:
            raise RepositoryError(f"{branch} was left during trial {number}, which is stored: start again")
        try:
            checkout.refresh(repository, paths)
        except RepositoryError as error:
            raise RepositoryError(
                f"trial {number} is stored, but not in the working tree: {error}"
            ) from error

    def add_claim(self, start: tuple[Measurement, ...], final: tuple[Measurement, ...]) -> Claim:
        """Store what fresh runs of the start and of the incumbent say, and return it."""
        self.branch.check_unchanged()
        claim, begun = Claim.of(start, final, self.state.noise), self.history.header.start
        record = dataclasses.replace(self.history.incumbent, start=begun, claim=claim)
        before, after = (statistics.fmean(run.claimed for run in runs) for runs in (start, final))
        trailers: dict[str, Sequence[object]] = {
            "Trials": [self.history.next_number - 1],
            "Gain": [format_exact(claim.gain)],
            "Margin": [format_exact(claim.margin)],
            "Start": [begun],
            INCUMBENT_RUN: as_json(start),
            **of_runs(final),
        }
        message = message_of(
            f"Claim {record.metric} {claim}",
            f"{format_score(before)} -> {format_score(after)} in {len(final)} fresh runs each",
            trailers,
        )
        ref = self.branch.refs.claim
        self.branch.store_record(record, message, {ref: self.branch.repository.tip_of(ref)})
        self.history = dataclasses.replace(self.history, incumbent=record)
        return claim


def proposed(proposal: Proposal, spec: ExperimentSpec) -> Mapping[str, str]:
    """Return the files that a proposal changes, none if git cannot store them as they are."""
    files = proposal.files
    return files if is_storable(files) and all(map(spec.is_editable, files)) else {}
