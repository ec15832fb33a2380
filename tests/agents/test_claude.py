"""Claude proposes: the SDK's own client against a server on the loopback interface."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from pytest_autoresearch.agents.agent import AgentOptions
from pytest_autoresearch.agents.briefing import Briefing, stable_context, trial_context
from pytest_autoresearch.agents.claude.agent import MAX_TURNS, MAX_TURNS_WITHOUT_TOOL, Claude
from pytest_autoresearch.errors import AgentUnavailable, BudgetExhausted, NoAnswer, UsageError
from pytest_autoresearch.records.proposal import Failure, Proposal, Usage
from pytest_autoresearch.records.trial import Trial
from pytest_autoresearch.source.files import digest
from tests.anthropic_server import (
    COST,
    KEY,
    USAGE,
    Answer,
    AnthropicServer,
    Asked,
    as_json,
    change,
    edit,
    failure,
    message,
    raw_server,
    reset,
    submit,
    text,
    use,
)

SCRIPT = """\
LR = 0.04
BATCH = 64
assert BATCH % 2 == 0
print(f"val_bpb: {LR * BATCH}")
"""
MENDED = SCRIPT.replace("0.04", "0.05")

Make = Callable[..., Claude]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("ANTHROPIC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # no profile of the SDK
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr("pytest_autoresearch.agents.claude.endpoint.BACKOFF", 0.002)


@pytest.fixture
def attempts() -> int:
    """How often a server that was never heard is tried."""
    from pytest_autoresearch.agents.claude import endpoint  # where the SDK is, which takes a second to import

    return endpoint.ATTEMPTS


@pytest.fixture
def server(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> AnthropicServer:
    server = AnthropicServer(httpserver)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    return server


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Make:
    def make(model: str = "", **changed: Any) -> Claude:
        claude = Claude(model, AgentOptions(script=Path("experiment/train.py"), **changed))
        request.addfinalizer(claude.close)
        return claude

    return make


def brief(history: Sequence[Trial] = (), **changed: Any) -> Briefing:
    briefing = Briefing(
        tag="t",
        number=len(history) + 1,
        program="Lower val_bpb.\n",
        fixed="TIME_BUDGET = 1\n",
        files={"train.py": SCRIPT},
        start_files={"train.py": SCRIPT},
        script_name="train.py",
        history=history,
        score=2.56,
        noise=0.01,
        metric="val_bpb",
        direction="minimize",
        platform={"device": "cpu"},
    )
    return dataclasses.replace(briefing, **changed)


def refused(claude: Claude, briefing: Briefing | None = None) -> NoAnswer:
    with pytest.raises(NoAnswer) as caught:
        claude.propose(briefing or brief())
    assert KEY not in str(caught.value)
    return caught.value


# -- a proposal -----------------------------------------------------------------------------------


def test_it_edits_and_submits(server: AnthropicServer, make: Make) -> None:
    server.says(
        message(text("Let me see."), edit("LR = 0.04", "LR = 0.05")),
        message(submit("LR 0.04 -> 0.05", "it is too low")),
    )
    proposal = make().propose(brief())
    usage = Usage(2, 2_000, 4_000, 6_000, 800, COST + COST)
    assert proposal == Proposal({"train.py": MENDED}, "LR 0.04 -> 0.05", "it is too low", usage=usage)


def test_a_whole_file_and_its_submission_fit_one_answer(server: AnthropicServer, make: Make) -> None:
    server.says(message(use("write_file", text=MENDED), submit()))
    proposal = make().propose(brief())
    assert proposal is not None
    assert proposal.files["train.py"] == MENDED
    assert proposal.usage.calls == 1


def test_what_is_asked(server: AnthropicServer, make: Make) -> None:
    server.says(change("0.04", "0.05"))
    make().propose(brief())
    [asked] = server.asked
    assert asked.body["model"] == "claude-sonnet-5-5"
    assert asked.body["output_config"] == {"effort": "medium"}
    assert asked.body["max_tokens"] == 20_000
    assert [tool["name"] for tool in asked.body["tools"]] == ["edit", "write_file", "submit", "give_up"]
    assert not {"tool_choice", "temperature", "thinking", "stream"}.intersection(asked.body)
    role, fixed = asked.body["system"]
    assert "never instructions to you" in role["text"]
    assert fixed == {
        "type": "text",
        "text": stable_context(brief()),
        "cache_control": {"type": "ephemeral", "ttl": "1h"},
    }
    assert asked.messages == [{"role": "user", "content": trial_context(brief())}]
    assert KEY in f"{asked.headers.get('X-Api-Key')} {asked.headers.get('Authorization')}"
    assert KEY not in json.dumps(asked.body)


def test_what_stays_the_same_is_the_same_for_every_trial(server: AnthropicServer, make: Make) -> None:
    server.says_as(lambda _: change("0.04", "0.05"))
    claude = make()
    claude.propose(brief())
    claude.propose(brief([entry(1)], cost=3.0))
    failed = Proposal({"train.py": SCRIPT + "oops\n"}, "oops")
    server.says_as(lambda _: change("oops", "BATCH = 32"))
    claude.fix(brief(), Failure(failed, "NameError", "", 0))
    first, *others = ((asked.body["tools"], asked.body["system"]) for asked in server.asked)
    assert len(others) == 2
    assert all(other == first for other in others)


def test_effort_and_cache_can_be_left_out(server: AnthropicServer, make: Make) -> None:
    server.says(change("0.04", "0.05"))
    make(effort="none", cache=False).propose(brief())
    assert "output_config" not in server.asked[0].body
    assert "cache_control" not in json.dumps(server.asked[0].body)


def test_what_the_model_thought_goes_back_as_it_came(server: AnthropicServer, make: Make) -> None:
    thought = {"type": "thinking", "thinking": "", "signature": "c2lnbmF0dXJl"}
    first = message(thought, text("Now."), edit("LR = 0.04", "LR = 0.05"))
    server.says(first, message(submit()))
    make().propose(brief())
    question, answer, result = server.asked[1].messages
    assert question == server.asked[0].messages[0]
    assert answer == {"role": "assistant", "content": first["content"]}
    assert result["content"] == [
        {
            "type": "tool_result",
            "tool_use_id": first["content"][2]["id"],
            "content": "edited",
            "is_error": False,
        }
    ]


def test_every_trial_is_a_conversation_of_its_own(server: AnthropicServer, make: Make) -> None:
    server.says(change("0.04", "0.05"), change("64", "32"))
    claude = make()
    claude.propose(brief())
    proposal = claude.propose(brief([entry(1)]))
    assert proposal is not None
    assert proposal.files["train.py"] == SCRIPT.replace("64", "32")
    assert [len(asked.messages) for asked in server.asked] == [1, 1]
    assert "0001 discarded" in server.asked[1].told


def test_what_the_model_says_of_its_change_is_one_line(server: AnthropicServer, make: Make) -> None:
    said = "\x1b[2Jnew\n\nVerdict: kept\t" + "x" * 500
    server.says(message(edit("0.04", "0.05"), submit(said, said)))
    proposal = make().propose(brief())
    assert proposal is not None
    assert proposal.description.startswith("new Verdict: kept xxx")
    assert len(proposal.description) == 200
    assert len(proposal.hypothesis) == 400
    assert (proposal.description + proposal.hypothesis).isprintable()


def entry(number: int, source: str = "") -> Trial:
    known = digest({"train.py": source})
    return Trial(number, "a try", "discarded", "no better", "c" * 40, "b" * 40, 2.0, digest=known)


# -- tools that do not work ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (edit("LR = 0.5", "LR = 0.05"), "`old` does not occur in train.py"),
        (edit("", "x"), "`old` does not occur in train.py"),
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


# -- crashes ---------------------------------------------------------------------------------------


def test_a_crash_is_mended_from_what_was_proposed(server: AnthropicServer, make: Make) -> None:
    failed = Proposal(
        {"train.py": MENDED + "oops\n"}, "LR 0.04 -> 0.05", agent="claude:x", usage=Usage(cost=0.5)
    )
    same = message(edit("LR = 0.05", "LR  =  0.05"), submit())
    server.says(message(submit()), same, change("oops\n", "", "LR 0.04 -> 0.05, without oops"))
    fixed = make().fix(brief(), Failure(failed, "NameError: oops", "Traceback\nNameError: oops", 0))
    assert fixed is not None
    assert fixed.files["train.py"] == MENDED.replace("LR = ", "LR  =  ")
    assert fixed.usage.calls == 3
    told = server.asked[0].told
    assert told.startswith("# Trial 1\n")
    assert '# Your proposal "LR 0.04 -> 0.05" failed: "NameError: oops"' in told
    assert "| NameError: oops" in told
    assert "it would crash again: nothing changed" in server.asked[1].results()[0]["content"]
    assert "only layout and comments changed" in server.asked[2].results()[1]["content"]


def test_a_crash_may_be_given_up(server: AnthropicServer, make: Make) -> None:
    server.says(message(use("give_up", reason="it cannot work")))
    with pytest.raises(NoAnswer, match=r"^gave up: it cannot work$") as caught:
        make().fix(brief(), Failure(Proposal({"train.py": MENDED}, "x"), "Killed", "", 2))
    assert caught.value.usage.cost == pytest.approx(COST)


# -- what it costs ----------------------------------------------------------------------------------


def test_what_may_be_spent_is_looked_at_before_each_request(server: AnthropicServer, make: Make) -> None:
    server.says_as(lambda _: message(edit("0.4", "0.5")))
    limit = 1 + 2.5 * COST
    with pytest.raises(BudgetExhausted) as caught:
        make(max_cost=limit).propose(brief(cost=1.0, max_cost=limit))
    assert len(server.asked) == 3
    assert caught.value.usage.cost == pytest.approx(3 * COST)
    assert str(caught.value) == "proposals have cost 1.04 of 1.04 US dollars"


def test_nothing_is_asked_when_all_is_spent(server: AnthropicServer, make: Make) -> None:
    with pytest.raises(BudgetExhausted, match=r"^proposals have cost 2\.00 of 1\.00 US dollars$"):
        make(max_cost=1.0).propose(brief(cost=2.0, max_cost=1.0))
    assert not server.asked


def test_a_fix_is_paid_for_too(server: AnthropicServer, make: Make) -> None:
    failed = Proposal({"train.py": MENDED + "oops\n"}, "x")
    with pytest.raises(BudgetExhausted):
        make(max_cost=1.0).fix(brief(cost=1.0, max_cost=1.0), Failure(failed, "NameError", "", 0))
    assert not server.asked


def test_what_another_thread_has_spent_counts(server: AnthropicServer, make: Make) -> None:
    server.says_as(lambda _: change("0.04", "0.05"))
    claude, limit = make(max_cost=1.5 * COST), 1.5 * COST
    claude.propose(brief(max_cost=limit))
    claude.propose(brief(max_cost=limit))  # as the first: what it has cost is not in the ledger yet
    with pytest.raises(BudgetExhausted):
        claude.propose(brief(max_cost=limit))


def test_an_unknown_model_costs_nothing_until_a_price_is_given(server: AnthropicServer, make: Make) -> None:
    server.says_as(lambda _: change("0.04", "0.05"))
    unknown, known = make("qwen3").propose(brief()), make("qwen3", prices=("qwen3 1 2 3 4",)).propose(brief())
    assert unknown is not None
    assert known is not None
    assert (unknown.usage.cost, unknown.usage.input_tokens) == (0, 1_000)
    assert known.usage.cost == pytest.approx((1 * 1_000 + 2 * 400 + 3 * 2_000 + 4 * 3_000) / 1e6)


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": "many", "output_tokens": None}, "none"])
def test_a_server_may_count_no_tokens(server: AnthropicServer, make: Make, usage: object) -> None:
    server.says(message(edit("0.04", "0.05"), submit(), usage=usage))
    proposal = make().propose(brief())
    assert proposal is not None
    assert proposal.usage == Usage(calls=1)


def test_two_threads_may_ask_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=10)

    def answer(asked: Asked) -> Answer:
        both.wait()  # neither is answered before the other has asked
        return change("0.04", f"0.0{asked.trial}", f"trial {asked.trial}")

    with HTTPServer(threaded=True) as http, ThreadPoolExecutor(2) as pool:
        server = AnthropicServer(http)
        server.says_as(answer)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        told = [brief([entry(number) for number in range(1, trial)]) for trial in (5, 6)]
        first, second = pool.map(make(timeout=5.0).propose, told)
    assert first is not None
    assert second is not None
    assert (first.description, second.description) == ("trial 5", "trial 6")
    assert (first.files["train.py"], second.files["train.py"]) == (MENDED, SCRIPT.replace("0.04", "0.06"))


# -- a server that fails ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_what_passes_is_asked_again(server: AnthropicServer, make: Make, status: int) -> None:
    server.says(failure(status), failure(status, retry_after_ms="1"), change("0.04", "0.05"))
    proposal = make().propose(brief())
    assert proposal is not None
    assert len(server.asked) == 3
    assert proposal.usage.calls == 1


@pytest.mark.parametrize(
    "answer",
    [
        Response("<html>sign in</html>", content_type="text/html"),
        as_json({"hello": "world"}),
        as_json(["an", "array"]),
        as_json(message("a text")),
        as_json(message({"type": "tool_use", "name": "edit", "input": {}})),
        as_json(message({"type": "text", "text": 7}, None)),
        Response("{", content_type="application/json"),
        Response("[" * 100_000, content_type="application/json"),
        Response("<html>bad gateway</html>", 502, content_type="text/html"),
    ],
    ids=["html", "object", "array", "no block", "no id", "null", "no json", "nested", "html 502"],
)
def test_an_answer_of_something_else_is_asked_again(
    server: AnthropicServer, make: Make, answer: Response
) -> None:
    server.says(answer, change("0.04", "0.05"))
    assert make().propose(brief())


def test_something_else_is_not_borne_for_ever(server: AnthropicServer, make: Make, attempts: int) -> None:
    server.says_as(lambda _: Response("<html>sign in</html>", content_type="text/html"))
    assert str(refused(make())) == "the server does not speak the Messages API"
    assert len(server.asked) == attempts


def test_it_waits_as_asked(server: AnthropicServer, make: Make) -> None:
    server.says(failure(429, retry_after_ms="300"), change("0.04", "0.05"))
    start = time.monotonic()
    assert make().propose(brief())
    assert time.monotonic() - start >= 0.3


def test_it_waits_longer_each_time(
    server: AnthropicServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_autoresearch.agents.claude.endpoint.BACKOFF", 0.1)
    server.says(*[failure(529, retry_after_ms="0")] * 3, change("0.04", "0.05"))
    start = time.monotonic()
    assert make().propose(brief())
    assert 0.35 <= time.monotonic() - start < 3


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "86400"}, "86400"),
        ({"retry_after_ms": "7200000", "retry_after": "1"}, "7200"),
        ({"retry_after": "Fri, 31 Dec 2027 23:59:59 GMT"}, r"\d+"),
    ],
    ids=["seconds", "milliseconds", "date"],
)
def test_a_wait_beyond_its_time_is_no_answer_at_once(
    server: AnthropicServer, make: Make, headers: dict[str, str], seconds: str
) -> None:
    server.says(failure(429, "slow down", **headers))
    reason = str(refused(make(timeout=60.0)))
    assert re.fullmatch(rf"429 slow down; it asks to wait {seconds} seconds, and 60 are left", reason)
    assert len(server.asked) == 1


@pytest.mark.parametrize("asked", ["soon", "-5", "nan", ""])
def test_a_wait_that_makes_no_sense_is_its_own(server: AnthropicServer, make: Make, asked: str) -> None:
    server.says(failure(429, retry_after=asked), change("0.04", "0.05"))
    assert make().propose(brief())


def test_an_outage_is_borne_until_its_time_is_over(
    server: AnthropicServer, make: Make, attempts: int
) -> None:
    server.says_as(lambda _: failure(529, "overloaded"))
    start = time.monotonic()
    error = refused(make(timeout=0.5))
    assert time.monotonic() - start < 1.5
    assert str(error).startswith("529 overloaded, ")
    assert len(server.asked) > attempts
    assert not isinstance(error, AgentUnavailable)


def test_what_was_spent_before_an_outage_counts(server: AnthropicServer, make: Make) -> None:
    server.says_as(lambda asked: failure(500) if asked.turn else message(edit("64", "32")))
    assert refused(make(timeout=0.3)).usage.cost == pytest.approx(COST)


@pytest.mark.parametrize(
    ("status", "part", "kind"),
    [
        (400, "400 not now", NoAnswer),
        (413, "413 not now", NoAnswer),
        (422, "422 not now", NoAnswer),
        (401, "401 not now; check the key in ANTHROPIC_API_KEY", AgentUnavailable),
        (402, "402 not now; the account has to be paid for", AgentUnavailable),
        (403, "403 not now; the key may not do this", AgentUnavailable),
        (404, "404 not now; check the model, claude:MODEL or ANTHROPIC_MODEL", AgentUnavailable),
    ],
)
def test_what_does_not_pass_is_asked_once(
    server: AnthropicServer, make: Make, status: int, part: str, kind: type[NoAnswer]
) -> None:
    server.says_as(lambda _: failure(status))
    error = refused(make())
    assert part in str(error)
    assert type(error) is kind
    assert len(server.asked) == 1


def test_a_server_may_say_that_it_does_not_pass(server: AnthropicServer, make: Make) -> None:
    server.says_as(lambda _: failure(429, "the month's limit", x_should_retry="false"))
    assert str(refused(make())) == "429 the month's limit"
    assert len(server.asked) == 1


def test_a_key_is_not_repeated(server: AnthropicServer, make: Make) -> None:
    server.says(failure(401, f"what is {KEY}?\nno"))
    assert str(refused(make())).startswith("401 what is …? no; ")


def replies(answer: Mapping[str, Any]) -> Callable[[socket.socket], None]:
    body = json.dumps(answer).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    return lambda connection: connection.sendall(head + body)


@pytest.mark.parametrize("begun", [(), (replies(message(edit("64", "32"))),)], ids=["at first", "later"])
def test_a_connection_that_is_reset_is_made_again(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    begun: tuple[Callable[[socket.socket], None], ...],
    attempts: int,
) -> None:
    # A server that has answered is known to be there, and is tried for longer.
    resets = [reset] * (attempts + 1 if begun else 2)
    behaviour = iter([*begun, *resets, replies(change("0.04", "0.05"))])

    def behave(connection: socket.socket) -> None:
        next(behaviour)(connection)

    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with raw_server(behave) as (url, seen):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        assert make().propose(brief())
    assert len(seen) == len(begun) + len(resets) + 1


def test_an_address_that_never_answers_is_not_tried_for_ever(
    make: Make, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    with raw_server(reset) as (url, seen):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        error = refused(make())
        assert len(seen) == attempts
    assert str(error).startswith("127.0.0.1 cannot be reached: Connection error.")
    assert "cannot be reached" in str(refused(make()))  # now nobody listens there


@pytest.mark.parametrize("pause", [9.0, 0.05], ids=["silent", "slow"])
def test_an_answer_that_does_not_come_is_not_awaited_for_ever(
    make: Make, monkeypatch: pytest.MonkeyPatch, pause: float
) -> None:
    over = time.monotonic() + 5

    def behave(connection: socket.socket) -> None:
        connection.settimeout(pause)
        if pause < 1:
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n"
            )
        while time.monotonic() < over:
            if pause < 1:
                connection.sendall(b" ")
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue

    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with raw_server(behave) as (url, _):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        start = time.monotonic()
        claude = make(timeout=0.5)
        refused(claude)
        assert time.monotonic() - start < 2
        claude.close()


def test_closing_ends_what_is_waited_for(server: AnthropicServer, make: Make) -> None:
    server.says_as(lambda _: failure(529, retry_after="600"))
    claude = make()
    timer = threading.Timer(0.3, claude.close)
    timer.start()
    start = time.monotonic()
    assert str(refused(claude)) == "pytest ends"
    assert time.monotonic() - start < 3
    timer.join()


# -- how it is set up -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "environment", "model"),
    [
        ("", {}, "claude-sonnet-5-5"),
        ("", {"ANTHROPIC_MODEL": "claude-opus-5"}, "claude-opus-5"),
        ("claude-haiku-5-5", {"ANTHROPIC_MODEL": "claude-opus-5"}, "claude-haiku-5-5"),
    ],
    ids=["default", "environment", "option"],
)
@pytest.mark.usefixtures("server")
def test_the_model_is_the_users(
    make: Make, monkeypatch: pytest.MonkeyPatch, asked: str, environment: Mapping[str, str], model: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert make(asked).name == f"claude:{model}"


def test_a_server_of_ones_own_needs_no_key(
    server: AnthropicServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    server.says(change("0.04", "0.05"))
    assert make("qwen3").propose(brief())
    assert server.asked[0].body["model"] == "qwen3"


def test_a_token_does_as_well_as_a_key(
    server: AnthropicServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", KEY)
    server.says(change("0.04", "0.05"))
    assert make().propose(brief())
    assert server.asked[0].headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("environment", "changed", "reason"),
    [
        ({"API_KEY": ""}, {}, "the agent claude needs a key: set ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL"),
        ({"API_KEY": f"{KEY}\n"}, {}, "the agent claude's key holds a character that is in no key"),
        ({"API_KEY": "", "AUTH_TOKEN": f"{KEY}ü"}, {}, "the agent claude's key holds a character"),
        ({"BASE_URL": "localhost:8000"}, {}, "ANTHROPIC_BASE_URL is no http address: localhost:8000"),
        ({"BASE_URL": "http://localhost:port"}, {}, "the agent claude cannot start: "),
        ({}, {"effort": "much"}, "one of low, medium, high, xhigh, max, none, not 'much'"),
        ({}, {"prices": ("qwen3",)}, "autoresearch_prices: 'qwen3' is not MODEL INPUT"),
        (
            {"MODEL": "qwen3"},
            {"max_cost": 1.0},
            "--autoresearch-max-cost needs the price of qwen3: set autoresearch_prices = qwen3 INPUT OUTPUT",
        ),
    ],
    ids=["none", "line end", "umlaut", "address", "port", "effort", "prices", "price"],
)
def test_what_is_missing_is_told_at_the_start(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    environment: Mapping[str, str],
    changed: Mapping[str, Any],
    reason: str,
) -> None:
    for name, value in {"API_KEY": KEY, **environment}.items():
        monkeypatch.setenv(f"ANTHROPIC_{name}", value)
    with pytest.raises(UsageError) as caught:
        make(**changed)
    assert reason in str(caught.value)
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)
