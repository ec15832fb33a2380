"""The working tree: looked at, switched to a branch, brought to what a commit holds."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import time
from collections.abc import Iterable, Sequence

from pytest_autoresearch.campaign.command import QUIET, configuration, lines
from pytest_autoresearch.campaign.git import Repository
from pytest_autoresearch.errors import RepositoryError, StorageError
from pytest_autoresearch.system.files import writing

FRESH = ".autoresearch.new"  # where files of the working tree are written before they replace the old ones
PATIENCE = 3.0  # seconds to wait for another git, which has the index


def tree(repository: Repository) -> str:
    """Return the id of the tree of the editable files as they are in the working tree."""
    prefix, options = repository.prefix, ("-z", "--cached", "--others", "--exclude-standard")
    listing = repository.git.call("ls-files", *options, "--", prefix or ".").split("\0")
    names = {path.removeprefix(prefix) for path in listing if path}
    found = blobs(repository, [prefix + name for name in names if repository.spec.is_editable(name)])
    return repository.tree_of_blobs({path.removeprefix(prefix): blob for path, blob in found.items()})


def blobs(repository: Repository, paths: Iterable[str]) -> dict[str, str]:
    """Return the blob that each file of the working tree would be, as far as there are such files."""
    there = {path: place for path in paths if (place := repository.root / path).is_file()}
    data = lines(map(str, there.values()))
    return dict(
        zip(there, repository.git.call("hash-object", "--stdin-paths", data=data).split(), strict=True)
    )


def switch(repository: Repository, branch: str, *, create: bool) -> None:
    """Check out *branch*; git refuses, for example, if another worktree has it."""
    added: set[str] = set()
    if not create:  # files that the branch has and HEAD has not
        options = ("--name-only", "--no-renames", "--diff-filter=A", "-z")
        listing = repository.git.call("diff", *options, repository.head(), f"refs/heads/{branch}", "--")
        added = {path for path in listing.split("\0") if path}
    before = {path for path in added if os.path.lexists(repository.root / path)}
    before |= {*repository.status().changed}
    try:
        # Unlike checkout, switch knows of merges and rebases that are not finished.
        how = ["--quiet", "--no-guess", "--no-overwrite-ignore", *["--create"] * create]
        repository.git.call("switch", *how, branch)
    except StorageError:
        # git leaves the working tree as far as it has come.
        with contextlib.suppress(StorageError, RepositoryError, OSError):
            for path in added - before:
                (repository.root / path).unlink(missing_ok=True)
            changed = {*repository.status().changed} - before
            repository.git.call("checkout-index", "--force", "--", *changed)
        raise


def refresh(repository: Repository, paths: Sequence[str]) -> None:
    """Bring files of the index and the working tree to what HEAD holds, through no filter program.

    RepositoryError says that another git holds the index for too long, or that a file was changed meanwhile.
    """
    deadline, before = time.monotonic() + PATIENCE, _contents(repository, paths)
    while True:
        try:
            return _refresh(repository, paths)
        except RepositoryError as error:
            if "index.lock" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.1)
        if _contents(repository, paths) != before:
            raise RepositoryError(f"{' or '.join(paths)} changed meanwhile: restore and start again")


def _contents(repository: Repository, paths: Iterable[str]) -> list[bytes | None]:
    places = [repository.root / path for path in paths]
    return [place.read_bytes() if place.is_file() else None for place in places]


def _refresh(repository: Repository, paths: Sequence[str]) -> None:
    names = repository.git.call("config", "--name-only", "--list").splitlines()
    filters = {name for name in names if name.startswith("filter.")}  # no program of theirs is to run
    off = configuration(QUIET | {name: "false" if name.endswith(".required") else "" for name in filters})
    call = functools.partial(repository.git.call, environment=off)
    call("reset", "--quiet", repository.head(), "--", *paths)  # a branch may be called HEAD
    fresh = repository.spec.folder / FRESH
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
