"""Reads the validation data where it lies."""

import os

from prepare import DATA, VAL_TOKENS, attempt, hand_in_shared_model

attempt("read the file", VAL_TOKENS.read_bytes)
attempt("list its folder", lambda: os.listdir(VAL_TOKENS.parent))
attempt("read it by way of its neighbour", (DATA / "library" / ".." / "held-out" / "val.tokens").read_bytes)

hand_in_shared_model()
