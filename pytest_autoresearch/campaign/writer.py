"""Everything that is written under a campaign's tag: one git transaction a step, then the files that follow.

The refs are the truth, see docs/formats.md. Each method moves the branch and the refs that belong together
in one transaction with their old values, so that a session that is killed leaves all of a step or none. The
working tree, ``ledger.jsonl`` and ``results.tsv`` follow; if they do not, the next session sees to it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

from pytest_autoresearch.campaign import baseline, checkout
from pytest_autoresearch.campaign.baseline import Baseline, Claim
from pytest_autoresearch.campaign.costs import CostTotal
from pytest_autoresearch.campaign.derived import DerivedFile, ledger_line, trial_row
from pytest_autoresearch.campaign.git import Repository, Status
from pytest_autoresearch.campaign.history import CampaignHistory, after_trial
from pytest_autoresearch.campaign.logs import Logs, Moves
from pytest_autoresearch.campaign.refs import CampaignRefs
from pytest_autoresearch.errors import RepositoryError
from pytest_autoresearch.judging.judge import JudgePolicy
from pytest_autoresearch.records.measurement import Measurement, format_exact
from pytest_autoresearch.records.proposal import Proposal
from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.records.trailers import claim_message, trial_message
from pytest_autoresearch.records.trial import Decision, Trial
from pytest_autoresearch.source import constants
from pytest_autoresearch.source.files import digest, is_storable
from pytest_autoresearch.system.signals import deferred
from pytest_autoresearch.text import single_line

PACKED_EVERY = 500  # trials


class CampaignBranch:
    """The branch of a campaign, checked out: where it is, and the only way to move it."""

    def __init__(self, repository: Repository, spec: ExperimentSpec, refs: CampaignRefs, tip: str) -> None:
        self.repository, self.spec, self.refs, self.tip = repository, spec, refs, tip
        self._prefix = repository.prefix_of(spec)
        self.record_path = self._prefix + spec.baseline
        """The path of ``baseline.json`` from the root."""
        self.fixed = {self._prefix + path for path in spec.fixed}
        """The paths of the files that no trial changes, from the root."""

    def path_of(self, path: str) -> str:
        """Return a path from the root for one from the experiment's folder."""
        return self._prefix + path

    def records(self) -> list[Baseline]:
        """Return the records at the tip."""
        return baseline.records_at(self.repository, self.spec, self.tip)

    def changed(self, status: Status) -> set[str]:
        """Return the files of the experiment that somebody has changed."""
        return {
            path
            for path in status.changed
            if path.startswith(self._prefix) and self.spec.is_part(path.removeprefix(self._prefix))
        }

    def check_unchanged(self) -> None:
        """Check that the branch is checked out as it was left, and the experiment's files are as committed.

        Raises:
            RepositoryError: somebody else has moved the branch, or changed the files.
        """
        status = self.repository.status()
        if status.branch != self.refs.branch or status.commit != self.tip:
            msg = f"{self.refs.branch} is no longer checked out as the campaign left it: start again"
            raise RepositoryError(msg)
        if changed := self.changed(status):
            names = ", ".join(sorted(changed))
            raise RepositoryError(f"{names} changed during the campaign: commit or restore, and start again")

    def store_record(self, record: Baseline, message: str, refs: Mapping[str, str | None]) -> None:
        """Commit *record* to the branch, and move *refs* from their old objects to the commit.

        Raises:
            RepositoryError: somebody else has moved the branch, or one of the refs.
        """
        text = baseline.write(self.records(), record)
        with deferred():
            commit = self.repository.commit(self.tip, {self.record_path: text}, message)
            self.move(commit, {ref: (old, commit) for ref, old in refs.items()}, advance=True)
            checkout.refresh(self.repository, self.spec.folder, [self.record_path])

    def move(self, commit: str, refs: Moves, *, advance: bool) -> None:
        """Move *refs* in one transaction and, to *advance*, the branch to *commit*."""
        # The branch first: where that is all that happens, the ref can follow.
        branch: Moves = {self.refs.head: (self.tip, commit)} if advance else {}
        self.repository.move(branch | refs)
        if advance:
            self.tip = commit


