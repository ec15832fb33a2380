"""Preconditions of a campaign, checked before anything runs: locks, refs, the working tree, the records.

Every function raises RepositoryError, whose message says what to do, or does nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_autoresearch.campaign import baseline
from pytest_autoresearch.campaign.command import IDENTITY
from pytest_autoresearch.campaign.git import Commit, Repository, missing
from pytest_autoresearch.campaign.history import OTHER_TAG, parent_of
from pytest_autoresearch.campaign.refs import BRANCHES, NAMESPACE, CampaignRefs
from pytest_autoresearch.errors import BaselineFormatError, RepositoryError
from pytest_autoresearch.records.trailers import trailers_of


def check_room(repository: Repository, refs: CampaignRefs, state: Path) -> None:
    """Check that a campaign's branch, its refs and its folder *state* can be written."""
    own, common = repository.directory, repository.common
    locks = own / "index.lock", own / "HEAD.lock", common / "packed-refs.lock", common / f"{refs.head}.lock"
    for lock in filter(Path.exists, locks):
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


def check_visible(repository: Repository) -> None:
    """Check that git sees every change of the experiment's files."""
    records = repository.path_of(repository.spec.baseline)
    if (repository.root / records).exists() and repository.git.ids(f"HEAD:{records}") == [None]:
        raise RepositoryError(f"{records} is not committed: commit it, or move it away")
    listed = repository.git.call("ls-files", "-v", "--", repository.prefix or ".").splitlines()
    hidden = [line[2:] for line in listed if line[0] == "S" or line[0].islower()]
    if hidden := list(filter(repository.is_part, hidden)):
        names, relief = " ".join(hidden), "git update-index --no-assume-unchanged --no-skip-worktree"
        raise RepositoryError(f"git was told not to look at {names}: run '{relief} {names}'")


def check_whole(
    repository: Repository, refs: CampaignRefs, commits: Mapping[int, Commit], tip: str | None
) -> None:
    """Check that the refs are those of one campaign, with their objects and their branch."""
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
    editable = repository.editable(revisions)
    blobs = dict.fromkeys(blob for files in editable.values() for blob in (files or {}).values())
    lost = {blob for blob, found in zip(blobs, repository.git.ids(*blobs), strict=True) if found is None}
    for revision, files in editable.items():
        if not files or not lost.isdisjoint(files.values()):
            raise missing(f"{revision} of campaign {refs.tag}")
    if tip is None:
        on_branch = trailers_of(last.message).get("Verdict", ["kept"]) == ["kept"]
        command = f"git branch {refs.branch} {last.ref}{'' if on_branch else '^'}"
        raise RepositoryError(f"branch {refs.branch} is gone, and its trials are there: run '{command}'")


def check_terms(tag: str, header: str, terms: Mapping[str, Sequence[str]]) -> None:
    """Check that the *terms*, as trailers of today, are those of the campaign's *header*, a message."""
    then = trailers_of(header)
    was = {name: " ".join(then.get(name, ["unknown"])) for name in terms}
    now = {name: " ".join(values) for name, values in terms.items()}
    # What follows differs too wherever the experiment does.
    for names in ("Experiment", "Metric", "Direction"), ("Editable",), ("Platform",):
        differing = [(name.lower(), was[name], now[name]) for name in names if was[name] != now[name]]
        if differing and names == ("Platform",):
            differing = _differences(was["Platform"], now["Platform"])
        if differing:
            first = " and ".join(f"{name} {old}" for name, old, _ in differing)
            today = " and ".join(new for _, _, new in differing)
            hint = f"undo that, or {OTHER_TAG}"
            raise RepositoryError(f"campaign {tag} was started with {first}, now it is {today}", hint=hint)


def _differences(then: str, now: str) -> list[tuple[str, str, str]]:
    """Return each value of a platform that has changed: its name, the old and the new value."""
    try:
        before, today = dict(json.loads(then)), dict(json.loads(now))
    except ValueError:
        return [("platform", then, now)]
    names = [name for name in {**before, **today} if before.get(name) != today.get(name)]
    return [(name, str(before.get(name, "unknown")), str(today.get(name, "unknown"))) for name in names]


def check_record(
    repository: Repository, revision: str, header: str, latest: Sequence[str], platform: Mapping[str, str]
) -> None:
    """Check that a campaign has written the record in *revision*, and that it was not edited since.

    Files without a record, or with one of another version of the files, are measured anew: that is no error.
    The revisions *latest* should hold the same records, and are looked at first: there may be thousands.
    """
    path = repository.path_of(repository.spec.baseline)
    now, *known_ids = repository.git.ids(*(f"{one}:{path}" for one in (revision, *latest)))
    if now is None or now in known_ids:
        return
    # The commits of any campaign, newest first, that changed the records and this one may rest on.
    ours = ("--topo-order", "--full-history", "--fixed-strings", f"--committer=<{IDENTITY[1]}>")
    revisions = (revision, f"--glob={NAMESPACE}/*", "--not", f"{header}^@")
    commits = [*repository.git.call("rev-list", *ours, *revisions, "--", path).split(), f"{header}^"]
    if now in repository.git.ids(*(f"{one}:{path}" for one in commits)):
        return
    known = {}
    for commit in commits:
        try:
            known[commit] = baseline.find_at(repository, commit, platform)
        except BaselineFormatError:  # written by another version
            continue
    tree = repository.tree_at(revision)
    try:
        record = baseline.find_at(repository, revision, platform)
    except BaselineFormatError as error:
        reason = str(error).rpartition(": ")[0]
    else:
        if record is None or record.tree != tree or record in known.values():
            return
        reason = "somebody has changed what was measured"
    source = next((commit for commit, record in known.items() if record and record.tree == tree), None)
    relief = f"restore it with 'git checkout {source[:12]} -- {path}'" if source else f"delete {path}"
    raise RepositoryError(f"{path} as it is committed: {reason}; {relief}, and commit")
