"""Reads the validation data through the roots and working directories of other processes."""

import os
from pathlib import Path

from prepare import VAL_TOKENS, attempt, hand_in_shared_model

others = [number for number in os.listdir("/proc") if number.isdigit() and int(number) != os.getpid()]


def through(part):
    for number in others:
        try:
            return Path(f"/proc/{number}/{part}{VAL_TOKENS}").read_bytes()
        except OSError:
            continue


def open_elsewhere():
    for number in others:
        for held in Path(f"/proc/{number}/fd").glob("*"):
            if "tokens" in os.readlink(held):
                return held.read_bytes()


attempt("read through the root of its parent", Path(f"/proc/{os.getppid()}/root{VAL_TOKENS}").read_bytes)
attempt("read through any root", lambda: through("root"))
attempt("read what others hold open", open_elsewhere)

hand_in_shared_model()
