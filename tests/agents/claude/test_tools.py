"""Tools that do not work, answers that are cut off, and conversations that lead nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pytest_autoresearch.agents.claude.agent import MAX_TURNS, MAX_TURNS_WITHOUT_TOOL
from pytest_autoresearch.errors import AgentUnavailable
from tests.agents.claude.asking import MENDED, SCRIPT, Make, brief, entry, refused
from tests.anthropic_server import COST, USAGE, AnthropicServer, change, edit, message, submit, text, use


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (edit("LR = 0.5", "LR = 0.05"), "`old` does not occur in the script"),
        (edit("", "x"), "`old` does not occur in the script"),
        (edit("BATCH", "ROWS"), "`old` occurs more than once"),
        (edit(") * (" * 9, ""), "`old` does not occur"),
        (use("edit", old="LR", new=7), "of edit, old and new must be text"),
        (use("edit", old="LR"), "edit takes an object with old and new"),
        (use("edit", old="LR", new="RATE", path="/etc/passwd"), "edit takes an object with old and new"),
        (use("edit", "LR = 0.05"), "edit takes an object with old and new"),
        (use("write_file", ["LR = 0.05"]), "write_file takes an object with text"),
        (use("bash", command="rm -r /"), "there is no such tool: use edit, write_file, submit, give_up"),
        (use("source", text="x"), "there is no such tool"),
        (submit(), "not submitted: nothing was changed"),
        (use("submit", description="x"), "submit takes an object with description and hypothesis"),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_a_tool_that_fails_is_told_and_can_be_mended(
    server: AnthropicServer, make: Make, bad: Mapping[str, Any], told: str
) -> None:
    server.says(message(bad), change("0.04", "0.05"))
    proposal = make().propose(brief())
    assert proposal is not None
    assert proposal.files["train.py"] == MENDED
    [result] = server.asked[1].results()
    assert result["is_error"] is True
    assert result["tool_use_id"] == bad["id"]
    assert told in result["content"]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("LR = = 1\n", "not submitted: line 1: invalid syntax"),
        (SCRIPT.replace("64", "63"), '"BATCH % 2 == 0" does not hold'),
        (SCRIPT + "# a comment\n", "no experiment: only layout and comments changed"),
        (SCRIPT + "x" * 300_000, "262144 are allowed"),
        ("LR = '\0'\n", "a NUL byte"),
        ("LR = 0.08\n", "the same script as trial 2, discarded: no better"),
        ("LR = 9e-2  # a comment\n", "the same script as trial 3, discarded: no better"),
    ],
    ids=["syntax", "assert", "comment", "size", "nul", "tried", "tried, spelt otherwise"],
)
def test_what_is_submitted_is_checked(server: AnthropicServer, make: Make, source: str, told: str) -> None:
    server.says(
        message(use("write_file", text=source), submit()), message(use("write_file", text=MENDED), submit())
    )
    history = [entry(1, "LR = 0.07\n"), entry(2, "LR = 0.08\n"), entry(3, "LR = 0.09\n")]
    proposal = make().propose(brief(history))
    assert proposal is not None
    assert proposal.files["train.py"] == MENDED
    written, submitted = server.asked[1].results()
    assert (written["is_error"], submitted["is_error"]) == (False, True)
    assert told in submitted["content"]


def test_nothing_is_submitted_behind_an_edit_that_failed(server: AnthropicServer, make: Make) -> None:
    server.says(
        message(edit("64", "32"), edit("0.4", "0.5"), submit("rate and batch")),
        message(edit("0.04", "0.05"), submit("rate and batch")),
    )
    proposal = make().propose(brief())
    assert proposal is not None
    assert proposal.files["train.py"] == MENDED.replace("64", "32")
    assert [result["is_error"] for result in server.asked[1].results()] == [False, True, True]
    assert "an earlier call failed" in server.asked[1].results()[2]["content"]


def test_what_was_cut_off_is_never_applied(server: AnthropicServer, make: Make) -> None:
    server.says(
        message(edit("64", "32"), use("write_file", text=MENDED + "pri"), stop="max_tokens"),
        message(edit("0.04", "0.05"), submit()),
    )
    proposal = make().propose(brief())
    assert proposal is not None
    assert proposal.files["train.py"] == MENDED.replace("64", "32")
    done, cut = server.asked[1].results()
    assert (done["content"], cut["is_error"]) == ("edited", True)
    assert "cut off" in cut["content"]


def test_a_thought_that_was_cut_off_does_not_go_back(server: AnthropicServer, make: Make) -> None:
    thought = {"type": "thinking", "thinking": "", "signature": ""}
    server.says(message(thought, stop="max_tokens"), message(stop="end_turn"), change("0.04", "0.05"))
    assert make().propose(brief())
    assert [asked["role"] for asked in server.asked[2].messages] == ["user"] * 3
    assert "Be brief" in server.asked[1].results()[0]["text"]
    assert "call submit" in server.asked[2].results()[0]["text"]


def test_words_alone_are_asked_for_a_tool(server: AnthropicServer, make: Make) -> None:
    words = message(text("I would raise LR."), stop="end_turn")
    server.says(words, words, change("0.04", "0.05"))
    proposal = make().propose(brief())
    assert proposal is not None
    assert proposal.usage.calls == 3
    assert server.asked[1].results()[0]["text"].startswith("Nothing was submitted.")


def test_words_alone_are_not_borne_for_ever(server: AnthropicServer, make: Make) -> None:
    server.says_as(lambda _: message(text("I would\n raise LR."), stop="end_turn"))
    error = refused(make())
    assert str(error) == "submitted nothing, but said: I would raise LR."
    assert len(server.asked) == MAX_TURNS_WITHOUT_TOOL + 1
    assert error.usage.calls == MAX_TURNS_WITHOUT_TOOL + 1
    assert error.usage.cost == pytest.approx((MAX_TURNS_WITHOUT_TOOL + 1) * COST)


def test_turns_are_limited(server: AnthropicServer, make: Make) -> None:
    server.says_as(lambda _: message(edit("0.4", "0.5")))
    error = refused(make())
    assert str(error) == f"submitted nothing in {MAX_TURNS} turns"
    assert len(server.asked) == error.usage.calls == MAX_TURNS


def test_tokens_are_limited(server: AnthropicServer, make: Make) -> None:
    much = USAGE | {"output_tokens": 25_000}
    server.says_as(lambda _: message(edit("0.4", "0.5"), usage=much))
    error = refused(make())
    assert str(error) == "submitted nothing in 75000 tokens"
    assert [asked.body["max_tokens"] for asked in server.asked] == [20_000, 20_000, 10_000]
    assert error.usage.output_tokens == 75_000


def test_it_may_give_up(server: AnthropicServer, make: Make) -> None:
    server.says(message(edit("64", "32"), use("give_up", reason="all\nis tried")))
    error = refused(make())
    assert str(error) == "gave up: all is tried"
    assert error.usage.cost == pytest.approx(COST)
    assert not isinstance(error, AgentUnavailable)


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ({"type": "refusal", "category": "frontier_llm"}, "declined (frontier_llm)"),
        (None, "declined (no category)"),
    ],
    ids=["category", "none"],
)
def test_a_refusal_is_not_asked_again(
    server: AnthropicServer, make: Make, details: object, reason: str
) -> None:
    server.says(message(edit("0.04", "0.05"), submit(), stop="refusal", stop_details=details))
    error = refused(make())
    assert str(error) == reason
    assert len(server.asked) == 1
    assert error.usage.calls == 1
    assert not isinstance(error, AgentUnavailable)


def test_a_context_that_is_full_ends_it(server: AnthropicServer, make: Make) -> None:
    server.says(message(stop="model_context_window_exceeded"))
    assert "does not fit" in str(refused(make()))


def test_what_the_api_may_add_is_borne(server: AnthropicServer, make: Make) -> None:
    hologram = {"type": "hologram", "light": 1}
    server.says(message(hologram, edit("0.04", "0.05"), stop="from_the_future"), message(submit()))
    assert make().propose(brief())
    assert server.asked[1].messages[1]["content"][0] == hologram
