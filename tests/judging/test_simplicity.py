"""What is as good with less code is kept, and more code has to pay for itself."""

from __future__ import annotations

import random

import pytest

from pytest_autoresearch.judging.judge import JudgePolicy, JudgeState
from pytest_autoresearch.judging.noise import Estimate, Noise
from tests.project import NOISY, Project

UNUSED = 'def unused(x, y):\n    return [x * y + 1, x / y, (x - y) ** 2]\n\n\nprint("---")'
LONGER = ('print("---")', UNUSED)
SHORTER = ('print("step 00001 (50.0%) | loss: 1.0 | remaining: 1s", end="\\r", flush=True)\n', "")
# Worth 20 millionths: more than the noise, which is none, and less than 40 tokens.
SLIGHTLY_BETTER = ('print("---")', UNUSED + "\nLR += 0.00002")
FREE = "autoresearch_token_price = 0\n"


def priced(project: Project, line: str) -> Project:
    return project.write(pytest_ini=f"[pytest]\n{line}")


def test_less_code_is_kept_and_more_has_to_pay(project: Project) -> None:
    project.proposes(LONGER, SLIGHTLY_BETTER, SHORTER, ("LR = 0.04", UNUSED + "\nLR = 0.05"))
    session = project.research().exits(0).decides("discarded", "discarded", "kept", "kept")
    session.shows("DISCARDED (0.9800, +0.0000 ± 0.0000 after 1 run, ", " tokens longer)")
    session.shows("DISCARDED (0.9800, -2.0e-05 ± 0.0000 after 1 run, ", " tokens longer)")
    session.shows("KEPT (0.9800, +0.0000 ± 0.0000 after 1 run, ", " tokens shorter)")
    session.shows("KEPT (0.9700, -0.0100 ± 0.0000 after 1 run, ", " tokens longer)")


def test_where_tokens_are_free_only_the_score_counts(project: Project) -> None:
    project.proposes(LONGER, SHORTER, SLIGHTLY_BETTER)
    priced(project, FREE).commit().research().exits(0).decides("discarded", "discarded", "kept")


def helped(by: float) -> tuple[str, str]:
    """Return a script, and some code in it without which its score is worse."""
    code = f'for name in ("this", "that", "these", "those"):\n    print(name, LR + 1, LR * 2)\nLR -= {by}\n'
    return NOISY.replace("\nseed =", f"\n{code}\nseed ="), code


@pytest.mark.parametrize(("line", "verdict"), [("", "kept"), (FREE, "discarded")], ids=["priced", "free"])
def test_less_code_may_be_worse_by_less_than_the_noise(
    pytester: pytest.Pytester, line: str, verdict: str
) -> None:
    script, code = helped(0.001)
    project = priced(Project(pytester, script=script), line)
    project.proposes((code, "")).research().exits(0).decides(verdict)
    assert "tokens shorter" in project.ledger()[0]["reason"]


def test_less_code_may_not_be_worse_by_more(pytester: pytest.Pytester) -> None:
    script, code = helped(0.05)
    Project(pytester, script=script).proposes((code, "")).research().exits(0).decides("discarded")


def test_deletions_that_are_each_within_the_noise_do_not_add_up() -> None:
    chance, truth = random.Random(5), 1.6
    noise = Noise(0.006, 10)
    state = JudgeState.initial(JudgePolicy(code_size_price=5e-6), Estimate(truth, 0.003), noise)
    start, kept = truth, 0
    for _ in range(60):  # each of them truly worse by 0.3 of the noise
        scores: list[float] = []
        again: list[float] = []
        while (found := state.judge(scores, again, -20)).action not in ("keep", "discard"):
            which, score = (scores, truth + 0.0018) if found.action == "measure candidate" else (again, truth)
            which.append(chance.gauss(score, 0.006))
        state = state.after(scores, again, kept=found.action == "keep", code_size_change=-20)
        if found.action == "keep":
            truth, kept = truth + 0.0018, kept + 1
    assert 1 <= kept < 20
    assert truth - start < 3 * 0.006
    assert state.simplicity_budget_used >= 0.006
