"""What an agent says of its change, and what it has cost."""

from __future__ import annotations

import dataclasses
import json

import pytest

from pytest_autoresearch.agents.command.report import AgentReport
from pytest_autoresearch.errors import BudgetExhausted, NoAnswer
from pytest_autoresearch.records.proposal import Failure, Proposal, Usage
from tests.agents.command.bench import BETTER, Bench
from tests.project import SCRIPT

pytestmark = pytest.mark.timeout(60)  # who waits for what never ends fails

RESULT = {
    "type": "result",
    "is_error": False,
    "result": "LR 0.04 -> 0.05\n\nMore of it.",
    "num_turns": 3,
    "total_cost_usd": 0.0125,
    "usage": {
        "input_tokens": 10,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 30,
        "output_tokens": 40,
        "service_tier": "standard",
    },
}


USED = Usage(3, 10, 20, 30, 40, 0.0125)
DESCRIPTIONS = {
    "its file": (
        'describe("\\n  From\\tthe \\x1b[1mfile\\nand more"); print(json.dumps({"result": "x"}))',
        "From the file",
    ),
    "its answer": ('print(json.dumps({"result": "# In JSON"})); git("commit", "-qam", "x")', "# In JSON"),
    "its commit": (
        'git("commit", "-qam", "x"); git("commit", "-q", "--allow-empty", "-m", "Last\\n\\nx"); print("x")',
        "Last",
    ),
    "its output": ('print("First"); print("Last line\\n \\n"); print("noise", file=sys.stderr)', "Last line"),
    "its change": ("", "+1 -1 lines"),
    "its change, not some JSON": ('print(json.dumps({"type": "turn.completed"}))', "+1 -1 lines"),
    "a link for a file": (
        'os.symlink("/etc/hostname", os.environ["AUTORESEARCH_DESCRIPTION_FILE"])',
        "+1 -1 lines",
    ),
    "a long file": ('describe("x" * 1000)', "x" * 199 + "…"),
    "no repository": ('shutil.rmtree(".git"); print("Out")', "Out"),
}


@pytest.mark.parametrize("source", DESCRIPTIONS)
def test_a_proposal_is_described_by_the_best_there_is(source: str, bench: Bench) -> None:
    code, description = DESCRIPTIONS[source]
    assert bench.proposal(f"edit()\n{code}").description == description


@pytest.mark.parametrize(
    "output",
    [
        json.dumps(RESULT),
        json.dumps(RESULT, indent=2),
        json.dumps([{"type": "system"}, {"type": "assistant", "message": {}}, RESULT]),
        "".join(f"{json.dumps(event)}\n" for event in ({"type": "system"}, {"type": "assistant"}, RESULT)),
        f"a warning\n{json.dumps(RESULT)}\nanother\n",
        f"a warning\n{json.dumps(RESULT, indent=2)}",
        json.dumps([{"result": "first"}, RESULT]),
    ],
    ids=["object", "pretty", "list", "stream", "noise", "pretty noise", "last"],
)
def test_what_claude_prints_is_understood(output: str) -> None:
    report = AgentReport.of(output)
    assert report.text == RESULT["result"]
    assert report.usage == USED


@pytest.mark.parametrize(
    "output",
    [
        "",
        "done",
        "{",
        "[" * 100_000,
        '{"result": 1}',
        '["result"]',
        "[1" + "0" * 5000 + "]",
        '{"type": "result"}',
    ],
    ids=["nothing", "text", "torn", "deep", "number", "list", "long", "none"],
)
def test_other_output_is_no_report(output: str) -> None:
    assert AgentReport.of(output) == AgentReport()


def test_odd_figures_count_for_nothing() -> None:
    odd = {"result": "x", "num_turns": True, "total_cost_usd": float("nan"), "usage": {"input_tokens": -1}}
    assert AgentReport.of(json.dumps(odd)) == AgentReport("x")
    assert AgentReport.of('{"response": "LR up", "stats": {}, "usage": 7}') == AgentReport("LR up")
    assert AgentReport.of('{"result": null, "response": "LR up"}') == AgentReport("LR up")


def test_what_it_cost_is_told_with_and_without_a_proposal(bench: Bench) -> None:
    told = f"print({json.dumps(json.dumps(RESULT))})"
    assert bench.proposal(f"edit(); {told}").usage == USED
    assert bench.refusal(told).usage == USED
    assert bench.refusal(f'edit(); open("x", "w").close(); {told}').usage == USED


def test_it_is_not_asked_when_the_money_is_spent(bench: Bench) -> None:
    agent = bench.agent("edit()")
    left = dataclasses.replace(bench.briefing, cost=0.99, max_cost=1.0)
    assert agent.propose(left).files["train.py"] == BETTER
    with pytest.raises(BudgetExhausted, match=r"proposals have cost 1\.00 of 1\.00 US dollars"):
        agent.propose(dataclasses.replace(left, cost=1.0))


def test_a_fix_starts_from_what_crashed(bench: Bench) -> None:
    agent = bench.agent(
        "assert 'failed: \"no luck\"' in prompt; edit('LR = 0.09', 'LR = 0.05'); describe('x')"
    )
    crashed = Proposal({"train.py": SCRIPT.replace("LR = 0.04", "LR = 0.09")}, "LR up")
    assert agent.fix(bench.briefing, Failure(crashed, "no luck", "a log", 0)).files["train.py"] == BETTER
    same = bench.agent("describe('no idea')")
    with pytest.raises(NoAnswer, match="changed nothing"):
        same.fix(bench.briefing, Failure(crashed, "no luck", "a log", 0))
