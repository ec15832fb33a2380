"""Reads the validation data where it lies."""

import os

from prepare import DATA, VAL_TOKENS, attempt, hand_in_shared_model, system_call


def watch(folder):
    everything = 0xFFF
    return system_call("inotify_add_watch", system_call("inotify_init1", 0), os.fsencode(folder), everything)


attempt("read the file", VAL_TOKENS.read_bytes)
attempt("list its folder", lambda: os.listdir(VAL_TOKENS.parent))
attempt("read it by way of its neighbour", (DATA / "library" / ".." / "held-out" / "val.tokens").read_bytes)
attempt("watch its folder", lambda: watch(VAL_TOKENS.parent))

hand_in_shared_model()
