"""A scratch project with an experiment that takes milliseconds, and what pytest makes of it."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from tests import warm

SCRIPT = '''\
"""A model whose loss has its minimum at LR = 0.06."""

LR = 0.04  # learning rate
BATCH = 64  # rows per step

print("step 00001 (50.0%) | loss: 1.0 | remaining: 1s", end="\\r", flush=True)
print("---")
print(f"val_bpb:          {0.95 + abs(LR - 0.06) + BATCH / 6400:.6f}")
print("training_seconds: 1.0")
print("peak_vram_mb:     512.0")
'''

NOISY = '''\
"""A model that is the better the lower LR is; its first three runs differ by their luck."""

import os

LR = 0.30
LUCK = {1: -0.01, 2: 0.0, 3: 0.01}  # by seed

seed = int(os.environ["AUTORESEARCH_SEED"])
luck = LUCK.get(seed, 0.0)
print(f"val_bpb: {0.9 + LR + luck:.6f}")
'''

# Put into a script that runs without a sandbox, it tells how often it has been run before.
COUNTED = """\
from pathlib import Path

count = Path({file!r})
before = len(count.read_text()) if count.exists() else 0
count.write_text("x" * (before + 1))
"""

PREPARE = '''\
"""What a run needs to know about its machine."""

if __name__ == "__main__":
    print("nothing to fetch")
    print("---")
    print("device:       cpu")
    print("device_name:  toy processor")
    print("time_budget:  1")
'''

AGENT = """\
from pytest_autoresearch import Proposal

PROPOSALS = {proposals!r}


def pytest_autoresearch_propose(briefing):
    if briefing.number <= len(PROPOSALS):
        old, new = PROPOSALS[briefing.number - 1]
        return Proposal({{briefing.script_name: briefing.script.replace(old, new)}}, f"{{old}} -> {{new}}")
