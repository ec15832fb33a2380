"""Preconditions of a campaign, checked before anything runs: locks, refs, the working tree, the records.

Every function raises RepositoryError, whose message says what to do, or does nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_autoresearch.campaign.baseline import Baseline
from pytest_autoresearch.campaign.git import Repository, missing
from pytest_autoresearch.campaign.history import OTHER_TAG, CampaignCommits, parent_of
from pytest_autoresearch.campaign.refs import BRANCHES, CampaignRefs
from pytest_autoresearch.errors import BaselineFormatError, RepositoryError
from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.records.trailers import trailers_of


def check_room(repository: Repository, refs: CampaignRefs, state: Path) -> None:
    """Check that a campaign's branch, its refs and its folder *state* can be written."""
    for lock in repository.locks(refs.head):
        raise RepositoryError(f"{lock} is there: remove it, unless another git is at work")
    # The campaign's is asked for by name, for thousands may lie below it.
    taken = [refs.root] * (repository.git.ids(refs.root) != [None]) + [
        ref
        for ref in repository.refs(BRANCHES)
        if refs.head.startswith(f"{ref}/") or ref.startswith(f"{refs.head}/")
    ]
    for ref in taken:
        raise RepositoryError(f"{ref} leaves no room for the branch {refs.branch}: rename or delete it")
    for folder in (state.parent, state):
        if folder.exists() and not folder.is_dir():
            raise RepositoryError(f"{folder} is no folder: move it away first")
    ledger = state / "ledger.jsonl"
    if ledger.exists() and not ledger.is_file():
        raise RepositoryError(f"{ledger} is no file: move it away first")


def check_visible(repository: Repository, spec: ExperimentSpec) -> None:
    """Check that git sees every change of the experiment's files."""
    prefix = repository.prefix_of(spec)
    records = prefix + spec.baseline
    if (repository.root / records).exists() and repository.git.ids(f"HEAD:{records}") == [None]:
        raise RepositoryError(f"{records} is not committed: commit it, or move it away")
    hidden = repository.hidden(prefix or ".")
    if hidden := [path for path in hidden if spec.is_part(path.removeprefix(prefix))]:
        names, relief = " ".join(hidden), "git update-index --no-assume-unchanged --no-skip-worktree"
        raise RepositoryError(f"git was told not to look at {names}: run '{relief} {names}'")


def check_whole(
    repository: Repository, spec: ExperimentSpec, refs: CampaignRefs, found: CampaignCommits
) -> None:
    """Check that the refs are those of one campaign, with their objects and their branch."""
    commits, tip = found
    for number, commit in commits.items():
        if not commit.message.strip().rpartition("\n\n")[2].startswith(f"Trial: {number}\n"):
            raise RepositoryError(
                f"{commit.ref} is no trial: commit {commit.name[:12]} was not written as one; "
                f"delete it with 'git update-ref -d {commit.ref}'"
            )
    header, last = commits.get(0), max(commits.items())[1]
    if header is None:
        raise RepositoryError(f"{refs.header}, the campaign's header, is gone: restore it, or {OTHER_TAG}")
    # What a campaign goes on from: its header, and every incumbent. The last trial may be one.
    revisions = [header.name, last.name]
    revisions += dict.fromkeys(parent_of(commit) for commit in commits.values() if commit is not header)
    editable = repository.editable(revisions, spec)
    blobs = dict.fromkeys(blob for files in editable.values() for blob in (files or {}).values())
    lost = {blob for blob, found in zip(blobs, repository.git.ids(*blobs), strict=True) if found is None}
    for revision, files in editable.items():
        if not files or not lost.isdisjoint(files.values()):
            raise missing(f"{revision} of campaign {refs.tag}")
    if tip is None:
        on_branch = trailers_of(last.message).get("Verdict", ["kept"]) == ["kept"]
        command = f"git branch {refs.branch} {last.ref}{'' if on_branch else '^'}"
        raise RepositoryError(f"branch {refs.branch} is gone, and its trials are there: run '{command}'")


def check_terms(tag: str, header: str, now: Sequence[tuple[str, str]]) -> None:
    """Check that a campaign goes on with what it was started with.

    Args:
        tag: of the campaign.
        header: the message of its header.
        now: the trailers that a header would have today, the last of them the platform's JSON.
    """
    trailers = trailers_of(header)
    was, today = ({name: " ".join(trailers.get(name, ["unknown"])) for name, _ in now}, _joined(now))
    differing = [(name.lower(), was[name], new) for name, new in today.items() if was[name] != new]
    if [name for name, _, _ in differing] == ["platform"]:
        differing = _differences(was["Platform"], today["Platform"])
    # What follows differs too wherever the experiment does.
    lesser = {"editable", "platform"}
    if named := (
        [row for row in differing if row[0] not in lesser]
        or [row for row in differing if row[0] == "editable"]
        or differing
    ):
        then = " and ".join(f"{name} {old}" for name, old, _ in named)
        changed = " and ".join(new for _, _, new in named)
        relief = "undo that, or choose another --autoresearch-tag"
        raise RepositoryError(f"campaign {tag} was started with {then}, now it is {changed}: {relief}")


def _joined(terms: Sequence[tuple[str, str]]) -> dict[str, str]:
    names = dict.fromkeys(name for name, _ in terms)
    return {name: " ".join(value for key, value in terms if key == name) for name in names}


def _differences(then: str, now: str) -> list[tuple[str, str, str]]:
    """Return each value of a platform that has changed: its name, the old and the new value."""
    try:
        before, today = dict(json.loads(then)), dict(json.loads(now))
    except ValueError:
        return [("platform", then, now)]
    names = [name for name in {**before, **today} if before.get(name) != today.get(name)]
    return [(name, str(before.get(name, "unknown")), str(today.get(name, "unknown"))) for name in names]


def check_record(
    repository: Repository,
    spec: ExperimentSpec,
    revision: str,
    header: str,
    *,
    latest: Sequence[str],
    find: Callable[[str], Baseline | None],
) -> None:
    """Check that a campaign has written the record in *revision*, and that it was not edited since.

    Files without a record, or with one of another version of the files, are measured anew: that is no error.

    Args:
        repository: where the commits are.
        spec: the experiment.
        revision: where the campaign goes on.
        header: the ref of its header.
        latest: revisions that should hold the same records, looked at first: there may be thousands.
        find: returns the record of this platform in a commit, or raises BaselineFormatError.
    """
    records = repository.prefix_of(spec) + spec.baseline
    now, *known_ids = repository.git.ids(*(f"{one}:{records}" for one in (revision, *latest)))
    if now is None or now in known_ids:
        return
    commits = [*repository.written(records, revision, header), f"{header}^"]
    if now in repository.git.ids(*(f"{one}:{records}" for one in commits)):
        return
    known = {}
    for commit in commits:
        try:
            known[commit] = find(commit)
        except BaselineFormatError:  # written by another version
            continue
    tree = repository.tree_at(revision, spec)
    try:
        record = find(revision)
    except BaselineFormatError as error:
        reason = str(error).rpartition(": ")[0]
    else:
        if record is None or record.tree != tree or record in known.values():
            return
        reason = "somebody has changed what was measured"
    source = next((commit for commit, record in known.items() if record and record.tree == tree), None)
    relief = f"restore it with 'git checkout {source[:12]} -- {records}'" if source else f"delete {records}"
    raise RepositoryError(f"{records} as it is committed: {reason}; {relief}, and commit")
