"""The metric: bits per byte, as an independent computation finds it and whatever the batch size."""

import math
from itertools import islice
from types import ModuleType

import pytest
import torch
from torch import nn

from tests.experiment_files import cache, prepare

__all__ = ["cache", "prepare"]  # fixtures


class Bigram(nn.Module):
    """Logits that depend on the last token alone, and are not normalised."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, vocab_size)
        self.dropout = nn.Dropout(0.5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.dropout(self.table(tokens))
        return logits


@pytest.fixture
def few_rows(prepare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> int:
    """Rows that are quick to score and no multiple of most batch sizes."""
    rows = 13
    monkeypatch.setattr(prepare, "EVAL_TOKENS", rows * prepare.MAX_SEQ_LEN)
    return rows


def scored_targets(prepare: ModuleType, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokenizer = prepare.Tokenizer.load()
    inputs, targets, _ = next(prepare.make_dataloader(tokenizer, rows, prepare.MAX_SEQ_LEN, "val"))
    return inputs, targets


@pytest.mark.parametrize("batch_size", [1, 4, 13, 500])
def test_it_is_what_an_independent_computation_finds(
    prepare: ModuleType, few_rows: int, batch_size: int
) -> None:
    tokenizer = prepare.Tokenizer.load()
    torch.manual_seed(0)
    model = Bigram(tokenizer.vocab_size)
    weights = model.table.weight.detach().double()
    log_probabilities = weights - weights.exp().sum(1, keepdim=True).log()
    bits, size = 0.0, 0
    inputs, targets = scored_targets(prepare, few_rows)
    for before, target in zip(inputs.flatten().tolist(), targets.flatten().tolist(), strict=True):
        if target != tokenizer.bos:
            bits -= log_probabilities[before, target].item() / math.log(2)
            size += len(tokenizer.encoding.decode_single_token_bytes(target))
    assert prepare.evaluate_bpb(model, tokenizer, batch_size) == pytest.approx(bits / size, rel=1e-6)


def test_an_undecided_model_scores_the_size_of_the_vocabulary(prepare: ModuleType) -> None:
    tokenizer = prepare.Tokenizer.load()

    def undecided(tokens: torch.Tensor) -> torch.Tensor:
        return torch.full((*tokens.shape, tokenizer.vocab_size), 3.0)

    rows = prepare.EVAL_TOKENS // prepare.MAX_SEQ_LEN
    _, targets = scored_targets(prepare, rows)
    text = targets[targets != tokenizer.bos].tolist()
    size = len(tokenizer.encoding.decode_bytes(text))
    expected = math.log2(tokenizer.vocab_size) * len(text) / size
    assert prepare.evaluate_bpb(undecided, tokenizer, 64) == pytest.approx(expected, rel=1e-6)


def test_what_it_says_of_special_targets_does_not_count(prepare: ModuleType, few_rows: int) -> None:
    tokenizer = prepare.Tokenizer.load()
    scores = []
    for height in (-1e4, -50.0):

        def model(tokens: torch.Tensor, height: float = height) -> torch.Tensor:
            logits = torch.zeros(*tokens.shape, tokenizer.vocab_size)
            logits[..., tokenizer.bos] = height
            return logits

        scores.append(prepare.evaluate_bpb(model, tokenizer, few_rows))
    assert scores[0] == pytest.approx(scores[1])


@pytest.mark.usefixtures("few_rows")
def test_modes_are_put_back_and_no_gradient_is_left(prepare: ModuleType) -> None:
    tokenizer = prepare.Tokenizer.load()
    model = Bigram(tokenizer.vocab_size).train()
    model.table.eval()  # frozen by its owner, while the rest trains
    first = prepare.evaluate_bpb(model, tokenizer, 8)
    assert first == prepare.evaluate_bpb(model, tokenizer, 8)  # dropout was off
    assert [module.training for module in model.modules()] == [True, False, True]
    assert model.table.weight.grad is None


@pytest.mark.usefixtures("few_rows")
def test_modes_are_put_back_after_an_error(prepare: ModuleType) -> None:
    class Broken(nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            raise ZeroDivisionError

    model = Broken()
    with pytest.raises(ZeroDivisionError):
        prepare.evaluate_bpb(model, prepare.Tokenizer.load(), 8)
    assert model.training


@pytest.mark.usefixtures("few_rows")
def test_a_model_without_sense_scores_nan(prepare: ModuleType) -> None:
    tokenizer = prepare.Tokenizer.load()

    def model(tokens: torch.Tensor) -> torch.Tensor:
        return torch.full((*tokens.shape, tokenizer.vocab_size), math.nan)

    assert math.isnan(prepare.evaluate_bpb(model, tokenizer, 8))


def test_the_validation_split_is_scored_once_over(prepare: ModuleType) -> None:
    loader = prepare.make_dataloader(prepare.Tokenizer.load(), 16, prepare.MAX_SEQ_LEN, "val")
    batches = prepare.EVAL_TOKENS // prepare.MAX_SEQ_LEN // 16
    assert {epoch for _, _, epoch in islice(loader, batches)} == {1}
