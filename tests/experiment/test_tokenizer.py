"""The tokenizer: every text comes back, and every byte of it is counted once."""

import re
from types import ModuleType

from hypothesis import given
from hypothesis import strategies as st

from tests.experiment_files import cache, prepare

__all__ = ["cache", "prepare"]  # fixtures


@given(st.text())
def test_every_text_comes_back(prepare: ModuleType, text: str) -> None:
    tokenizer = prepare.Tokenizer.load()
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text())
def test_token_bytes_add_up_to_those_of_the_text(prepare: ModuleType, text: str) -> None:
    tokenizer = prepare.Tokenizer.load()
    assert sum(tokenizer.token_bytes[token] for token in tokenizer.encode(text)) == len(text.encode())


def test_the_vocabulary_is_full(prepare: ModuleType) -> None:
    tokenizer = prepare.Tokenizer.load()
    assert tokenizer.vocab_size == len(tokenizer.token_bytes) == prepare.VOCAB_SIZE


def test_special_tokens_stand_for_no_text(prepare: ModuleType) -> None:
    tokenizer = prepare.Tokenizer.load()
    specials = range(tokenizer.vocab_size - 4, tokenizer.vocab_size)
    assert tokenizer.bos == specials[0]
    assert [token for token, size in enumerate(tokenizer.token_bytes) if size == 0] == list(specials)
    assert not set(tokenizer.encode(prepare.BOS)) & set(specials)


def test_a_batch_is_encoded_like_its_texts(prepare: ModuleType) -> None:
    tokenizer = prepare.Tokenizer.load()
    texts = ["", "We, the people", "naïve 1790, 2026\n\n", "שלום"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


def test_numbers_are_split_in_pairs(prepare: ModuleType) -> None:
    tokenizer = prepare.Tokenizer.load()
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode("1790 2026")]
    assert all(len(re.findall(r"\d", piece)) <= 2 for piece in pieces)