"""


LONGEST = 400  # seconds a session may take, on a machine with much else to do
# What the tests themselves need would otherwise be loaded by every session that they start.
PLUGINS = ("cacheprovider", "hypothesispytest", "pytest_httpserver", "anyio", "platformdirs")


class Project:
    """A git repository with an experiment in it."""

    def __init__(
        self, pytester: pytest.Pytester, script: str = SCRIPT, prepare: str | None = PREPARE
    ) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.script = self.path / "experiment" / "train.py"
        self.script.parent.mkdir()
        self.script.write_text(script)
        if prepare is not None:
            self.script.with_name("prepare.py").write_text(prepare)
        self.script.with_name("program.md").write_text("Lower val_bpb.\n")
        (self.path / ".gitignore").write_text("__pycache__/\n")
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit()
        self.temporary = self.path / ".git" / "tmp"  # where what is killed may leave something
        self.temporary.mkdir()
        self.inside: list[str] = []  # the command line that pytest is started by, if any
        self.is_warm = True  # whether pytest may have been imported before it starts

    def git(self, *arguments: str) -> str:
        """Run git and return what it prints."""
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=self.path, capture_output=True, text=True, check=True
        )
        return done.stdout.rstrip("\n")

    def commit(self, message: str = "Begin") -> Self:
        """Commit everything that is there."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self

    def clone(self, *options: str) -> Self:
        """Clone the branch that is checked out, and return the clone."""
        self.git("clone", "--quiet", *options, self.path.as_uri(), "clone")
        return self.beside(self.path / "clone")

    def beside(self, path: Path) -> Self:
        """Return the project in another folder, where commands are given from then on."""
        other = copy.copy(self)
        other.path = path
        other.script = other.path / self.script.relative_to(self.path)
        return other

    def proposes(self, *edits: tuple[str, str]) -> Self:
        """Let an agent propose these replacements, one a trial, in a committed ``conftest.py``."""
        (self.path / "conftest.py").write_text(AGENT.format(proposals=list(edits)))
        return self.commit("Add an agent")

    def write(self, **files: str) -> Self:
        """Write files by name; ``__`` stands for a slash and ``_`` before the suffix for its dot."""
        for name, text in files.items():
            stem, _, suffix = name.replace("__", "/").rpartition("_")
            file = self.path / f"{stem}.{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text))
        return self

    def pytest(self, *arguments: str, **environment: str) -> Session:
        """Run pytest as a user does."""
        with self.start(*arguments, **environment) as process:
            try:
                screen, _ = process.communicate(timeout=LONGEST)
            finally:
                process.kill()
        return Session(self, process.wait(), screen)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str] | warm.Process:
        """Start pytest and return its process."""
        without = [argument for name in PLUGINS for argument in ("-p", f"no:{name}")]
        command = [*without, *arguments]
        own = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "COV_"))}
        whole = own | {"COLUMNS": "200", "TMPDIR": str(self.temporary)} | environment
        if self.is_warm and not self.inside and warm.can_fork_for(whole):
            return warm.Process(command, self.path, whole)
        return subprocess.Popen(
            [*self.inside, sys.executable, "-m", "pytest", *command],
            cwd=self.path,
            env=whole,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that a test can signal all of it, as a terminal does
            preexec_fn=_heed_signals,
        )

    def research(self, *arguments: str, tag: str = "t", **environment: str) -> Session:
        """Run ``pytest --autoresearch`` under *tag*."""
        return self.pytest("--autoresearch", f"--autoresearch-tag={tag}", *arguments, **environment)

    # -- what is there afterwards -----------------------------------------------------------------

    @property
    def records(self) -> list[Mapping[str, Any]]:
        """The platforms of ``baseline.json`` in the working tree."""
        platforms: list[Mapping[str, Any]] = json.loads(self.script.with_name("baseline.json").read_text())[
            "platforms"
        ]
        return platforms

    def ledger(self, tag: str = "t") -> list[Mapping[str, Any]]:
        """The entries of ``ledger.jsonl``."""
        lines = (self.path / ".autoresearch" / tag / "ledger.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def rows(self) -> list[list[str]]:
        """The rows of ``results.tsv`` with its header."""
        return [line.split("\t") for line in (self.path / "results.tsv").read_text().splitlines()]

    def refs(self, tag: str = "t") -> dict[str, str]:
        """Name and commit of the campaign's refs, those of logs left out."""
        listing = self.git(
            "for-each-ref", "--format=%(refname:lstrip=3) %(objectname)", f"refs/autoresearch/{tag}/*"
        )
        return dict(line.split() for line in listing.splitlines())

    def subjects(self, revision: str = "HEAD") -> list[str]:
        """The subjects of the commits that lead to *revision*, newest first."""
        return self.git("log", "--format=%s", revision).splitlines()

    def message(self, revision: str = "HEAD") -> str:
        """The message of a commit."""
        return self.git("log", "-1", "--format=%B", revision)

    def is_clean(self) -> bool:
        """Whether the tracked files are as committed."""
        return not self.git("status", "--porcelain", "--untracked-files=no")


class Session:
    """A finished pytest run; every assertion returns it, so that they can be chained."""

    def __init__(self, project: Project, code: int, screen: str) -> None:
        self.project = project
        self.code = code
        self.screen = screen

    def exits(self, code: int) -> Self:
        """Assert the exit code."""
        assert self.code == code, f"exit code {self.code}, not {code}:\n{self.screen}"
        return self

    def shows(self, *parts: str) -> Self:
        """Assert that the screen holds *parts*, in this order."""
        position = 0
        for part in parts:
            found = self.screen.find(part, position)
            assert found >= 0, f"{part!r} is not on the screen after character {position}:\n{self.screen}"
            position = found + len(part)
        return self

    def hides(self, *parts: str) -> Self:
        """Assert that the screen holds none of *parts*."""
        for part in parts:
            assert part not in self.screen, f"{part!r} is on the screen:\n{self.screen}"
        return self

    def counts(self, summary: str) -> Self:
        """Assert pytest's last line, without the time: ``1 passed, 2 discarded``."""
        last = self.screen.strip().splitlines()[-1].strip("= ")
        assert last.rpartition(" in ")[0] == summary, self.screen
        return self

    def decides(self, *verdicts: str, tag: str = "t") -> Self:
        """Assert the verdicts of all trials: in the ledger, in ``results.tsv`` and in the refs."""
        entries = self.project.ledger(tag)
        assert [entry["verdict"] for entry in entries] == list(verdicts), self.screen
        refs = self.project.refs(tag)
        refs.pop("claim", None)
        assert sorted(refs) == [f"{number:04d}" for number in range(len(verdicts) + 1)]
        rows = self.project.rows()[2:]
        assert [row[0] for row in rows] == [entry["commit"][:7] for entry in entries]
        assert [refs[f"{entry['number']:04d}"] for entry in entries] == [entry["commit"] for entry in entries]
        return self

    def leaves_clean(self) -> Self:
        """Assert that the working tree is as committed."""
        assert self.project.is_clean(), self.project.git("diff", "HEAD")
        return self


def _heed_signals() -> None:
    """Be stopped by what stops a program in a terminal, though these tests may run in the background."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_for(condition: Iterator[bool], timeout: float = 20) -> None:
    """Wait until *condition* gives True, asked ten times a second."""
    deadline = time.monotonic() + timeout
    while not next(condition):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


def files_below(path: Path) -> set[str]:
    """Return the files below *path*, without git's and caches."""
    found = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
    return {
        str(file) for file in found if not {".git", "__pycache__", ".pytest_cache"}.intersection(file.parts)
    }
