"""The workspace of a coding agent: a copy of the experiment in a git repository of its own."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_autoresearch.campaign.command import IDENTITY
from pytest_autoresearch.errors import ProposalRefused
from pytest_autoresearch.source import validation
from pytest_autoresearch.system import temporary

# The prompt and the description lie inside, for agents that write nowhere else.
OWN = ".autoresearch"
PROMPT, DESCRIPTION = f"{OWN}/prompt.md", f"{OWN}/description.txt"
# Beside them, what agents and their tools leave behind. All of it is ignored.
IGNORED = (
    *(".git", OWN, ".aider*", ".claude", ".codex", ".gemini", ".opencode"),
    *("__pycache__", ".*_cache", ".DS_Store"),
)
SHOWN = 3  # changes of other files that are named
# Commits here have a fixed author, and none of the user's hooks and signing keys.
CONFIGURATION = """\
[user] name = {}
[user] email = {}
[core] hooksPath = /dev/null
[core] fsmonitor = false
[core] autocrlf = false
[commit] gpgSign = false
[gc] auto = 0
"""


class Workspace:
    """A folder with the files of one proposal, committed in a repository of its own.

    It is no worktree of the user's repository: that would share its branches, configuration and hooks, and
    an agent's ``git push`` or ``git gc`` would act on it. Only the files tell what the agent changed, so what
    it does to this repository does not matter.
    """

    def __init__(self, scratch: Path, script: str, files: Mapping[str, str]) -> None:
        self.scratch, self.root = scratch, scratch / "work"
        self.prompt, self.description = self.root / PROMPT, self.root / DESCRIPTION
        self._script, self._files = script, files
        self._git("init", "--quiet", "--template=", "--initial-branch=main")
        with (self.root / ".git" / "config").open("a", encoding="utf-8") as config:
            config.write(CONFIGURATION.format(*IDENTITY))
        self._git("add", "--force", "--", *files)  # despite the user's own excludes
        self._git("commit", "--quiet", "--message=The experiment as it is")
        self._git("checkout", "--quiet", "--detach")
        self.commit = self._git("rev-parse", "HEAD")
        """The commit that the agent starts from."""

    @classmethod
    @contextlib.contextmanager
    def opened(cls, script: str, files: Mapping[str, str], prompt: str) -> Iterator[Workspace]:
        """Yield a new workspace with *files* by path, of which *script* may be changed; remove it after.

        Raises:
            OSError: there is no git, or it fails.
        """
        files = {**files, ".gitignore": "".join(f"{name}\n" for name in IGNORED)}
        laid = {f"work/{path}": text for path, text in {**files, PROMPT: prompt}.items()}
        with temporary.folder("agent", laid) as scratch:
            yield cls(scratch, script, files)

    def _git(self, *arguments: str) -> str:
        """Run git, before the agent was here, and return its output."""
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

    def changed(self) -> str:
        """Return the script as the agent has left it.

        Raises:
            ProposalRefused: nothing or another file was changed, or it is no regular file of UTF-8 text.
        """
        self._check_others()
        source = validation.read(self.root / self._script)
        if source == self._files[self._script]:
            raise ProposalRefused("changed nothing")
        return source

    def described(self) -> str:
        """Return the agent's description of its change, empty if there is none."""
        if os.path.realpath(self.description) == str(self.description):
            with contextlib.suppress(ProposalRefused):
                return validation.read(self.description)
        return ""

    def _check_others(self) -> None:
        """Refuse any change of a file that is neither the script nor ignored."""
        names, fixed = set(self._names()) - {self._script}, self._files.keys() - {self._script}
        changes = [(name, "made") for name in names - fixed]
        changes += [(name, "deleted") for name in fixed - names]
        changes += [(name, "changed") for name in fixed & names if not self._is_kept(name)]
        if not changes:
            return
        folder, script = os.path.split(self._script)
        shown = sorted(changes)[:SHOWN]
        named = ", ".join(f"{what} {name.removeprefix(f'{folder}/')}" for name, what in shown)
        if more := len(changes) - len(shown):
            named += f" and {more} more"
        if more or names - fixed:
            raise ProposalRefused(f"{named}: only {script} may be changed")
        raise ProposalRefused(f"{named}, which {'is' if len(changes) == 1 else 'are'} fixed")

    def _is_kept(self, name: str) -> bool:
        """Tell whether a file is still a file with its content, and no link."""
        path, data = self.root / name, self._files[name].encode()
        with contextlib.suppress(OSError):
            return not path.is_symlink() and path.stat().st_size == len(data) and path.read_bytes() == data
        return False

    def _names(self) -> Iterator[str]:
        """Yield the path of everything but folders and what is ignored."""
        for place, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if not _is_ignored(name)]
            for path in (Path(place, name) for name in (*folders, *files) if not _is_ignored(name)):
                # Unlike a Path, these raise nothing where the agent has taken a folder's rights away.
                if os.path.islink(path) or not os.path.isdir(path):  # noqa: PTH112, PTH114
                    yield path.relative_to(self.root).as_posix()


def _is_ignored(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in IGNORED)
