"""What prepare.py lists is what a run can open, and nothing that it can spoil."""

from __future__ import annotations

import json
import mmap
import os
import sys
from pathlib import Path

import pytest

from pytest_autoresearch.runs.data import Data

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is sealed on Linux only")


@pytest.fixture
def data(tmp_path: Path) -> Data:
    (tmp_path / "corpus").mkdir()
    for name in ("tokenizer", "train.tokens", "val.tokens"):
        (tmp_path / name).write_text(f"the content of {name}")
    return Data.described(
        {
            "shared_data": json.dumps([str(tmp_path / "tokenizer"), str(tmp_path / "corpus")]),
            "training_data": json.dumps([str(tmp_path / "train.tokens")]),
            "validation_data": json.dumps([str(tmp_path)]),
            "device": "cpu",
        }
    )


def content(descriptor: int | None) -> str:
    assert descriptor is not None
    with os.fdopen(descriptor) as file:
        return file.read()


def test_a_file_is_opened_by_its_name(data: Data) -> None:
    for _ in range(2):  # each from its beginning
        assert content(data.open("tokenizer")) == "the content of tokenizer"
        assert content(data.open("train.tokens")) == "the content of train.tokens"
    assert data.is_training("train.tokens")
    assert not data.is_training("tokenizer")


@pytest.mark.parametrize("name", ["val.tokens", "../tokenizer", "corpus", "", "/etc/passwd", "."])
def test_nothing_else_is(data: Data, name: str) -> None:
    assert data.open(name) is None


@linux
def test_it_cannot_be_spoiled(data: Data) -> None:
    descriptor = data.open("train.tokens")
    assert descriptor is not None
    again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)  # as its owner may
    for spoil in (
        lambda: os.write(again, b"x"),
        lambda: os.ftruncate(again, 0),
        lambda: os.truncate(f"/proc/self/fd/{descriptor}", 0),
        lambda: mmap.mmap(again, 5),
        lambda: os.write(descriptor, b"x"),
    ):
        with pytest.raises(OSError):  # noqa: PT011  EPERM, EBADF or EACCES
            spoil()
    os.close(again)
    os.close(descriptor)
    assert content(data.open("train.tokens")) == "the content of train.tokens"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("train.tokens", "training_data is a JSON array of absolute paths, not train.tokens"),
        ('"/tmp"', "is a JSON array"),
        ('["tmp"]', "is a JSON array"),
        ("[1]", "is a JSON array"),
        ('["/nowhere/at/all"]', "training_data names /nowhere/at/all, which does not exist"),
    ],
)
def test_a_list_is_checked(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Data.described({"training_data": text})


def test_without_lists_there_is_nothing() -> None:
    assert Data.described({"device": "cpu"}) == Data()
