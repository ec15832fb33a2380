"""An agent that is a Python program of a few lines, and its command line."""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path

import pytest

from pytest_autoresearch.agents.agent import AgentOptions
from pytest_autoresearch.agents.briefing import Briefing
from pytest_autoresearch.agents.command.agent import Command
from pytest_autoresearch.errors import NoAnswer
from pytest_autoresearch.records.proposal import Proposal
from tests.project import PREPARE, SCRIPT, Project, wait_for

BETTER = SCRIPT.replace("LR = 0.04", "LR = 0.05")
PRELUDE = f"""\
#!{sys.executable} -IS
import fcntl, json, os, pathlib, shutil, signal, socket, subprocess, sys, time

train = pathlib.Path("experiment/train.py")
prompt = sys.stdin.read()

def edit(old="LR = 0.04", new="LR = 0.05"):
    train.write_text(train.read_text().replace(old, new))

def describe(text):
    pathlib.Path(os.environ["AUTORESEARCH_DESCRIPTION_FILE"]).write_text(text)

def git(*arguments):
    subprocess.run(["git", *arguments], check=True, stdout=subprocess.DEVNULL)

"""


class Bench:
    """A project, and agents to try on its experiment."""

    def __init__(self, project: Project, path: Path) -> None:
        self.project = project
        self.path = path
        self.scratch = path / "scratch"
        self.scratch.mkdir()
        self.briefing = Briefing(
            tag="t",
            number=1,
            program="Lower val_bpb.\n",
            fixed=PREPARE,
            files={"train.py": SCRIPT},
            start_files={"train.py": SCRIPT},
            script_name="train.py",
            history=(),
            score=0.98,
            noise=0.0,
            metric="val_bpb",
            direction="minimize",
            platform={"device": "cpu"},
        )

    def program(self, body: str, name: str = "agent", prelude: str = PRELUDE) -> Path:
        """Write an agent's program and return its path."""
        program = self.path / "programs" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(prelude + body)
        program.chmod(0o755)
        return program

    def options(self, timeout: float = 60.0, enforcer: str = "none") -> AgentOptions:
        """Return the options of a session with these values in the ini file."""
        return AgentOptions(script=self.project.script, timeout=timeout, sandbox=enforcer)

    def agent(self, body: str, timeout: float = 60.0, enforcer: str = "none") -> Command:
        """Return the agent that a program makes."""
        return Command(str(self.program(body)), self.options(timeout, enforcer))

    def proposal(self, body: str, enforcer: str = "none") -> Proposal:
        """Return what a program proposes."""
        proposal = self.agent(body, enforcer=enforcer).propose(self.briefing)
        assert self.is_tidy()
        return proposal

    def refusal(self, body: str, timeout: float = 60.0) -> NoAnswer:
        """Return why a program has no answer."""
        with pytest.raises(NoAnswer) as refused:
            self.agent(body, timeout).propose(self.briefing)
        assert self.is_tidy()
        return refused.value

    def is_tidy(self) -> bool:
        """Whether nothing is left of any answer."""
        return not list(self.scratch.iterdir())


class Lock:
    """A file that a process of an agent holds locked as long as it lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Away from its parent, deaf to every signal that can be ignored, and as good as endless.
        self.daemon = f"""
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    held = open({str(path)!r}, "a")
    fcntl.flock(held, fcntl.LOCK_EX)
    held.write("held")
    held.flush()
    time.sleep(600)
while not os.path.exists({str(path)!r}) or not open({str(path)!r}).read():
    time.sleep(0.01)
"""

    def wait(self) -> None:
        """Wait until the process is there."""
        wait_for(iter(lambda: self.path.exists() and self.path.read_text() == "held", None))

    def is_held(self) -> bool:
        """Whether the process is alive; it has to have been."""
        assert self.path.read_text().startswith("held")
        with self.path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False
