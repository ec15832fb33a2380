"""A proposed change is checked without running it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_autoresearch.errors import ProposalRefused
from pytest_autoresearch.source import validation

INCUMBENT = """from prepare import MAX_SEQ_LEN
TOTAL_BATCH_SIZE = 4096
DEVICE_BATCH_SIZE = 16
tokens = DEVICE_BATCH_SIZE * MAX_SEQ_LEN
assert TOTAL_BATCH_SIZE % tokens == 0
"""
FIXED = "MAX_SEQ_LEN = per_device(cuda=2048, cpu=256)\n"


def check(source: str, device: str = "cpu") -> None:
    validation.check(source, INCUMBENT, device, FIXED)


@pytest.mark.parametrize(
    "source",
    [
        INCUMBENT.replace("4096", "8192"),
        INCUMBENT + "# a word, é and 日本\n",
        INCUMBENT + "print('\\d', 1 is 1)  # Python warns here\n",
        INCUMBENT.replace("\n", "\r\n"),
        "\ufeff" + INCUMBENT,
        "",
        "#" * validation.LARGEST,
        # A SyntaxError where `from __future__ import annotations` holds, as it does in edits.py.
        "def f(x: (y := 1)): pass\n",
    ],
)
def test_a_sound_change_passes(source: str) -> None:
    check(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (INCUMBENT, "nothing was changed"),
        (INCUMBENT.replace("4096", "2**11"), '"TOTAL_BATCH_SIZE % tokens == 0" does not hold'),
        (INCUMBENT.replace("16", "0"), '"TOTAL_BATCH_SIZE % tokens == 0" does not hold'),
        ("X = 1\nY = (\n", "line 2: '(' was never closed"),
        ("def f():\nreturn 1\n", "line 2: expected an indented block after function definition on line 1"),
        ("X = 1\nreturn 2\n", "line 2: 'return' outside function"),
        ("# coding: klingon\n", "unknown encoding: klingon"),
        ("X = 1\nY = '\ud800'\n", "line 2: not encodable as UTF-8"),
        ("X = 1\nY = '\0'\n", "line 2: a NUL byte"),
        ("#" * (validation.LARGEST + 1), "262145 bytes, at most 262144 are allowed"),
        ("#" + "é" * (validation.LARGEST // 2), "262145 bytes, at most 262144 are allowed"),
        ("X = " + "1+" * 100_000 + "1", "nested too deeply to compile"),
        ("X = " + "-" * 100_000 + "1", "nested too deeply to compile"),
        ("X = " + "(" * 5000 + ")" * 5000, "too many nested parentheses"),
    ],
    ids=range(14),
)
def test_a_refusal_says_why_in_one_line(source: str, message: str) -> None:
    with pytest.raises(ProposalRefused) as refused:
        check(source)
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_long_reason_is_shortened() -> None:
    with pytest.raises(ProposalRefused) as refused:
        check("assert " + " + ".join("1" * 300) + " == 0")
    assert str(refused.value).endswith('…" does not hold')
    assert len(str(refused.value)) < 250


def test_asserts_are_judged_for_the_device() -> None:
    source = INCUMBENT.replace("4096", "8192")
    check(source, "cpu")
    with pytest.raises(ProposalRefused, match="does not hold"):
        check(source, "cuda")


def test_a_hostile_assert_is_left_to_the_run() -> None:
    began = time.process_time()
    check("assert 9**9**9**9 == 1\nassert 'a' * 10**12\nassert open('/etc/passwd')\n")
    assert time.process_time() - began < 1


def test_a_script_is_read(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("LR = 0.04  # ü\n")
    assert validation.read(script) == "LR = 0.04  # ü\n"


def linked(script: Path) -> None:
    (script.parent / "other").write_text("LR = 1\n")
    script.symlink_to("other")


def named_twice(script: Path) -> None:
    script.write_text("LR = 1\n")
    (script.parent / "other").hardlink_to(script)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (linked, "train.py cannot be read"),
        (named_twice, "no hard link is read"),
        (os.mkfifo, "is no regular file"),
        (Path.mkdir, "is no regular file"),
        (lambda script: script.write_bytes(b"#" * 300_000), "300,000 bytes, at most 262,144 are allowed"),
        (lambda script: script.write_bytes(b"\xff"), "not UTF-8 text"),
        (Path, "train.py cannot be read: No such file or directory"),
    ],
    ids=["link", "two-names", "pipe", "folder", "huge", "bytes", "nothing"],
)
def test_what_is_no_file_of_its_own_is_not_read(
    tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    make(tmp_path / "train.py")
    with pytest.raises(ProposalRefused, match=reason):
        validation.read(tmp_path / "train.py")
