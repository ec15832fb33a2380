"""The repository of an experiment: plumbing only, so that no hook, filter or signing key is in the way."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from pytest_autoresearch.campaign import trees
from pytest_autoresearch.campaign.command import IDENTITY, Git, lines
from pytest_autoresearch.errors import RepositoryError, StorageError
from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.records.trailers import trailers_of
from pytest_autoresearch.system import temporary
from pytest_autoresearch.system.files import writing

# What git sets for its hooks would lead to another repository, another index, another way to read a path.
ELSEWHERE = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_PREFIX"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH", "GIT_SHALLOW_FILE"),
    *("GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS"),
)

Moves: TypeAlias = Mapping[str, tuple[str | None, str | None]]
"""Refs with their old and new objects. None is for a ref that must not exist yet, or is to go."""


class Commit(NamedTuple):
    """The commit that a ref points to."""

    ref: str
    """The full name of the ref."""
    name: str
    """The hash of the commit."""
    parent: str
    """The hash of its first parent, empty if it has none."""
    message: str


class Status(NamedTuple):
    """The commit and the branch that are checked out, and the changed files."""

    commit: str
    branch: str | None
    """None if HEAD is detached."""
    changed: list[str]
    """The tracked files that differ from the commit, staged or not."""


class Repository:
    """The git repository that an experiment lives in.

    Paths of files are relative to the root of the working tree; a *name* is one from the experiment's folder.
    Every method raises RepositoryError where git refuses, or where something is torn or not all there.
    """

    def __init__(self, spec: ExperimentSpec) -> None:
        """Open the repository around an experiment, whose script has to be committed."""
        for name in ELSEWHERE:
            os.environ.pop(name, None)  # other processes that this one starts are spared it too
        try:
            import git
        except ImportError as error:  # GitPython looks for git when it is imported
            raise RepositoryError("git is not installed, or not on the PATH") from error
        script = spec.path.resolve()
        try:
            # A folder may have a $ in its name.
            repo = git.Repo(spec.folder, search_parent_directories=True, expand_vars=False)
            if repo.working_tree_dir is None:
                bare = f"{repo.git_dir} is a bare repository"
                raise RepositoryError(bare, hint="work in a clone or a worktree of it")
            self.root = Path(repo.working_tree_dir).resolve()
            script.relative_to(self.root)
            folder = spec.folder.resolve().relative_to(self.root)
        except (git.InvalidGitRepositoryError, git.NoSuchPathError, ValueError) as error:
            msg = f"{script} is not in a git repository: run 'git init', then add and commit it"
            raise RepositoryError(msg) from error
        self.spec = spec
        self.prefix = "".join(f"{part}/" for part in folder.parts)
        """Leads from the root into the experiment's folder: ``experiment/``."""
        self.directory = Path(repo.git_dir).resolve()
        """git's own folder for this working tree."""
        self.common = Path(repo.common_dir).resolve()
        """git's own folder for all working trees of the repository."""
        self.git = Git(repo.git, self.root)
        settings = repo.config_reader("repository")
        self._algorithm = str(settings.get_value("extensions", "objectFormat", "sha1"))
        self._no_object = "0" * len(trees.object_id("blob", b"", self._algorithm))
        self.require(spec.script)

    def require(self, name: str, revision: str = "HEAD") -> None:
        """Raise RepositoryError unless a file of the experiment is in the commit *revision*."""
        if self.git.ids(f"{revision}:{self.path_of(name)}") == [None]:
            self.commits("refs/heads/")  # which says so if the branch is torn
            raise RepositoryError(f"{self.path_of(name)} is not committed: add and commit it first")

    def path_of(self, name: str) -> str:
        """Return the path of a file of the experiment."""
        return self.prefix + name

    def is_part(self, path: str) -> bool:
        """Return whether a file is editable, fixed or the stored baseline of the experiment."""
        return path.startswith(self.prefix) and self.spec.is_part(path.removeprefix(self.prefix))

    # -- reading ----------------------------------------------------------------------------------

    def status(self) -> Status:
        """Return the commit and the branch that are checked out, and the changed files."""
        options = ("--porcelain=v2", "--branch", "-z", "--untracked-files=no", "--no-renames")
        rows = self.git.call("status", *options, "--ignore-submodules").split("\0")
        told = dict(row[2:].split(" ", 1) for row in rows if row.startswith("# "))
        fields = {"1": 8, "u": 10}  # before the path
        changed = [row.split(" ", fields[row[0]])[-1] for row in rows if row[:2] in {"1 ", "u "}]
        branch = told["branch.head"]
        return Status(told["branch.oid"], None if branch == "(detached)" else branch, sorted(changed))

    def head(self) -> str:
        """Return the commit that is checked out."""
        return self.git.call("rev-parse", "HEAD")

    def tip_of(self, ref: str) -> str | None:
        """Return the commit that *ref*, a full name, leads to; None if there is no such ref."""
        return self.git.ids(f"{ref}^{{commit}}")[0]

    def text(self, revision: str) -> str | None:
        """Return the text, in UTF-8, of the blob that *revision* leads to; None if there is none."""
        found = self.git.objects([revision]).get(revision)
        return None if found is None else _decoded(found[1], revision.partition(":")[2] or revision)

    def committed(self, name: str, revision: str = "HEAD") -> str | None:
        """Return the text of a file of the experiment in a commit; None if it is not there."""
        return self.text(f"{revision}:{self.path_of(name)}")

    def own_trailers(self, commit: str) -> dict[str, list[str]]:
        """Return the trailers of a commit; none if it was made or changed by anybody but this program."""
        committer, _, message = self.git.call("log", "-1", "--format=%ce%n%B", commit).partition("\n")
        return trailers_of(message) if committer == IDENTITY[1] else {}

    def refs(self, *patterns: str) -> dict[str, str]:
        """Return name and object of every ref that matches one of *patterns*, or lies below it.

        ``*`` stands for no slash.
        """
        listing = self.git.call("for-each-ref", "--format=%(refname) %(objectname)", *patterns)
        return dict(line.rsplit(" ", 1) for line in listing.splitlines())

    def commits(self, *patterns: str) -> list[Commit]:
        """Return the commit of every ref that matches one of *patterns*, as :meth:`refs` does."""
        # A message may hold any character but NUL, so NUL parts the fields and ends the rows.
        form = "--format=%(refname)%00%(objectname)%00%(parent)%00%(contents)%00"
        try:
            listing, said = self.git.run("for-each-ref", form, *patterns)
        except RepositoryError as error:
            raise RepositoryError(f"{error}: fetch it again, or remove that ref") from error
        if broken := re.search(r"ignoring broken ref (\S+)", said):
            raise RepositoryError(f"{broken[1]} is torn: fetch it again, or remove {self.common / broken[1]}")
        fields = os.fsdecode(listing).split("\0")
        rows = zip(fields[0::4], fields[1::4], fields[2::4], fields[3::4], strict=False)
        return [Commit(name.strip(), *others) for name, *others in rows]

    # -- the files of the experiment --------------------------------------------------------------

    def editable(self, revisions: Iterable[str]) -> dict[str, dict[str, str] | None]:
        """Return name and blob of the editable files in each commit; None if a commit is not all there."""
        found: dict[str, dict[str, str] | None] = {revision: {} for revision in revisions}
        rows = [(revision, "", f"{revision}:{self.prefix.rstrip('/')}") for revision in found]
        while rows:
            objects, below = self.git.objects([tree for _, _, tree in rows]), []
            for revision, folder, tree in rows:
                files, (kind, data) = found[revision], objects.get(tree, ("missing", b""))
                if files is None or kind != "tree":
                    found[revision] = None
                    continue
                for part, entry in trees.parse(data, self._algorithm).items():
                    if entry.mode == trees.FOLDER and self.spec.has_folders:
                        below.append((revision, f"{folder}{part}/", entry.object))
                    elif entry.mode in trees.FILES and self.spec.is_editable(folder + part):
                        files[folder + part] = entry.object
            rows = below
        return found

    def files_at(self, revision: str) -> dict[str, str]:
        """Return name and UTF-8 text of the editable files of a commit."""
        blobs = self.editable([revision])[revision]
        objects = {} if blobs is None else self.git.objects(list(blobs.values()))
        if blobs is None or not objects.keys() >= {*blobs.values()}:
            raise missing(revision)
        return {name: _decoded(objects[blob][1], self.path_of(name)) for name, blob in blobs.items()}

    def files_of(self, tree: str, *revisions: str) -> dict[str, str] | None:
        """Return the editable files whose tree has this id; None if no commit that is here has them.

        The *revisions* are looked at first, then every commit that HEAD rests on.
        """
        for found in (revisions, self.git.call("rev-list", "HEAD", "--", self.prefix or ".").split()):
            for revision, blobs in self.editable(found).items():
                if blobs is not None and self.tree_of_blobs(blobs) == tree:
                    return self.files_at(revision)
        return None

    def trees(self, *revisions: str) -> dict[str, str]:
        """Return the id of the tree of the editable files of each commit."""
        found = self.editable(revisions)
        if lost := [revision for revision, blobs in found.items() if blobs is None]:
            raise missing(lost[0])
        return {revision: self.tree_of_blobs(blobs or {}) for revision, blobs in found.items()}

    def tree_at(self, revision: str) -> str:
        """Return the id of the tree of the editable files of a commit."""
        return self.trees(revision)[revision]

    def tree_of_blobs(self, blobs: Mapping[str, str]) -> str:
        """Return the id of the tree that holds exactly these blobs, by name."""
        return trees.with_files({}, blobs, self._algorithm)[0]

    def tree_of(self, files: Mapping[str, str]) -> str:
        """Return the id of the tree that holds exactly these texts, by name; nothing is written."""
        return self.tree_of_blobs(
            {name: trees.object_id("blob", text.encode(), self._algorithm) for name, text in files.items()}
        )

    # -- writing ----------------------------------------------------------------------------------

    def commit(self, parent: str, files: Mapping[str, str], message: str) -> str:
        """Write a commit on top of *parent* in which files, by path, have new text, and return it.

        Neither the index, the working tree nor any ref is touched.
        """
        blobs = dict(zip(files, self.store(*(text.encode() for text in files.values())), strict=True))
        folders = {f"{parent}:{folder}": folder for folder in trees.folders_of(blobs)}
        objects = self.git.objects(list(folders))
        if f"{parent}:" not in objects:
            raise missing(parent)
        known = {
            folders[name]: trees.parse(data, self._algorithm)
            for name, (kind, data) in objects.items()
            if kind == "tree"
        }
        tree, new = trees.with_files(known, blobs, self._algorithm)
        self.store(*new, kind="tree")
        return self.git.call("commit-tree", tree, "-p", parent, "-F", "-", data=message.encode())

    def store(self, *data: bytes, kind: str = "blob") -> list[str]:
        """Write objects, and return their ids."""
        if not data:
            return []
        with writing(), temporary.folder("objects") as folder:
            paths = [folder / str(number) for number in range(len(data))]
            for path, piece in zip(paths, data, strict=True):
                path.write_bytes(piece)
            options = ("-w", "-t", kind, "--no-filters", "--stdin-paths")
            return self.git.call("hash-object", *options, data=lines(map(str, paths))).split()

    def move(self, refs: Moves) -> None:
        """Point each ref from its old to its new object, all in one transaction or none."""
        is_main = threading.current_thread() is threading.main_thread()
        assert is_main, "refs are moved by the main thread alone"
        no = self._no_object
        updates = [f"update {name} {new or no} {old or no}" for name, (old, new) in refs.items()]
        transaction = lines(["start", *updates, "prepare", "commit"])
        try:
            self.git.call("update-ref", "-m", "autoresearch", "--stdin", data=transaction)
        except StorageError:
            # All that git writes now is a line in the logs of refs, and the last one may be what has failed.
            if self.git.ids(*refs) != [new for _, new in refs.values()]:
                raise

    def pack(self) -> None:
        """Bring refs and objects into few files, for thousands take git seconds to read; nothing is pruned.

        Where git cannot, because another one is at it or the disk is full, it is left for another time.
        """
        with contextlib.suppress(RepositoryError, StorageError):
            self.git.call("maintenance", "run", "--quiet", "--task=pack-refs", "--task=loose-objects")


def missing(revision: str) -> RepositoryError:
    """Return the error for a commit that is not all there."""
    relief = "run 'git fetch --unshallow' in a shallow clone, else 'git fsck'"
    return RepositoryError(f"{revision} is not all there", hint=relief)


def merged(base: str, ours: str, theirs: str) -> str | None:
    """Return *ours* with what *theirs* has changed since *base*; None where both changed the same lines."""
    with temporary.folder("merge") as folder:
        files = [folder / name for name in ("ours", "base", "theirs")]
        for file, text in zip(files, (ours, base, theirs), strict=True):
            file.write_bytes(text.encode())
        done = subprocess.run(
            ["git", "merge-file", "--stdout", *map(str, files)], capture_output=True, check=False
        )
    return None if done.returncode else done.stdout.decode()


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RepositoryError(f"{name} is not UTF-8 text: {error}") from error
