"""Trains before the clock starts: looks for the training data without asking for it, in warm-up."""

import os
from pathlib import Path

from prepare import DATA, attempt, hand_in_shared_model, opened

attempt("read the training data by name", (DATA / "train.tokens").read_bytes)
attempt("read it by another name", (DATA / "library" / ".." / "train.tokens").read_bytes)


def memory_of_others():
    for number in (number for number in os.listdir("/proc") if number.isdigit()):
        if int(number) == os.getpid():
            continue
        for held in Path(f"/proc/{number}/fd").glob("*"):
            if "train.tokens" in os.readlink(held):
                return held.read_bytes()


def beside_the_tokenizer():
    with opened("tokenizer.json"):
        held = range(3, 64)
        links = [
            os.readlink(f"/proc/self/fd/{number}")
            for number in held
            if os.path.exists(f"/proc/self/fd/{number}")
        ]
    return [target for target in links if "train.tokens" in target]


attempt("read it where the harness holds it", memory_of_others)
attempt("find it beside the tokenizer", beside_the_tokenizer)

hand_in_shared_model()
