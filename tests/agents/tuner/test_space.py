"""The values that a constant can take, and how they are written."""

from __future__ import annotations

import pytest

from pytest_autoresearch.records.trial import Value
from tests.agents.tuner.campaign import brief, campaign, propose


def reached(script: str, name: str, count: int = 60) -> set[Value]:
    return {tried.constants[name] for tried in campaign(lambda _: 3.0, count, script=script).history}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("USE_BIAS = False", {True}),
        ("DEPTH = 3", {1, 2, 4, 5, 6}),
        ("WIDTH = 64", {16, 32, 128, 256}),
        ("WIDTH = 1", {2}),
        ('WINDOW = "L"  # tune: "L" | "SL" | "SSSL"', {"SL", "SSSL"}),
        ("WINDOW = 'L'  # what it sees; tune: 'SL'|'S'", {"SL", "S"}),
        ("WIDTH = 64  # tune: 48 | 96", {48, 96}),
        ("WIDTH = 64  # tune: 62..65", {62, 63, 65}),
        ("WIDTH = 64  # tune: 2**5..2**7, no more fits", {32, 128}),
        ("SEED = 3  # tune: 2..4", {2, 4}),
        ("WIDTH = 64  # tune: fixed, it is what it is", set()),
        ("SEED = 42", set()),
        ("EVAL_TOKENS = 65536", set()),
        ("COMPILE = False", set()),
        ("COEFFICIENTS = ((4.0, 2.0), (3.0, 1.0))", set()),
        ("TIME_BUDGET = 30", set()),
        ('DATA_PATH = "x"', set()),
        ("VOCAB_SIZE = 2048", set()),
        ("H100_BF16_PEAK_FLOPS = 989.5e12", set()),
        ("OFFSET = -3", set()),
        ("Z_LOSS = 0.0", set()),
        ("HUGE = 1e308", set()),
        ("MASK = 2**61 - 1", set()),
        ("WIDTH = 64  # tune: 1.2..1.8", set()),
        ("lower = 3", set()),
        ("", set()),
    ],
)
def test_a_small_space_is_exhausted(line: str, expected: set[Value]) -> None:
    name = line.partition(" ")[0]
    run = campaign(lambda _: 3.0, 10, script=line + "\n")
    assert {tried.constants[name] for tried in run.history} == expected
    assert len(run.history) == len(expected)


@pytest.mark.parametrize(
    ("line", "low", "high"),
    [
        ("MATRIX_LR = 0.04", 0.01, 0.16),
        ("MATRIX_LR = 0.04  # tune: 1e-3..1e-1", 0.001, 0.1),
        ("WARMUP_RATIO = 0.0", 0, 1),
        ("DROPOUT = 0.1  # tune: 0.05..0.2", 0.05, 0.2),
        ("ADAM_BETA2 = 0.95", 0.8, 0.9875),
        ("MOMENTUM = 0.9  # tune: 0.85..0.99", 0.85, 0.99),
        ("SHIFT = -1.5  # tune: -2..2", -2, 2),
        ("WIDTH = 768  # how to tune: carefully", 384, 1536),
    ],
)
def test_ranges(line: str, low: float, high: float) -> None:
    values = reached(line + "\n", line.partition(" ")[0], 40)
    assert len(values) == 40
    assert all(low <= float(value) <= high for value in values)
    assert max(map(float, values)) - min(map(float, values)) > (high - low) / 3


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("WIDTH = 2**10", "WIDTH 2**10 -> 2**9"),
        ("WIDTH = 1024", "WIDTH 1024 -> 512"),
        ("WIDTH = 3 * 5", "WIDTH 3 * 5 -> 8"),
        ("WIDTH = per_device(\n    cuda=4,\n    cpu=(2\n    **10),\n)", "WIDTH 2 **10 -> 2**9"),
        ('W = "a\'"  # tune: "a\'" | "b\'"', 'W "a\'" -> "b\'"'),
        ('W = \'a\'  # tune: "a" | "b"', "W 'a' -> 'b'"),
    ],
)
def test_the_style_of_the_script_is_kept(line: str, first: str) -> None:
    proposal = propose(brief(line + "\n"))
    assert proposal is not None
    assert proposal.description == first


def test_floats_have_three_significant_digits() -> None:
    for value in reached("MATRIX_LR = 0.04\n", "MATRIX_LR", 20):
        assert value == float(f"{value:.3g}")
    for value in reached("BETA = 0.999\n", "BETA", 20):
        assert 1 - float(value) == pytest.approx(float(f"{1 - float(value):.3g}"), rel=1e-6)