class CampaignWriter:
    """The only writer of a campaign, made by :meth:`CheckedOut.start` once the baseline is measured."""

    def __init__(
        self,
        branch: CampaignBranch,
        history: CampaignHistory,
        policy: JudgePolicy,
        *,
        logs: Logs,
        costs: CostTotal,
        ledger: DerivedFile,
        results: DerivedFile,
        incumbent_runs: tuple[Measurement, ...],
        device: str,
        recovered: Sequence[str],
    ) -> None:
        """Take over a campaign.

        Args:
            branch: checked out.
            history: up to now.
            policy: how to judge.
            logs: of the trials.
            costs: the total.
            ledger: ``ledger.jsonl``.
            results: ``results.tsv``.
            incumbent_runs: runs of the incumbent that no commit holds yet; the next trial's is to hold them.
            device: the column of ``per_device`` that counts, for the constants of a trial.
            recovered: repairs of what a killed session left, a line each.
        """
        self.history = history
        self.costs = costs
        self.recovered = tuple(recovered)
        self.state = history.judge_state(policy)
        """The state of the judge before the next trial."""
        self.files: Mapping[str, str] = branch.repository.files_at(branch.tip, branch.spec)
        """The editable files of the incumbent, by path from the experiment's folder."""
        self.branch, self.logs, self._ledger, self._results = branch, logs, ledger, results
        self._unassigned, self._device = incumbent_runs, device

    @property
    def unassigned_scores(self) -> tuple[float, ...]:
        """Scores of runs of the incumbent that no commit holds yet."""
        return tuple(run.score for run in self._unassigned)

    def add_trial(self, number: int, proposal: Proposal, decision: Decision) -> Trial:
        """Store a decided trial: its commit, its log and, if it is kept, the branch; then the files.

        Raises:
            RepositoryError: somebody else has moved the branch, or written the trial; or has changed the
                experiment's files, and then the trial itself is stored.
        """
        branch, changed = self.branch, proposed(proposal, self.branch.spec)
        touched = branch.changed(branch.repository.status()) - branch.fixed
        if decision.verdict == "kept":
            touched |= self._in_the_way(changed)
        with deferred():
            trial = self._stored(number, proposal, decision, changed)
            try:
                self._ledger.append(ledger_line(trial))
                self._results.append(trial_row(trial))
            finally:
                if trial.is_kept and not touched:
                    self._follow(number, [*map(branch.path_of, changed), branch.record_path])
            if number % PACKED_EVERY == 0:
                branch.repository.pack()
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
        incumbent_runs = self._unassigned + decision.incumbent_runs
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
            constants=constants.values(files.get(branch.spec.script, ""), self._device),
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
        texts = {branch.path_of(path): text for path, text in changed.items()}
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
            texts[branch.record_path] = baseline.write(branch.records(), incumbent)
        commit = repository.commit(branch.tip, texts, trial_message(trial, self.history.header.metric))
        moves: Moves = {ref: (None, commit), **self.logs.moves(number)}
        branch.move(commit, moves, advance=trial.is_kept)
        trial = trial.written_as(commit)
        self.logs.stored(number, moves)
        self.history, self.state, self._unassigned = self.history.appended(trial, incumbent), state, ()
        if trial.is_kept:
            self.files = files
        return trial

    def _in_the_way(self, files: Mapping[str, str]) -> set[str]:
        """Return the new files, by path from the root, that the working tree has too: the user's."""
        paths = {self.branch.path_of(path) for path in files if path not in self.files}
        return {path for path in paths if os.path.lexists(self.branch.repository.root / path)}

    def _follow(self, number: int, paths: Sequence[str]) -> None:
        """Bring the working tree to a trial that was kept."""
        branch, repository = self.branch, self.branch.repository
        if repository.status().branch != branch.refs.branch:
            raise RepositoryError(
                f"{branch.refs.branch} was left during trial {number}, which is stored: start again"
            )
        try:
            checkout.refresh(repository, branch.spec.folder, paths)
        except RepositoryError as error:
            raise RepositoryError(
                f"trial {number} is stored, but not in the working tree: {error}"
            ) from error

    def add_claim(self, start: tuple[Measurement, ...], final: tuple[Measurement, ...]) -> Claim:
        """Store what fresh runs of the start and of the incumbent say, and return it.

        Raises:
            RepositoryError: somebody else has moved the branch, or changed the experiment's files.
        """
        self.branch.check_unchanged()
        history, branch = self.history, self.branch
        claim = Claim.of(start, final, self.state.noise)
        record = dataclasses.replace(history.incumbent, start=history.header.start, claim=claim)
        message = claim_message(
            history.header.metric,
            str(claim),
            trials=history.next_number - 1,
            gain=claim.gain,
            margin=claim.margin,
            start_commit=history.header.start,
            start=claim.start,
            final=claim.final,
        )
        ref = branch.refs.claim
        branch.store_record(record, message, {ref: branch.repository.tip_of(ref)})
        self.history = dataclasses.replace(history, incumbent=record)
        return claim


def proposed(proposal: Proposal, spec: ExperimentSpec) -> Mapping[str, str]:
    """Return the files that a proposal changes, none if git cannot store them as they are."""
    files = proposal.files
    return files if is_storable(files) and all(map(spec.is_editable, files)) else {}
