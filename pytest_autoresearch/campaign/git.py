"""The repository of an experiment: plumbing only, so that no hook, filter or signing key is in the way."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_autoresearch.campaign import trees
from pytest_autoresearch.campaign.command import IDENTITY, Git, lines
from pytest_autoresearch.campaign.refs import NAMESPACE
from pytest_autoresearch.errors import RepositoryError, StorageError
from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.system import temporary
from pytest_autoresearch.system.files import writing

if TYPE_CHECKING:
    import git

# What git sets for its hooks would lead to another repository, another index, another way to read a path.
ELSEWHERE = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_PREFIX"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH", "GIT_SHALLOW_FILE"),
    *("GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS"),
)


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

    Paths of files are relative to the root of the working tree where nothing else is said.
    """

    def __init__(self, repo: git.Repo) -> None:
        if repo.working_tree_dir is None:
            raise RepositoryError(f"{repo.git_dir} is a bare repository: work in a clone or a worktree of it")
        named = repo.config_reader("repository").get_value("extensions", "objectFormat", "sha1")
        self._algorithm: trees.Algorithm = "sha256" if named == "sha256" else "sha1"
        self.root = Path(repo.working_tree_dir).resolve()
        self.git = Git(repo.git, self.root)
        self.directory = Path(repo.git_dir).resolve()
        """git's own folder for this working tree."""
        self.common = Path(repo.common_dir).resolve()
        """git's own folder for all working trees of the repository."""

    @classmethod
    def of(cls, script: Path) -> Repository:
        """Open the repository around *script*.

        Raises:
            RepositoryError: there is none, it is bare, it has no commit, or the script is not committed.
        """
        for name in ELSEWHERE:
            os.environ.pop(name, None)  # other processes that this one starts are spared it too
        try:
            import git
        except ImportError as error:  # GitPython looks for git when it is imported
            raise RepositoryError("git is not installed, or not on the PATH") from error
        place = script.resolve()
        try:
            repository = cls(git.Repo(script.parent, search_parent_directories=True))
            path = repository.path_of(place)
        except (git.InvalidGitRepositoryError, git.NoSuchPathError, ValueError) as error:
            msg = f"{place} is not in a git repository: run 'git init', then add and commit it"
            raise RepositoryError(msg) from error
        repository.require(path)
        return repository

    def require(self, path: str, revision: str = "HEAD") -> None:
        """Raise RepositoryError unless *path* is in the commit *revision*."""
        if self.git.ids(f"{revision}:{path}") == [None]:
            self.commits("refs/heads/")  # which says so if the branch is torn
            raise RepositoryError(f"{path} is not committed: add and commit it first")

    def path_of(self, place: Path) -> str:
        """Return the path, from the root, of a file or folder; an empty string for the root.

        Raises:
            ValueError: it lies outside the working tree.
        """
        path = (place.parent.resolve() / place.name).relative_to(self.root).as_posix()
        return "" if path == "." else path

    def prefix_of(self, spec: ExperimentSpec) -> str:
        """Return the prefix that leads from the root into the experiment's folder: ``experiment/``."""
        folder = self.path_of(spec.folder)
        return f"{folder}/" if folder else ""

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

    def texts(self, *names: str) -> list[str | None]:
        """Return the text of the blob that each name leads to, byte for byte; None if there is none.

        Raises:
            RepositoryError: one is not UTF-8.
        """
        found = self.git.objects(names)
        return [
            None if known is None else decoded(known[1], name.partition(":")[2] or name)
            for name, known in zip(names, found, strict=True)
        ]

    def committed(self, path: str, revision: str = "HEAD") -> str | None:
        """Return the text of a file in a commit; None if it is not there."""
        return self.texts(f"{revision}:{path}")[0]

    def own_message(self, commit: str) -> str | None:
        """Return the message of a commit; None if it was made or changed by anybody but this program."""
        committer, _, message = self.git.call("log", "-1", "--format=%ce%n%B", commit).partition("\n")
        return message if committer == IDENTITY[1] else None

    def hidden(self, *paths: str) -> list[str]:
        """Return which of the files git was told not to look at, so that it sees no change in them."""
        lines = self.git.call("ls-files", "-v", "--", *paths).splitlines()
        return [line[2:] for line in lines if line[0] == "S" or line[0].islower()]

    def locks(self, head: str) -> list[Path]:
        """Return the locks that another git holds, or left, on what a campaign with branch *head* writes."""
        own, common = self.directory, self.common
        files = own / "index.lock", own / "HEAD.lock", common / "packed-refs.lock", common / f"{head}.lock"
        return [file for file in files if file.exists()]

    def refs(self, *patterns: str) -> dict[str, str]:
        """Return name and object of every ref that matches one of *patterns*, or lies below it.

        ``*`` stands for no slash.
        """
        listing = self.git.call("for-each-ref", "--format=%(refname) %(objectname)", *patterns)
        return dict(line.rsplit(" ", 1) for line in listing.splitlines())

    def commits(self, *patterns: str) -> list[Commit]:
        """Return the commit of every ref that matches one of *patterns*, as :meth:`refs` does.

        Raises:
            RepositoryError: one of them is torn, or leads nowhere.
        """
        # A message may hold any character but NUL, so NUL parts the fields and ends the rows.
        form = "--format=%(refname)%00%(objectname)%00%(parent)%00%(contents)%00"
        status, listing, said = self.git.run("for-each-ref", form, *patterns)
        if status:
            raise RepositoryError(
                f"{self.git.refusal('for-each-ref', said)}: fetch it again, or remove that ref"
            )
        if broken := re.search(r"ignoring broken ref (\S+)", said):
            raise RepositoryError(f"{broken[1]} is torn: fetch it again, or remove {self.common / broken[1]}")
        fields = os.fsdecode(listing).split("\0")
        rows = zip(fields[0::4], fields[1::4], fields[2::4], fields[3::4], strict=False)
        return [Commit(name.strip(), *others) for name, *others in rows]

    def written(self, path: str, revision: str, since: str) -> list[str]:
        """Return the commits of any campaign, newest first, that changed *path* and *revision* may rest on.

        What *since*, one of them, rests on is left out.
        """
        ours = ("--topo-order", "--full-history", "--fixed-strings", f"--committer=<{IDENTITY[1]}>")
        revisions = (revision, f"--glob={NAMESPACE}/*", "--not", f"{since}^@")
        return self.git.call("rev-list", *ours, *revisions, "--", path).split()

    # -- the files of an experiment ---------------------------------------------------------------

    def editable(self, revisions: Iterable[str], spec: ExperimentSpec) -> dict[str, dict[str, str] | None]:
        """Return path, from the experiment's folder, and blob of the editable files in each commit.

        None for a commit that is not all there, or has no such folder.
        """
        folder, algorithm = self.path_of(spec.folder), self._algorithm
        found: dict[str, dict[str, str] | None] = {revision: {} for revision in revisions}
        rows = [(revision, "", f"{revision}:{folder}") for revision in found]
        while rows:
            below = []
            trees_of_rows = self.git.objects([name for _, _, name in rows])
            for (revision, prefix, _), known in zip(rows, trees_of_rows, strict=True):
                files = found[revision]
                if files is None or known is None or known[0] != "tree":
                    found[revision] = None
                    continue
                for name, entry in trees.parse(known[1], algorithm).items():
                    if entry.is_folder and spec.has_folders:
                        below.append((revision, f"{prefix}{name}/", entry.object))
                    elif entry.is_file and spec.is_editable(prefix + name):
                        files[prefix + name] = entry.object
            rows = below
        return found

    def files_at(self, revision: str, spec: ExperimentSpec) -> dict[str, str]:
        """Return path, from the experiment's folder, and text of the editable files of a commit.

        Raises:
            RepositoryError: it is not all there, or a file is not UTF-8.
        """
        blobs = self.editable([revision], spec)[revision]
        texts = [] if blobs is None else self.git.objects(list(blobs.values()))
        if blobs is None or None in texts:
            raise missing(revision)
        return {
            path: decoded(known[1], self.path_of(spec.folder / path))
            for path, known in zip(blobs, texts, strict=True)
            if known is not None
        }

    def files_of(self, tree: str, spec: ExperimentSpec, *revisions: str) -> dict[str, str] | None:
        """Return the editable files whose tree has this id; None if no commit that is here has them.

        The *revisions* are looked at first, then every commit that HEAD rests on.
        """
        folder = self.path_of(spec.folder) or "."
        for found in (revisions, self.git.call("rev-list", "HEAD", "--", folder).split()):
            for revision, blobs in self.editable(found, spec).items():
                if blobs is not None and self.tree_of_blobs(blobs) == tree:
                    return self.files_at(revision, spec)
        return None

    def tree_at(self, revision: str, spec: ExperimentSpec) -> str | None:
        """Return the id of the tree of the editable files of a commit; None if it is not all there."""
        blobs = self.editable([revision], spec)[revision]
        return None if blobs is None else self.tree_of_blobs(blobs)

    def tree_of_blobs(self, blobs: Mapping[str, str]) -> str:
        """Return the id of the tree that holds exactly these blobs, by path."""
        return trees.tree_id(blobs, self._algorithm)

    def tree_of(self, files: Mapping[str, str]) -> str:
        """Return the id of the tree that holds exactly these texts, by path; nothing is written."""
        algorithm = self._algorithm
        blobs = {path: trees.object_id("blob", text.encode(), algorithm) for path, text in files.items()}
        return trees.tree_id(blobs, algorithm)

    # -- writing ----------------------------------------------------------------------------------

    def commit(self, parent: str, files: Mapping[str, str], message: str) -> str:
        """Write a commit on top of *parent* in which *files* have new text, and return it.

        Neither the index, the working tree nor any ref is touched.
        """
        blobs = dict(zip(files, self.store(*(text.encode() for text in files.values())), strict=True))
        folders, algorithm = trees.folders_of(blobs), self._algorithm
        objects = self.git.objects([f"{parent}:{folder}" for folder in folders])
        if objects[0] is None:
            raise missing(parent)
        known = {
            folder: trees.parse(known[1], algorithm)
            for folder, known in zip(folders, objects, strict=True)
            if known is not None and known[0] == "tree"
        }
        tree, new = trees.with_files(known, blobs, algorithm)
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

    def move(self, refs: Mapping[str, tuple[str | None, str | None]]) -> None:
        """Point each ref from its old to its new object, all in one transaction or none.

        An old value of None is for a ref that must not exist yet, a new one for a ref that is to go.

        Raises:
            RepositoryError: an old value is not what it was.
        """
        assert threading.current_thread() is threading.main_thread(), (
            "refs are moved by the main thread alone"
        )
        updates = [
            f"delete {name} {old}"
            if new is None
            else f"create {name} {new}"
            if old is None
            else f"update {name} {new} {old}"
            for name, (old, new) in refs.items()
        ]
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


def decoded(data: bytes, name: str) -> str:
    """Return *data* as text; raise RepositoryError, with its *name*, if it is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RepositoryError(f"{name} is not UTF-8 text: {error}") from error
