"""git, through GitPython: plumbing only, so that no hook, filter or signing key is in the way."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_autoresearch.errors import RepositoryError, StorageError
from pytest_autoresearch.system import temporary
from pytest_autoresearch.system.files import storage_error, writing
from pytest_autoresearch.system.text import single_line

if TYPE_CHECKING:
    import git

IDENTITY = ("pytest-autoresearch", "autoresearch@localhost")
FRESH = ".autoresearch.new"  # where files of the working tree are written before they replace the old ones
QUIET = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "gc.auto": "0",
    "core.fsync": "all",  # a power cut may not leave a ref without its objects
    "core.filesRefLockTimeout": "3000",  # milliseconds; an editor's git holds a lock every now and then
    "i18n.commitEncoding": "UTF-8",
    "i18n.logOutputEncoding": "UTF-8",
}
PATIENCE = 3.0  # seconds to wait for another git, which has the index
# What git sets for its hooks would lead to another repository, another index, another way to read a path.
ELSEWHERE = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_PREFIX"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH", "GIT_SHALLOW_FILE"),
    *("GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS"),
)


class Commit(NamedTuple):
    """What a ref points to."""

    ref: str
    """Its full name."""
    name: str
    """Of the commit: its hash."""
    parent: str
    """Another hash, the first of several; empty if there is none."""
    message: str


class Repository:
    """The git repository that an experiment lives in."""

    def __init__(self, repo: git.Repo, script: Path) -> None:
        if repo.working_tree_dir is None:
            raise RepositoryError(f"{repo.git_dir} is a bare repository: work in a clone or a worktree of it")
        self._repo = repo
        self._git = repo.git
        self.root = Path(repo.working_tree_dir).resolve()
        self.script = script.resolve().relative_to(self.root).as_posix()
        self.directory = Path(repo.git_dir).resolve()
        """git's own folder for this working tree."""
        self.common = Path(repo.common_dir).resolve()
        """git's own folder for all working trees of the repository."""
        self._git.update_environment(**_environment())
        self._data = functools.lru_cache(maxsize=16)(self._blob_data)  # of the incumbent, trial after trial

    @classmethod
    def of(cls, script: Path) -> Repository:
        """Open the repository around *script*.

        Raises:
            RepositoryError: there is none, it is bare, it has no commit, or the script is not committed.
        """
        for name in ELSEWHERE:
            os.environ.pop(name, None)  # and whatever this process starts is spared it too
        try:
            import git
        except ImportError as error:  # GitPython looks for git when it is imported
            msg = "git is not installed, or not on the PATH"
            raise RepositoryError(msg) from error
        try:
            repository = cls(git.Repo(script.parent, search_parent_directories=True), script)
        except (git.InvalidGitRepositoryError, git.NoSuchPathError, ValueError) as error:
            place = script.resolve()
            msg = f"{place} is not in a git repository: run 'git init', then add and commit it"
            raise RepositoryError(msg) from error
        repository.require(repository.script)
        return repository

    def require(self, path: str, revision: str = "HEAD") -> None:
        """Raise RepositoryError unless *path* is in the commit *revision*."""
        if self.blob_of(path, revision) is None:
            self.commits("refs/heads/")  # which says so if the branch is torn
            msg = f"{path} is not committed: add and commit it first"
            raise RepositoryError(msg)

    def beside(self, name: str) -> str:
        """Return the path, from the root, of the file *name* in the script's folder."""
        return (Path(self.script).parent / name).as_posix()

    # -- reading ----------------------------------------------------------------------------------

    def head(self) -> str:
        """Return the commit that is checked out."""
        return str(self._call("rev-parse", "HEAD"))

    def branch(self) -> str | None:
        """Return the branch that is checked out; None if HEAD is detached."""
        ref = self._try("symbolic-ref", "--quiet", "HEAD")  # not --short, which minds tags of that name
        return None if ref is None else ref.removeprefix("refs/heads/")

    def committed(self, path: str, revision: str = "HEAD") -> str | None:
        """Return the text of a file in a commit; None if it is not there."""
        blob = self.blob_of(path, revision)
        return None if blob is None else self.text(blob, path)

    def blob_of(self, path: str, revision: str = "HEAD") -> str | None:
        """Return the blob of a file in a commit; None if it is not there."""
        return self._try("rev-parse", "--verify", "--quiet", f"{revision}:{path}")

    def blobs_of(self, path: str, revisions: Iterable[str]) -> list[str]:
        """Return the blob of a file in each commit, in one go; where it is missing, a line that says so."""
        names = "".join(f"{revision}:{path}\n" for revision in revisions)
        return self._with_input(names.encode(), "cat-file", "--batch-check=%(objectname)").splitlines()

    def has(self, ref: str) -> bool:
        """Tell whether there is a *ref*, a full name."""
        return self._try("rev-parse", "--verify", "--quiet", ref) is not None

    def tip_of(self, ref: str) -> str | None:
        """Return the commit that *ref*, a full name, points to; None if there is no such ref."""
        return self._try("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")

    def message(self, commit: str) -> str:
        """Return the message of a commit."""
        return str(self._call("log", "-1", "--format=%B", commit))

    def is_own(self, commit: str) -> bool:
        """Tell whether this program made a commit, and nobody picked or changed it since."""
        return str(self._call("log", "-1", "--format=%ce", commit)) == IDENTITY[1]

    def blob_in_tree(self, path: str) -> str | None:
        """Return the blob that a file of the working tree would be; None if there is no such file."""
        file = self.root / path
        return self._try("hash-object", "--", str(file)) if file.is_file() else None

    def text(self, blob: str, name: str) -> str:
        """Return the text of a blob, byte for byte; *name* is what to call it.

        Raises:
            RepositoryError: it is not UTF-8.
        """
        return decoded(self._data(blob), name)

    def text_if_there(self, blob: str) -> str | None:
        """Return the text of a blob; None if it is not in this clone, which may be a shallow one."""
        there = self._try("rev-parse", "--verify", "--quiet", f"{blob}^{{blob}}")
        return None if there is None else self.text(blob, blob)

    def _blob_data(self, blob: str) -> bytes:
        options = {"stdout_as_string": False, "strip_newline_in_stdout": False}
        data: bytes = self._call("cat-file", "blob", blob, **options)
        return data

    def blob(self, text: str) -> str:
        """Return the blob that *text* is or would be."""
        data = text.encode()
        return hashlib.new(self._algorithm, b"blob %d\0" % len(data) + data).hexdigest()

    @functools.cached_property
    def _algorithm(self) -> str:
        return "sha1" if len(self.head()) == 40 else "sha256"

    def changes(self) -> list[str]:
        """Return the tracked files that differ from HEAD, staged or not."""
        options = ("--porcelain", "-z", "--untracked-files=no", "--no-renames", "--ignore-submodules")
        # Rows are two letters, a space and a path.
        return sorted(row[3:] for row in str(self._call("status", *options)).split("\0") if row)

    def locks(self, branch: str) -> list[Path]:
        """Return the locks that another git holds, or left, on what a campaign writes."""
        own, common = self.directory, self.common
        heads = common / "refs" / "heads"
        files = own / "index.lock", own / "HEAD.lock", common / "packed-refs.lock", heads / f"{branch}.lock"
        return [file for file in files if file.exists()]

    def hidden(self, *paths: str) -> list[str]:
        """Return which of the files git was told not to look at, so that it sees no change in them."""
        lines = str(self._call("ls-files", "-v", "--", *paths)).splitlines()
        return [line[2:] for line in lines if line[0] == "S" or line[0].islower()]

    def refs(self, *patterns: str) -> dict[str, str]:
        """Return name and object of every ref that matches one of *patterns*, or lies below it.

        ``*`` stands for no slash.
        """
        listing = str(self._call("for-each-ref", "--format=%(refname) %(objectname)", *patterns))
        return dict(line.rsplit(" ", 1) for line in listing.splitlines())

    def written(self, path: str, revision: str, since: str) -> list[str]:
        """Return the commits of any campaign, newest first, that changed *path* and *revision* may rest on.

        What *since*, one of them, rests on is left out.
        """
        ours = ("--topo-order", "--full-history", "--fixed-strings", f"--committer=<{IDENTITY[1]}>")
        revisions = (revision, "--glob=refs/autoresearch/*", "--not", f"{since}^@")
        return str(self._call("rev-list", *ours, *revisions, "--", path)).split()

    def commits(self, pattern: str) -> list[Commit]:
        """Return the commit of every ref that matches *pattern*, as :meth:`refs` does.

        Raises:
            RepositoryError: one of them is torn, or leads nowhere.
        """
        # A message may hold any character but NUL, so NUL parts the fields and ends the rows.
        form = "--format=%(refname)%00%(objectname)%00%(parent)%00%(contents)%00"
        try:
            _, listing, said = self._call("for-each-ref", form, pattern, with_extended_output=True)
        except RepositoryError as error:
            raise RepositoryError(f"{error}: fetch it again, or remove that ref") from error
        if broken := re.search(r"ignoring broken ref (\S+)", str(said)):
            raise RepositoryError(f"{broken[1]} is torn: fetch it again, or remove {self.common / broken[1]}")
        fields = str(listing).split("\0")
        rows = zip(fields[0::4], fields[1::4], fields[2::4], fields[3::4], strict=False)
        return [Commit(name.strip(), *others) for name, *others in rows]

    # -- writing ----------------------------------------------------------------------------------

    def commit(self, parent: str, files: Mapping[str, str], message: str) -> str:
        """Write a commit on top of *parent* in which *files* have new text, and return it.

        Neither the index, the working tree nor any ref is touched.
        """
        with writing(), temporary.folder("index") as folder:
            index = {"GIT_INDEX_FILE": str(folder / "index")}
            with self._git.custom_environment(**index):
                self._call("read-tree", parent)
                for path, text in files.items():
                    blob = self.store(text.encode())
                    self._call(
                        "update-index", "--add", "--cacheinfo", f"{self._mode(parent, path)},{blob},{path}"
                    )
                tree = str(self._call("write-tree"))
        return self._with_input(message.encode(), "commit-tree", tree, "-p", parent, "-F", "-")

    def store(self, data: bytes) -> str:
        """Write a blob, and return it."""
        return self._with_input(data, "hash-object", "-w", "--no-filters", "--stdin")

    def move(self, refs: Mapping[str, tuple[str | None, str | None]]) -> None:
        """Point each ref from its old to its new object, all in one transaction or none.

        An old value of None is for a ref that must not exist yet, a new one for a ref that is to go.

        Raises:
            RepositoryError: an old value is not what it was.
        """
        updates = [
            f"delete {name} {old}"
            if new is None
            else f"create {name} {new}"
            if old is None
            else f"update {name} {new} {old}"
            for name, (old, new) in refs.items()
        ]
        transaction = "\n".join(["start", *updates, "prepare", "commit", ""]).encode()
        try:
            self._with_input(transaction, "update-ref", "-m", "autoresearch", "--stdin")
        except StorageError:
            # All that git writes now is a line in the logs of refs, and the last one may be what has failed.
            there = {name: self._try("rev-parse", "--verify", "--quiet", name) for name in refs}
            if any(there[name] != new for name, (_, new) in refs.items()):
                raise

    def pack(self) -> None:
        """Bring refs and objects into few files, for thousands take git seconds to read; nothing is pruned.

        Where git cannot, because another one is at it or the disk is full, it is left for another time.
        """
        with contextlib.suppress(RepositoryError, StorageError):
            self._call("maintenance", "run", "--quiet", "--task=pack-refs", "--task=loose-objects")

    def switch(self, branch: str, *, create: bool) -> None:
        """Check out *branch*.

        Raises:
            RepositoryError: git refuses, for example because another worktree has it.
        """
        added = [] if create else self._differing(branch, "A")
        before = {path for path in added if os.path.lexists(self.root / path)} | set(self.changes())
        try:
            # Unlike checkout, switch knows of merges and rebases that are not finished.
            options = ("--quiet", "--no-guess", "--no-overwrite-ignore")
            self._call("switch", *options, *(["--create"] if create else []), branch)
        except StorageError:
            # git leaves the working tree as far as it has come.
            with contextlib.suppress(StorageError, RepositoryError, OSError):
                for path in set(added) - before:
                    (self.root / path).unlink(missing_ok=True)
                self._call("checkout-index", "--force", "--", *(set(self.changes()) - before))
            raise

    def _differing(self, branch: str, kinds: str) -> list[str]:
        options = ("--name-only", "--no-renames", f"--diff-filter={kinds}", "-z")
        listing = str(self._call("diff", *options, self.head(), f"refs/heads/{branch}", "--"))
        return [path for path in listing.split("\0") if path]

    def refresh(self, *paths: str) -> None:
        """Bring files of the index and the working tree to what HEAD holds, through no filter program.

        Raises:
            RepositoryError: another git holds the index for too long, or a file was changed meanwhile.
        """
        deadline, before = time.monotonic() + PATIENCE, [self.blob_in_tree(path) for path in paths]
        while True:
            try:
                return self._refresh(*paths)
            except RepositoryError as error:
                if "index.lock" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)
            if [self.blob_in_tree(path) for path in paths] != before:
                raise RepositoryError(f"{' or '.join(paths)} changed meanwhile: restore and start again")

    def tidy(self) -> None:
        """Remove what a refresh that was killed has left."""
        shutil.rmtree((self.root / self.script).with_name(FRESH), ignore_errors=True)

    def _refresh(self, *paths: str) -> None:
        # Each is written beside its place first, for git would leave half of one on a full disk.
        beside = (self.root / self.script).with_name(FRESH)
        with self._git.custom_environment(**self._without_filters()):
            self._call("reset", "--quiet", self.head(), "--", *paths)  # a branch may be called HEAD
            try:
                self._call("checkout-index", "--force", f"--prefix={beside}/", "--", *paths)
                with writing(beside):
                    for path in filter(lambda path: os.path.lexists(beside / path), paths):
                        (beside / path).replace(self.root / path)
            finally:
                self.tidy()
            self._call("update-index", "-q", "--refresh")

    def _without_filters(self) -> dict[str, str]:
        """Return an environment in which no program of the configuration sees what is checked out."""
        names = (self._try("config", "--name-only", "--get-regexp", r"^filter\.") or "").split()
        return _configuration(QUIET | {name: "false" if name.endswith(".required") else "" for name in names})

    # -- how git is called ------------------------------------------------------------------------

    def _call(self, command: str, *arguments: str, **options: Any) -> Any:
        import git

        try:
            # In a session of its own: Ctrl-C reaches everything in the terminal's, and git must finish.
            return self._git.execute(["git", command, *arguments], start_new_session=True, **options)
        except git.GitCommandError as error:
            raise self._refusal(command, error.stderr) from error

    def _try(self, command: str, *arguments: str) -> str | None:
        """Return what git prints, None if it says no: exit code 1; anything else is an error."""
        status, output, errors = self._call(
            command, *arguments, with_extended_output=True, with_exceptions=False
        )
        if status > 1:
            raise self._refusal(command, errors)
        return None if status else str(output).strip() or None

    def _with_input(self, data: bytes, command: str, *arguments: str) -> str:
        with writing(), tempfile.TemporaryFile() as stream:
            stream.write(data)
            stream.seek(0)
            return str(self._call(command, *arguments, istream=stream)).strip()

    def _refusal(self, command: str, said: str) -> Exception:
        """Return what to raise when git has failed and *said* why."""
        place = self._git.environment().get("GIT_INDEX_FILE") if "index" in said else None
        unwritable = storage_error(
            _unframed(said), f"git {command}", Path(place).parent if place else self.root
        )
        return unwritable or RepositoryError(f"git {command}: {_gist(said)}")

    def _mode(self, revision: str, path: str) -> str:
        entry = str(self._call("ls-tree", revision, "--", path))
        return entry.split(" ", 1)[0] if entry else "100644"


