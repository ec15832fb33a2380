"""An agent without an answer costs patience; what it costs in money is in the trials, and limited."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.project import Project

# Counts how often it is asked, and tells what that costs as coding agents do.
AGENT = f"""\
#!{sys.executable} -IS
import json, pathlib, sys

count = pathlib.Path({{count!r}})
asked = len(count.read_text()) if count.exists() else 0
count.write_text("x" * (asked + 1))
train = pathlib.Path("experiment/train.py")
{{body}}
print(json.dumps({{{{"result": f"idea {{{{asked}}}}", "total_cost_usd": 1.0}}}}))
"""
EDIT = "train.write_text(train.read_text().replace('LR = 0.04', f'LR = {}'))"
IMPATIENT = (
    "from pytest_autoresearch.loop import stopping\n\nstopping.FIRST_WAIT = stopping.LONGEST_WAIT = 0.01\n"
)


class Asked:
    """A project, and a coding agent that counts."""

    def __init__(self, project: Project, path: Path) -> None:
        self.project = project
        self.program = path / "agent.py"
        self.count = path / "count"

    def does(self, body: str, conftest: str = IMPATIENT) -> Project:
        self.program.write_text(AGENT.format(count=str(self.count), body=body))
        self.program.chmod(0o755)
        (self.project.path / "conftest.py").write_text(conftest)
        return self.project.commit("Add an agent")

    @property
    def times(self) -> int:
        return len(self.count.read_text()) if self.count.exists() else 0

    @property
    def option(self) -> str:
        return f"--autoresearch-agent={self.program}"

    @property
    def booked(self) -> float:
        cost: float = sum(entry["usage"].get("cost", 0.0) for entry in self.project.ledger())
        return cost


@pytest.fixture
def agent(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return Asked(project, tmp_path_factory.mktemp("agent"))


def test_an_outage_is_waited_out(agent: Asked) -> None:
    body = f"if asked < 12: sys.exit('the limit is reached, come back at three')\n{EDIT.format('0.05')}"
    session = agent.does(body).research(agent.option, "--autoresearch-trials=13").exits(0)
    session.decides(*["refused"] * 12, "kept").shows("REFUSED (agent.py: ", "the limit is reached, come back")
    session.shows("proposals: agent.py 1, nobody 12")
    assert agent.project.ledger()[0]["declined_by"] == [
        "agent.py: exit code 1: the limit is reached, come back at three"
    ]


def test_the_wait_grows_and_ends_with_the_hours(agent: Asked) -> None:
    conftest = "from pytest_autoresearch.loop import stopping\n\nstopping.FIRST_WAIT = 0.4\n"
    project = agent.does("sys.exit('away')", conftest)
    project.research(agent.option, "--autoresearch-hours=0.0008").exits(0)
    assert 2 <= agent.times <= 5  # in three seconds, after 0, 0.4, 1.2 and 2.8 of them


def test_nobody_is_asked_whose_answer_nobody_fetches(agent: Asked) -> None:
    conftest = """\
from pytest_autoresearch import Proposal

def pytest_autoresearch_propose(briefing):
    return Proposal(briefing.edit("LR = 0.04", f"LR = 0.04{briefing.number}"), "mine")
"""
    agent.does(EDIT.format("0.05"), conftest).research(agent.option, "--autoresearch-trials=3").exits(0)
    assert agent.times == 0


def test_mending_is_paid_from_the_same_purse(agent: Asked) -> None:
    project = agent.does(EDIT.format("oops{asked}"))
    session = project.research(agent.option, "--autoresearch-max-cost=1.5").exits(0)
    session.shows("agent agent.py: the limit counts only the cost that its output states")
    session.shows("agent.py proposes no more: ", "proposals have cost ", "of 1.50 US dollars")
    assert agent.times <= 3  # the proposal, one prepared beside its run, one that was under way
    assert agent.booked + (1.0 if "1.00 US dollars more" in session.screen else 0.0) == agent.times


def test_a_limit_holds_in_the_next_session(agent: Asked) -> None:
    project = agent.does("if asked: sys.exit(1)\n" + EDIT.format("0.05"))
    project.research(agent.option, "--autoresearch-trials=1", "--autoresearch-max-cost=1").exits(0).decides(
        "kept"
    )
    project.research(agent.option, "--autoresearch-max-cost=1").exits(0).decides("kept")
    assert agent.times == 1


def test_an_interrupt_loses_no_cost_of_an_answer_that_waits(agent: Asked) -> None:
    conftest = f"""\
import os, pathlib, signal, threading, time

COUNT = pathlib.Path({str(agent.count)!r})
ONCE = COUNT.with_name("once")


def interrupt():
    while not COUNT.exists() or COUNT.read_text() != "xx":  # asked beside trial 1
        time.sleep(0.01)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGINT)


if not ONCE.exists():
    ONCE.touch()
    threading.Thread(target=interrupt, daemon=True).start()
"""
    project = agent.does(EDIT.format('0.0{asked + 5}; __import__("time").sleep(3)'), conftest)
    project.research(agent.option).exits(2)
    assert (agent.times, agent.booked) == (2, 0)
    project.research(agent.option, "--autoresearch-max-cost=2").exits(0).decides("refused")
    assert (agent.times, agent.booked) == (2, 2.0)
