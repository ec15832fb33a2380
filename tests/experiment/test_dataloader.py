"""The dataloader: full rows that begin with a document, packed like upstream's scan over the whole buffer."""

from collections.abc import Iterator
from itertools import islice, pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.experiment_files import cache, prepare

__all__ = ["cache", "prepare"]  # fixtures


def scanned_rows(documents: list[list[int]], width: int, buffer_docs: int) -> Iterator[list[int]]:
    """The same packing, said as simply as it can be."""
    waiting: list[list[int]] = []
    arriving = (document for _ in range(10**6) for document in documents)
    while True:
        row: list[int] = []
        while len(row) < width:
            waiting += islice(arriving, buffer_docs - len(waiting))
            space = width - len(row)
            fitting = [document for document in waiting if len(document) <= space]
            longest, shortest = max(map(len, fitting), default=0), min(map(len, waiting))
            chosen = [len(document) for document in waiting].index(longest if fitting else shortest)
            row += waiting.pop(chosen)[:space]
        yield row


def numbered(lengths: list[int]) -> tuple[list[list[int]], Any, Any]:
    """Documents of these lengths in which no two tokens are alike, as lists and as the files hold them."""
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    tokens = np.arange(offsets[-1], dtype=np.uint16)
    return [tokens[a:b].tolist() for a, b in pairwise(offsets)], tokens, offsets


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    width=st.integers(2, 30),
    buffer_docs=st.integers(1, 25),
)
def test_packing_is_that_of_a_linear_scan(
    prepare: ModuleType, lengths: list[int], width: int, buffer_docs: int
) -> None:
    documents, tokens, offsets = numbered(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "BUFFER_DOCS", buffer_docs)
        rows = [row.tolist() for row, _ in islice(prepare.packed_rows(tokens, offsets, width), 50)]
    assert rows == list(islice(scanned_rows(documents, width, buffer_docs), 50))


def test_packing_of_the_corpus_is_that_of_a_linear_scan(prepare: ModuleType) -> None:
    tokens, offsets = prepare.load_split("val")
    documents = [tokens[a:b].tolist() for a, b in pairwise(offsets)]
    rows = [row.tolist() for row, _ in islice(prepare.packed_rows(tokens, offsets, 257), 100)]
    assert rows == list(islice(scanned_rows(documents, 257, prepare.BUFFER_DOCS), 100))


def test_batches_are_full_and_begin_with_a_document(prepare: ModuleType) -> None:
    tokenizer = prepare.Tokenizer.load()
    loader = prepare.make_dataloader(tokenizer, 8, 64, "train")
    for inputs, targets, epoch in islice(loader, 50):
        assert inputs.shape == targets.shape == (8, 64)
        assert inputs.dtype == targets.dtype == torch.int64
        assert (inputs[:, 0] == tokenizer.bos).all()
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        assert int(targets.max()) < tokenizer.vocab_size
        assert epoch == 1


def test_the_batch_size_does_not_change_the_rows(prepare: ModuleType) -> None:
    tokenizer = prepare.Tokenizer.load()
    few, many = (prepare.make_dataloader(tokenizer, size, 64, "val") for size in (3, 12))
    inputs = torch.cat([inputs for inputs, _, _ in islice(few, 4)])
    assert torch.equal(inputs, next(many)[0])


def test_a_batch_stays_as_it_was_handed_over(prepare: ModuleType) -> None:
    loader = prepare.make_dataloader(prepare.Tokenizer.load(), 4, 64, "train")
    inputs, _, _ = next(loader)
    before = inputs.clone()
    next(loader)
    assert torch.equal(inputs, before)


def test_epochs_are_counted_and_each_holds_every_document(prepare: ModuleType) -> None:
    _, tokens, offsets = numbered([5] * 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "BUFFER_DOCS", 7)
        rows = list(islice(prepare.packed_rows(tokens, offsets, 10), 60))
    assert [epoch for _, epoch in rows] == sorted(epoch for _, epoch in rows)
    assert {epoch for _, epoch in rows} == {1, 2, 3, 4}
    assert np.concatenate([row for row, _ in rows[:20]]).tolist() == tokens.tolist()


def test_no_other_split_exists(prepare: ModuleType) -> None:
    with pytest.raises(AssertionError):
        next(prepare.make_dataloader(prepare.Tokenizer.load(), 1, 64, "test"))
