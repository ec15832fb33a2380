"""Probes: what is drawn, and how often it misses who looks ahead seldom."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it

from pytest_autoresearch.scoring import evaluation
from pytest_autoresearch.scoring.causality import CausalityProbes, Rows
from tests.looking_ahead import Peek, made, peeking, probed
from tests.sealed_models import LENGTH, VOCABULARY, Mixer, prepare

ROWS: int = prepare.ROWS


def drawn(probes: CausalityProbes, rows: int, length: int) -> list[tuple[int, int]]:
    """The row and the position of every probe, of rows that count everywhere."""
    counted = torch.ones(rows, length, dtype=torch.bool)
    nothing = torch.zeros(rows, length)
    return [
        (int(row), int(quantile * length))
        for chosen, quantiles, _ in probes._drawn(Rows(nothing, nothing, counted, nothing))
        for row, quantile in zip(chosen, quantiles, strict=True)
    ]


def test_as_many_probes_as_asked_for() -> None:
    assert len(drawn(CausalityProbes([1], 0.1), ROWS, LENGTH)) == 7
    assert len(drawn(CausalityProbes([1], 0.1), 3, LENGTH)) == 1
    assert len(drawn(CausalityProbes([1], 1.0), ROWS, LENGTH)) == ROWS
    assert len(drawn(CausalityProbes([1], 1.0, 1000), ROWS, LENGTH)) == 1050  # each row as often
    assert len(drawn(CausalityProbes([1], 1.0, 1000), 5000, LENGTH)) == 5000


def test_no_position_is_left_out_by_chance_or_probed_twice() -> None:
    probes = CausalityProbes([1], 1.0, 8 * 256)
    found = drawn(probes, 256, 256)
    assert len(set(found)) == len(found) == 8 * 256
    assert {at for _, at in found} == set(range(256))
    assert sorted(drawn(CausalityProbes([1], 1.0, 10_000), 7, 24)) == [
        (k, t) for k in range(7) for t in range(24)
    ]
    assert drawn(probes, 256, 256) != found


def test_each_row_is_probed_where_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = prepare.VALIDATION.clone()
    tokens[3] = VOCABULARY - 1  # special tokens alone
    tokens[4, :-1] = VOCABULARY - 1
    monkeypatch.setattr(prepare, "VALIDATION", tokens)
    assert len(probed(made(Mixer), 0.99)[1].changes) == ROWS - 1
    assert probed(made(Peek))[1].caught(evaluation.TOLERANCE) > 0


def test_a_probe_replaces_the_future_alone() -> None:
    seen: list[torch.Tensor] = []

    def model(tokens: torch.Tensor) -> torch.Tensor:
        seen.append(tokens[0])
        return torch.zeros(*tokens.shape, VOCABULARY)

    probed(model, 0.999)
    rows = prepare.VALIDATION[:, :-1]
    evaluated, found = torch.stack(seen[:ROWS]), torch.stack(seen[ROWS:])
    assert torch.equal(evaluated, rows)
    alike = (found[:, None] == rows).long()
    whose, kept = alike.cumprod(2).sum(2).max(1)[::-1]
    assert sorted(whose[kept > 2].tolist()) == sorted(set(whose[kept > 2].tolist()))  # every row once
    assert kept.float().mean() == pytest.approx(LENGTH / 2, abs=3)
    # The end of half of them is that of another row, and of the others, nobody's.
    ends = [at for at in range(ROWS) if kept[at] < LENGTH - 6]
    others = [bool((rows[:, -5:] == found[at, -5:]).all(1).any()) for at in ends]
    assert 0 < sum(others) < len(others)
    assert not any(torch.equal(rows[whose[at], -5:], found[at, -5:]) for at in ends)


def test_half_of_the_futures_open_with_a_special_or_a_random_token() -> None:
    probes = CausalityProbes(prepare.Tokenizer.token_bytes, 1.0)
    future = torch.full((4000, 3), 7)
    opened = probes._opened(future, torch.ones(4000, 1, dtype=torch.int64))
    assert torch.equal(opened[:, [0, 2]], future[:, [0, 2]])
    assert (opened[:, 1] >= VOCABULARY - 2).float().mean() == pytest.approx(1 / 4, abs=0.05)
    assert (opened[:, 1] == 7).float().mean() == pytest.approx(1 / 2, abs=0.05)


def test_one_row_alone_is_probed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "VALIDATION", prepare.VALIDATION[:1])
    assert set(probed(made(Mixer))[1].changes) == {0.0}
    assert probed(made(Peek))[1].caught(evaluation.TOLERANCE) > LENGTH / 2


# ---------------------------------------------------------------------------
# How often looking ahead seldom is missed


def chosen(tokens: torch.Tensor, every: int) -> torch.Tensor:
    """One position in *every*, by the last three tokens; the last one is none, for nothing follows it."""
    now, before, first = tokens[:, 2:-1], tokens[:, 1:-2], tokens[:, :-3]
    return F.pad((now * 7919 + before * 104729 + first * 1299709) % every == 0, (2, 1))


def missed(every: int, share: float, least: int, times: int) -> tuple[int, float]:
    """How often of *times* the probes of 256 rows do not catch who looks there; how often they should not."""
    tokens = torch.randint(VOCABULARY - 2, (256, 65), generator=torch.Generator().manual_seed(0))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]

    def model(tokens: torch.Tensor) -> torch.Tensor:
        return torch.where(chosen(tokens, every)[..., None], peeking(tokens), 0.0)

    surprises, count = prepare.surprise(model(inputs), targets), 0
    for _ in range(times):
        probes = CausalityProbes(prepare.Tokenizer.token_bytes, share, least)
        probes(inputs, targets, torch.ones_like(inputs, dtype=torch.bool), surprises)
        probes.run(model, prepare.surprise)
        count += not probes.caught(evaluation.TOLERANCE)
    seen = chosen(inputs, every).float().mean().item() * (1 - 1 / VOCABULARY)  # or the token is the same
    return count, (1 - seen) ** max(least, math.ceil(share * len(inputs)))


@pytest.mark.parametrize(
    ("every", "share", "least", "at_least", "at_most"),
    [
        (32, 0.1, 1, 0.4, 0.5),
        (128, 1.0, evaluation.THOROUGH, 0, 1e-3),
        (256, 1.0, evaluation.THOROUGH, 0.01, 0.06),
        (1024, 1.0, evaluation.THOROUGH, 0.33, 0.4),
    ],
)
def test_it_is_missed_as_often_as_the_table_says(
    every: int, share: float, least: int, at_least: float, at_most: float
) -> None:
    times = 20
    found, expected = missed(every, share, least, times)
    assert at_least <= expected <= at_most
    tail = [math.comb(times, k) * expected**k * (1 - expected) ** (times - k) for k in range(times + 1)]
    assert sum(tail[: found + 1]) > 1e-7
    assert sum(tail[found:]) > 1e-7
