"""The working tree: looked at, switched to a branch, brought to what a commit holds."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from pytest_autoresearch.campaign.command import QUIET, configuration, lines
from pytest_autoresearch.campaign.git import Repository
from pytest_autoresearch.errors import RepositoryError, StorageError
from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.system.files import writing

FRESH = ".autoresearch.new"  # where files of the working tree are written before they replace the old ones
PATIENCE = 3.0  # seconds to wait for another git, which has the index


def tree(repository: Repository, spec: ExperimentSpec) -> str:
    """Return the id of the tree of the editable files as they are in the working tree."""
    prefix = repository.prefix_of(spec)
    options = ("-z", "--cached", "--others", "--exclude-standard")
    listing = repository.git.call("ls-files", *options, "--", prefix or ".").split("\0")
    paths = sorted({path.removeprefix(prefix) for path in listing if path})
    paths = [path for path in paths if spec.is_editable(path) and (spec.folder / path).is_file()]
    found = blobs(repository, [prefix + path for path in paths])
    return repository.tree_of_blobs(dict(zip(paths, filter(None, found), strict=True)))


def blobs(repository: Repository, paths: Sequence[str]) -> list[str | None]:
    """Return the blob that each file of the working tree would be; None if there is no such file."""
    places = [repository.root / path for path in paths]
    there = [str(place) for place in places if place.is_file()]
    hashed = repository.git.call("hash-object", "--stdin-paths", data=lines(there)) if there else ""
    found = iter(hashed.split())
    return [next(found) if str(place) in there else None for place in places]


def switch(repository: Repository, branch: str, *, create: bool) -> None:
    """Check out *branch*.

    Raises:
        RepositoryError: git refuses, for example because another worktree has it.
    """
    added = [] if create else _added_by(repository, branch)
    before = {path for path in added if os.path.lexists(repository.root / path)}
    before |= {*repository.status().changed}
    try:
        # Unlike checkout, switch knows of merges and rebases that are not finished.
        options = ("--quiet", "--no-guess", "--no-overwrite-ignore")
        repository.git.call("switch", *options, *(["--create"] if create else []), branch)
    except StorageError:
        # git leaves the working tree as far as it has come.
        with contextlib.suppress(StorageError, RepositoryError, OSError):
            for path in set(added) - before:
                (repository.root / path).unlink(missing_ok=True)
            changed = {*repository.status().changed} - before
            repository.git.call("checkout-index", "--force", "--", *changed)
        raise


def _added_by(repository: Repository, branch: str) -> list[str]:
    """Return the files that a branch has and HEAD has not."""
    options = ("--name-only", "--no-renames", "--diff-filter=A", "-z")
    listing = repository.git.call("diff", *options, repository.head(), f"refs/heads/{branch}", "--")
    return [path for path in listing.split("\0") if path]


def refresh(repository: Repository, folder: Path, paths: Sequence[str]) -> None:
    """Bring files of the index and the working tree to what HEAD holds, through no filter program.

    Args:
        repository: where they are.
        folder: the experiment's, where they are written before they replace the old ones.
        paths: from the repository's root.

    Raises:
        RepositoryError: another git holds the index for too long, or a file was changed meanwhile.
    """
    deadline, before = time.monotonic() + PATIENCE, _contents(repository, paths)
    while True:
        try:
            return _refresh(repository, folder / FRESH, paths)
        except RepositoryError as error:
            if "index.lock" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.1)
        if _contents(repository, paths) != before:
            raise RepositoryError(f"{' or '.join(paths)} changed meanwhile: restore and start again")


def _contents(repository: Repository, paths: Iterable[str]) -> list[bytes | None]:
    places = [repository.root / path for path in paths]
    return [place.read_bytes() if place.is_file() else None for place in places]


def _refresh(repository: Repository, fresh: Path, paths: Sequence[str]) -> None:
    call = functools.partial(repository.git.call, environment=_without_filters(repository))
    call("reset", "--quiet", repository.head(), "--", *paths)  # a branch may be called HEAD
    try:
        # git itself would leave half of a file on a full disk.
        call("checkout-index", "--force", f"--prefix={fresh}/", "--", *paths)
        with writing(fresh):
            for path in filter(lambda path: os.path.lexists(fresh / path), paths):
                (repository.root / path).parent.mkdir(parents=True, exist_ok=True)
                (fresh / path).replace(repository.root / path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    call("update-index", "-q", "--refresh")


def _without_filters(repository: Repository) -> dict[str, str]:
    """Return an environment in which no filter program of the configuration runs."""
    names = (repository.git.ask("config", "--name-only", "--get-regexp", r"^filter\.") or "").split()
    return configuration(QUIET | {name: "false" if name.endswith(".required") else "" for name in names})


def tidy(folder: Path) -> None:
    """Remove what a refresh that was killed has left in the experiment's *folder*."""
    shutil.rmtree(folder / FRESH, ignore_errors=True)