def _environment() -> dict[str, str]:
    name, email = IDENTITY
    environment = {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",  # to look at the index does not write it
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "LC_ALL": "C",
    }
    return environment | _configuration(QUIET)


def _configuration(values: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that gives git these configuration values, whatever its files say."""
    given = os.environ.get("GIT_CONFIG_COUNT", "")
    first = int(given) if given.isdecimal() else 0  # the user's own stay: one may be safe.directory
    environment = {"GIT_CONFIG_COUNT": str(first + len(values))}
    for number, (key, value) in enumerate(values.items(), first):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return environment


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
        msg = f"{name} is not UTF-8 text: {error}"
        raise RepositoryError(msg) from error


def _unframed(text: str | bytes | None) -> str:
    """Return what git said, which GitPython puts into a frame."""
    said = text.decode(errors="replace") if isinstance(text, bytes) else text or ""
    return said.strip().removeprefix("stderr: '").removesuffix("'")


def _gist(text: str | bytes | None) -> str:
    """Return the line of what git said that tells what is wrong."""
    lines = _unframed(text).splitlines()
    if not lines:
        return "no reason given"
    telling = [line for line in lines if line.startswith(("fatal: ", "error: "))]
    # Which files, or which command helps, stands below it, indented.
    below = [line.strip() for line in lines if line.startswith("\t")][:3]
    gist = [*lines, *telling][-1].rstrip(":") + (f": {', '.join(below)}" if below else "")
    relief = ": remove it, unless another git is at work" if gist.endswith(".lock': File exists.") else ""
    return single_line(gist.removesuffix("."), 400) + relief
