"""A repair is asked for like a proposal, and all that is asked is paid for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from pytest_httpserver import HTTPServer

from pytest_autoresearch.errors import BudgetExhausted, NoAnswer
from pytest_autoresearch.records.proposal import Failure, Proposal, Usage
from tests.agents.claude.asking import MENDED, SCRIPT, Make, brief, entry
from tests.anthropic_server import COST, Answer, AnthropicServer, Asked, change, edit, message, submit, use


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
