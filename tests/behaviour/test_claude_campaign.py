"""A campaign with Claude in it, from the command line to the last summary."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from tests.anthropic_server import (
    COST,
    KEY,
    Answer,
    AnthropicServer,
    Asked,
    change,
    edit,
    failure,
    message,
    submit,
    text,
    use,
)
from tests.project import Project, Session

CLAUDE = "claude:claude-sonnet-5-5"


@pytest.fixture
def server(httpserver: HTTPServer) -> AnthropicServer:
    return AnthropicServer(httpserver)


def research(project: Project, server: AnthropicServer, *arguments: str, **changed: str) -> Session:
    environment = {
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_MODEL": "",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    return project.research(*arguments, **environment | changed).hides(KEY)


class Night:
    """What the model does in each trial of a night; what it proposes starts from the incumbent it is told."""

    def __init__(self) -> None:
        self._overloads = Counter[int]()

    def __call__(self, asked: Asked) -> Answer:
        trial: Answer = getattr(self, f"_trial_{asked.trial}")(asked)
        return trial

    @staticmethod
    def _rate(asked: Asked, rate: str) -> Answer:
        return change(asked.line("LR"), f"LR = {rate}", f"LR {rate}")

    def _trial_1(self, asked: Asked) -> Answer:
        return self._rate(asked, "0.05")

    def _trial_2(self, asked: Asked) -> Answer:
        return self._rate(asked, "0.09")

    def _trial_3(self, asked: Asked) -> Answer:
        if asked.is_fix:
            return change("BATCH = less", "BATCH = 32", "BATCH 32, as a number")
        return change(asked.line("BATCH"), "BATCH = less", "BATCH less")

    def _trial_4(self, asked: Asked) -> Answer:
        if not asked.is_fix:
            return change(asked.line("LR"), "LR = wrong_0", "LR by name")
        last = max(number for number in range(4) if f"LR = wrong_{number}" in asked.told)
        return change(f"LR = wrong_{last}", f"LR = wrong_{last + 1}", "LR by another name")

    def _trial_5(self, _: Asked) -> Answer:
        return message(stop="refusal", stop_details={"type": "refusal", "category": "frontier_llm"})

    def _trial_6(self, asked: Asked) -> Answer:
        self._overloads[asked.turn] += 1
        if self._overloads[asked.turn] <= 2:
            return failure(529, "overloaded", retry_after_ms="1")
        return self._rate(asked, "0.055")

    def _trial_7(self, asked: Asked) -> Answer:
        if asked.turn == 0:
            return message(use("write_file", text="LR = 0."), stop="max_tokens")
        return self._rate(asked, "0.08")

    def _trial_8(self, _: Asked) -> Answer:
        return message(text("There is nothing left to try."), stop="end_turn")

    def _trial_9(self, asked: Asked) -> Answer:
        if asked.turn == 0:
            return message(edit("LR", "RATE"), submit())
        return self._rate(asked, "0.07")

    def _trial_10(self, asked: Asked) -> Answer:
        if asked.turn == 0:
            return message(edit(asked.line("LR"), asked.line("LR") + "  # the same"), submit())
        return message(use("give_up", reason="no idea"))

    def _trial_11(self, asked: Asked) -> Answer:
        return self._rate(asked, "0.06")


def test_a_night_with_everything_that_happens(project: Project, server: AnthropicServer) -> None:
    server.says_as(Night())
    session = research(project, server, "--autoresearch-agent=claude,tuner", "--autoresearch-trials=11")
    session.exits(0).leaves_clean().shows(f"agent: {CLAUDE}, then tuner")
    entries = {entry["number"]: entry for entry in project.ledger()}
    verdicts = {number: entry["verdict"] for number, entry in entries.items()}
    assert [verdicts[number] for number in (1, 2, 3, 4)] == ["kept", "discarded", "kept", "crashed"]
    assert [verdicts[number] for number in (6, 7, 9, 11)] == ["kept", "discarded", "discarded", "kept"]
    assert "LR = 0.06" in project.script.read_text()
    by_tuner = {number for number, entry in entries.items() if entry["agent"] == "tuner"}
    assert by_tuner == {5, 8, 10}
    assert all(entries[number]["agent"] == CLAUDE for number in entries.keys() - by_tuner)
    assert entries[5]["declined_by"] == [f"{CLAUDE}: declined (frontier_llm)"]
    assert entries[8]["declined_by"] == [
        f"{CLAUDE}: submitted nothing, but said: There is nothing left to try."
    ]
    assert entries[10]["declined_by"] == [f"{CLAUDE}: gave up: no idea"]
    assert entries[3]["description"] == "BATCH 32, as a number"
    assert [len(entries[number]["crashes"]) for number in (1, 3, 4)] == [0, 1, 3]
    assert "wrong_3" in entries[4]["reason"]
    check_cost(session, server, entries)
    check_no_key(project)


def check_cost(session: Session, server: AnthropicServer, entries: Mapping[int, Mapping[str, Any]]) -> None:
    """Every answer is paid for, whatever became of it, and the summary tells the sum."""
    calls = sum(entry["usage"].get("calls", 0) for entry in entries.values())
    overloads = 2
    assert calls == len(server.asked) - overloads
    cost = sum(entry["usage"].get("cost", 0) for entry in entries.values())
    assert cost == pytest.approx(calls * COST)
    assert entries[4]["usage"]["calls"] >= 4
    session.shows("proposals: ", f"{CLAUDE} 8", "tuner 3", f"{cost:.2f} US dollars")


def check_no_key(project: Project) -> None:
    """Neither what was written nor what git holds has the key in it."""
    for file in project.path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
    commits = project.git("log", "--all", "--patch", "--format=raw")
    assert f"Agent: {CLAUDE}" in commits
    assert KEY not in commits


def test_a_fixed_sum_is_not_exceeded(project: Project, server: AnthropicServer) -> None:
    server.says_as(lambda asked: change(asked.line("LR"), f"LR = 0.0{asked.trial}5", "another LR"))
    limit = f"--autoresearch-max-cost={1.5 * COST}"
    session = research(project, server, "--autoresearch-agent=claude", limit).exits(0)
    session.decides("discarded", "discarded").shows(f"{2 * COST:.2f} US dollars")
    assert len(server.asked) == 2
    more = research(project, server, "--autoresearch-agent=claude,tuner", limit, "--autoresearch-trials=1")
    more.exits(0)
    assert len(server.asked) == 2
    assert project.ledger()[2]["agent"] == "tuner"
    assert project.ledger()[2]["declined_by"] == [f"{CLAUDE}: proposals have cost 0.03 of 0.02 US dollars"]


def test_what_a_killed_session_has_paid_is_not_forgotten(project: Project, server: AnthropicServer) -> None:
    killed = project.path / ".git" / "killed"
    project.write(
        conftest_py=f"""
            import os, pathlib, signal
            import pytest

            @pytest.hookimpl(wrapper=True)
            def pytest_autoresearch_propose():
                proposal = yield
                if not pathlib.Path({str(killed)!r}).exists():
                    pathlib.Path({str(killed)!r}).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                return proposal
        """
    ).commit()
    server.says_as(lambda asked: change(asked.line("LR"), f"LR = 0.0{asked.trial + 4}5", "another LR"))
    arguments = "--autoresearch-agent=claude", f"--autoresearch-max-cost={1.5 * COST}"
    assert research(project, server, *arguments).code == -signal.SIGKILL
    assert len(server.asked) == 1
    session = research(project, server, *arguments, "--autoresearch-trials=1").exits(0)
    assert len(server.asked) == 2
    [entry] = project.ledger()
    assert entry["usage"]["calls"] == 2
    assert entry["usage"]["cost"] == pytest.approx(2 * COST)
    session.shows(f"{2 * COST:.2f} US dollars")
    research(project, server, *arguments).exits(0).decides(entry["verdict"])  # that was all the money
    assert len(server.asked) == 2


def test_a_key_that_is_refused_ends_the_campaign(project: Project, server: AnthropicServer) -> None:
    server.says_as(lambda _: failure(401, f"{KEY} is not valid"))
    session = research(project, server, "--autoresearch-agent=claude").exits(1).leaves_clean()
    session.shows(f"no agent is left: {CLAUDE}: 401 … is not valid; check the key in ANTHROPIC_API_KEY")
    assert len(server.asked) == 1


def test_without_a_key_nothing_is_run(project: Project, server: AnthropicServer) -> None:
    keyless = {"ANTHROPIC_BASE_URL": "", "ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": ""}
    keyless["HOME"] = str(project.temporary)
    session = research(project, server, "--autoresearch-agent=claude", **keyless).exits(4)
    session.shows("the agent claude needs a key: set ANTHROPIC_API_KEY").hides("Traceback", "::baseline")


def test_a_price_that_is_missing_is_told_before_anything_runs(
    project: Project, server: AnthropicServer
) -> None:
    arguments = "--autoresearch-agent=claude:qwen3", "--autoresearch-max-cost=5"
    session = research(project, server, *arguments).exits(4).hides("::baseline")
    session.shows("set autoresearch_prices = qwen3 INPUT OUTPUT, in dollars for a million tokens")
