"""What a campaign stands on, looked at before anything runs: git's locks, its refs, what is committed.

Every function raises :class:`RepositoryError`, in a line with the relief, or does nothing at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pytest_autoresearch.campaign import baseline
from pytest_autoresearch.campaign.git import Commit, Repository
from pytest_autoresearch.errors import BaselineFormatError, RepositoryError
from pytest_autoresearch.records.trailers import trailers_of

OTHER_TAG = "choose another --autoresearch-tag"


def check_room(repository: Repository, tag: str, state: Path) -> None:
    """Look whether a campaign's branch, its refs and its folder *state* can be written."""
    branch, campaign = f"refs/heads/autoresearch/{tag}", f"refs/autoresearch/{tag}"
    for lock in repository.locks(f"autoresearch/{tag}"):
        raise RepositoryError(f"{lock} is there: remove it, unless another git is at work")
    # The campaign's is asked for by name, for thousands may lie below it.
    taken = [campaign] * repository.has(campaign) + [
        ref
        for ref in repository.refs("refs/heads/autoresearch")
        if branch.startswith(f"{ref}/") or ref.startswith(f"{branch}/")
    ]
    for ref in taken:
        raise RepositoryError(f"{ref} leaves no room for the branch autoresearch/{tag}: rename or delete it")
    for folder in (state.parent, state):
        if folder.exists() and not folder.is_dir():
            raise RepositoryError(f"{folder} is no folder: move it away first")
    ledger = state / "ledger.jsonl"
    if ledger.exists() and not ledger.is_file():
        raise RepositoryError(f"{ledger} is no file: move it away first")


def check_seen(repository: Repository, records: str, *others: str) -> None:
    """Look whether git sees all that the user does to the experiment's files."""
    if (repository.root / records).exists() and repository.blob_of(records) is None:
        raise RepositoryError(f"{records} is not committed: commit it, or move it away")
    if hidden := repository.hidden(records, *others):
        names, relief = " ".join(hidden), "git update-index --no-assume-unchanged --no-skip-worktree"
        raise RepositoryError(f"git was told not to look at {names}: run '{relief} {names}'")


def check_whole(repository: Repository, tag: str, trials: Mapping[int, Commit]) -> None:
    """Look whether the refs are those of one campaign, whole, with their branch.

    *trials* has the commit of every trial by its number, of the opening by 0.
    """
    branch, opening = f"autoresearch/{tag}", trials.get(0)
    for number, trial in trials.items():
        trailers = trial.message.strip().rpartition("\n\n")[2]
        if not trailers.startswith(f"Trial: {number}\n"):
            raise RepositoryError(
                f"{trial.ref} is no trial: commit {trial.name[:12]} was not written as one; "
                f"delete it with 'git update-ref -d {trial.ref}'"
            )
    if opening is None:
        gone = f"refs/autoresearch/{tag}/0000, the campaign's opening, is gone"
        raise RepositoryError(f"{gone}: restore it, or {OTHER_TAG}")
    # What a campaign goes on from: its opening, and every incumbent. The last trial may be one.
    revisions = [opening.name, max(trials.items())[1].name]
    # A shallow clone has commits without the parents that they have elsewhere.
    parents = (trial.parent or f"{trial.ref}^" for trial in trials.values() if trial is not opening)
    revisions += dict.fromkeys(parents)
    for revision, blob in zip(revisions, repository.blobs_of(repository.script, revisions), strict=True):
        if blob.endswith(" missing"):
            relief = "run 'git fetch --unshallow' in a shallow clone, else 'git fsck'"
            raise RepositoryError(f"{revision} of campaign {tag} is not all there: {relief}")
    if repository.tip_of(f"refs/heads/{branch}") is None:
        _, last = max(trials.items())
        own = trailers_of(last.message).get("Verdict", ["kept"]) == ["kept"]
        tip = f"{last.ref}{'' if own else '^'}"
        raise RepositoryError(
            f"branch {branch} is gone, and its trials are there: run 'git branch {branch} {tip}'"
        )


def check_terms(tag: str, then: Mapping[str, Sequence[str]], now: Mapping[str, str]) -> None:
    """Look whether a campaign goes on with what it was begun with.

    *then* has the trailers of its opening, *now* their values today, the last of them the platform's JSON.
    """
    was = {name: then.get(name, ["unknown"])[0] for name in now}
    differing = [(name.lower(), was[name], new) for name, new in now.items() if was[name] != new]
    if [name for name, _, _ in differing] == ["platform"]:
        differing = _differences(was["Platform"], now["Platform"])
    if named := [row for row in differing if row[0] != "platform"] or differing:
        begun = " and ".join(f"{name} {old}" for name, old, _ in named)
        today = " and ".join(new for _, _, new in named)
        relief = "undo that, or choose another --autoresearch-tag"
        raise RepositoryError(f"campaign {tag} was begun with {begun}, now it is {today}: {relief}")


def _differences(then: str, now: str) -> list[tuple[str, str, str]]:
    """Return what a platform has other than it had, each by name, old and new value."""
    try:
        before, today = dict(json.loads(then)), dict(json.loads(now))
    except ValueError:
        return [("platform", then, now)]
    names = [name for name in {**before, **today} if before.get(name) != today.get(name)]
    return [(name, str(before.get(name, "unknown")), str(today.get(name, "unknown"))) for name in names]


def check_record(
    repository: Repository,
    records: str,
    revision: str,
    opening: str,
    *,
    latest: Sequence[str],
    find: Callable[[str], baseline.Baseline | None],
) -> None:
    """Look whether *revision* holds of its script what a campaign has measured, and nobody's edits.

    A script without figures, or with those of another one, is no trouble: it is measured anew. *records* is
    the path of ``baseline.json``, *find* gives the record of this platform in a commit, and *latest* are the
    revisions that should hold the same as *revision*, to be looked at first: there may be thousands.
    """
    now = repository.blob_of(records, revision)
    if now is None or now in repository.blobs_of(records, latest):
        return
    commits = [*repository.written(records, revision, opening), f"{opening}^"]
    if now in repository.blobs_of(records, commits):
        return
    known = {}
    for commit in commits:
        try:
            known[commit] = find(commit)
        except BaselineFormatError:  # written by another version
            continue
    blob = repository.blob_of(repository.script, revision)
    try:
        record = find(revision)
    except BaselineFormatError as error:
        reason = str(error).rpartition(": ")[0]
    else:
        if record is None or record.blob != blob or record in known.values():
            return
        reason = "somebody has changed what was measured"
    source = next((commit for commit, record in known.items() if record and record.blob == blob), None)
    relief = f"restore it with 'git checkout {source[:12]} -- {records}'" if source else f"delete {records}"
    raise RepositoryError(f"{records} as it is committed: {reason}; {relief}, and commit")
