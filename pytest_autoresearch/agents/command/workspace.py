"""The workspace of a coding agent: a copy of the experiment in a git repository of its own."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_autoresearch.campaign.command import IDENTITY
from pytest_autoresearch.errors import ProposalRefused
from pytest_autoresearch.runs.folder import fresh_folder
from pytest_autoresearch.source import validation

OWN = ".autoresearch"  # the prompt and the description, inside, for agents that write nowhere else
# Files that agents and their tools leave behind. They are ignored.
IGNORED = (".aider*", ".claude", ".codex", ".gemini", ".opencode", "__pycache__", ".*_cache", ".DS_Store")
SHOWN = 3  # changes of other files that are named
# Commits here have a fixed author, and none of the user's hooks and signing keys.
CONFIGURATION = """\
[user]
\tname = {}
\temail = {}
[core]
\thooksPath = /dev/null
\tfsmonitor = false
\tautocrlf = false
[commit]
\tgpgSign = false
[gc]
\tauto = 0
"""


class Workspace:
    """A folder with the files of one proposal, committed in a repository of its own.

    It is no worktree of the user's repository: that would share its branches, configuration and hooks, and
    an agent's ``git push`` or ``git gc`` would act on it. Only the files tell what the agent changed, so what
    it does to this repository does not matter.
    """

    def __init__(self, scratch: Path, script: str, files: Mapping[str, str]) -> None:
        self.scratch = scratch
        self.root = scratch / "work"
        """The working directory, and the repository's."""
        self.script = script
        self._files = {name: text.encode() for name, text in files.items()}
        self._files[".gitignore"] = "".join(f"{name}\n" for name in (f"/{OWN}/", *IGNORED)).encode()
        for name, data in self._files.items():
            self._path(name).parent.mkdir(parents=True, exist_ok=True)
            self._path(name).write_bytes(data)
        own = self.root / OWN
        own.mkdir()
        self.prompt = own / "prompt.md"
        self.description = own / "description.txt"
        self.commit = self._commit()
        """The commit that the agent starts from."""

    @classmethod
    @contextlib.contextmanager
    def opened(cls, script: str, files: Mapping[str, str]) -> Iterator[Workspace]:
        """Yield a new workspace with *files* by path, of which *script* may be changed; remove it after."""
        with fresh_folder({}) as scratch:
            yield cls(scratch, script, files)

    def _path(self, name: str) -> Path:
        return self.root / name

    def _commit(self) -> str:
        self._git("init", "--quiet", "--template=", "--initial-branch=main")
        with (self.root / ".git" / "config").open("a", encoding="utf-8") as config:
            config.write(CONFIGURATION.format(*IDENTITY))
        self._git("add", "--force", "--", *self._files)  # despite the user's own excludes
        self._git("commit", "--quiet", "--message=The experiment as it is")
        self._git("checkout", "--quiet", "--detach")
        return self._git("rev-parse", "HEAD")

    def _git(self, *arguments: str) -> str:
        """Run git, before the agent was here, and return its output.

        Raises:
            OSError: there is no git, or it fails.
        """
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            # Without the user's configuration, filters above all.
            env=environment | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise OSError(f"git {arguments[0]} fails: {done.stderr}")
        return done.stdout.strip()

    # -- after the agent ------------------------------------------------------------------------------------

    def elsewhere(self) -> str | None:
        """Return the changes of other files than the script in one line; None if there are none."""
        found = sorted(self._changes())
        if not found:
            return None
        more = len(found) - SHOWN
        named = ", ".join(f"{what} {self._short(name)}" for name, what in found[:SHOWN])
        others = f" and {more} more" if more > 0 else ""
        if more > 0 or any(what == "made" for _, what in found):
            return f"{named}{others}: only {Path(self.script).name} may be changed"
        return f"{named}, which {'is' if len(found) == 1 else 'are'} fixed"

    def read(self) -> str:
        """Return the script as it is now.

        Raises:
            ProposalRefused: it is no regular file of UTF-8 text any more.
        """
        return validation.read(self._path(self.script))

    def described(self) -> str:
        """Return the agent's description of its change, empty if there is none."""
        if os.path.realpath(self.description) != str(self.description):
            return ""
        try:
            return validation.read(self.description)
        except ProposalRefused:
            return ""

    def diffstat(self, source: str) -> str:
        """Return the numbers of lines that *source* adds and removes, as git counts them."""
        before = self._files[self.script].decode().splitlines()
        changes = list(difflib.unified_diff(before, source.splitlines(), n=0, lineterm=""))[2:]
        added, removed = (sum(line.startswith(sign) for line in changes) for sign in "+-")
        return f"+{added} -{removed} lines"

    def _short(self, name: str) -> str:
        return name.removeprefix(f"{Path(self.script).parent.as_posix()}/")

    def _changes(self) -> Iterator[tuple[str, str]]:
        """Yield each file that was made, changed or deleted, and which; not the script and ignored files."""
        gone = set(self._files)
        for name in self._names():
            gone.discard(name)
            if name not in self._files:
                yield name, "made"
            elif name != self.script and not _holds(self._path(name), self._files[name]):
                yield name, "changed"
        yield from ((name, "deleted") for name in gone if name != self.script)

    def _names(self) -> Iterator[str]:
        """Yield the path of everything but folders, ignored files and git's own."""
        for place, folders, files in os.walk(self.root):
            at_root = Path(place) == self.root
            kept = [
                name for name in folders if not _is_ignored(name) and not (at_root and name in {".git", OWN})
            ]
            links = {name for name in kept if Path(place, name).is_symlink()}
            folders[:] = [name for name in kept if name not in links]
            for name in (*links, *files):
                if not _is_ignored(name) and not (at_root and name in {".git", OWN}):
                    yield Path(place, name).relative_to(self.root).as_posix()


def _is_ignored(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in IGNORED)


def _holds(path: Path, data: bytes) -> bool:
    """Tell whether *path* is still a file with this content, and no link."""
    try:
        return not path.is_symlink() and path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False
