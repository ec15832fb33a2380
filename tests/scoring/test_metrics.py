"""Bits per byte as a library function: what it counts, and what it asks of its caller."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it

from pytest_autoresearch.scoring.metrics import bits_per_byte, surprise

VOCABULARY, LENGTH = 7, 5
TOKEN_BYTES = torch.tensor([0, 1, 2, 3, 1, 2, 3])
ROWS = torch.randint(VOCABULARY, (11, LENGTH + 1), generator=torch.Generator().manual_seed(0))
LOGITS = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(1))


def model(tokens: torch.Tensor) -> torch.Tensor:
    return LOGITS[tokens]


def batches(size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """Batches without end, each with the number of the epoch."""
    for at in itertools.count(step=size):
        rows = ROWS[torch.arange(at, at + size) % len(ROWS)]
        yield rows[:, :-1], rows[:, 1:], 1 + at // len(ROWS)


@pytest.mark.parametrize("size", [1, 4, 11, 30])
def test_it_is_the_surprise_by_the_bytes_whatever_the_batch_size(size: int) -> None:
    nats, count = 0.0, 0
    for row in ROWS.tolist():
        for before, target in itertools.pairwise(row):
            if target != 0:  # a special token
                nats -= F.log_softmax(LOGITS[before].double(), 0)[target].item()
                count += int(TOKEN_BYTES[target])
    found = bits_per_byte(model, batches(size), TOKEN_BYTES, len(ROWS))
    assert found == pytest.approx(nats / math.log(2) / count, rel=1e-6)


def test_no_row_is_asked_for_beyond_the_last() -> None:
    source = batches(4)
    seen: list[int] = []

    def counted(tokens: torch.Tensor) -> torch.Tensor:
        seen.append(len(tokens))
        return model(tokens)

    bits_per_byte(counted, source, TOKEN_BYTES, 10)
    assert seen == [4, 4, 2]
    assert torch.equal(next(source)[0], ROWS[torch.arange(12, 16) % len(ROWS), :-1])


def test_each_batch_is_watched() -> None:
    seen: list[tuple[torch.Tensor, ...]] = []
    bits_per_byte(model, batches(4), TOKEN_BYTES, 11, lambda *batch: seen.append(batch))
    inputs, targets, counted, surprises = (torch.cat(part) for part in zip(*seen, strict=True))
    assert torch.equal(inputs, ROWS[:, :-1])
    assert torch.equal(targets, ROWS[:, 1:])
    assert torch.equal(counted, targets != 0)
    assert torch.equal(surprises, surprise(model(inputs), targets))
