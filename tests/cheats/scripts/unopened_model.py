"""Hands in a name instead of a file: a descriptor of the validation data that may not even be read."""

import os

from prepare import VAL_TOKENS, attempt, say, start_clock

start_clock()
say({"trained": "0" * 64})
held = -1


def name_it():
    global held
    held = os.open(VAL_TOKENS, os.O_PATH)
    return os.pread(held, 9, 0)


attempt("read validation by its name alone", name_it)
say({"model": True}, held if held >= 0 else os.open("train.py", os.O_PATH))
