"""Rows that are computed one by one, in whatever is quickest; not run on a GPU, where they are recorded."""

from __future__ import annotations

import pytest
import torch

from pytest_autoresearch.scoring.interpreter import Interpreter
from pytest_autoresearch.scoring.recording import Recorded, one_by_one
from tests.looking_ahead import made
from tests.sealed_models import LENGTH, VOCABULARY, Attention, sealed


def test_vmap_would_let_a_row_read_the_next() -> None:
    """Why rows are computed alone; once this fails, torch has closed the hole."""

    def peeking(row: torch.Tensor) -> torch.Tensor:
        beyond = torch.where(row[0] == 0, 5, 1)
        return torch.ops.aten.embedding.default(row[:, None].float(), beyond)

    rows = torch.arange(8).view(2, 4)
    with pytest.raises(IndexError):
        peeking(rows[0])
    assert torch.func.vmap(peeking)(rows)[0].item() == rows[1, 1]


def test_only_cuda_records() -> None:
    model = Interpreter(*sealed(made(Attention)), torch.device("cpu"))
    assert one_by_one(model, torch.device("cpu")) is model
    assert isinstance(one_by_one(model, torch.device("cuda")), Recorded)


def test_what_cannot_be_recorded_is_computed_all_the_same() -> None:
    """Without a GPU nothing can."""
    model = Interpreter(*sealed(made(Attention)), torch.device("cpu"))
    recorded = Recorded(model)
    for row in torch.randint(VOCABULARY, (3, 1, LENGTH)):
        assert torch.equal(recorded(row), model(row))
