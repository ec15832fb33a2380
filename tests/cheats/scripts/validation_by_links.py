"""Reads the validation data through links of its own, soft and hard."""

import os
from pathlib import Path

from prepare import VAL_TOKENS, attempt, hand_in_shared_model


def soft():
    os.symlink(VAL_TOKENS, "soft")
    return Path("soft").read_bytes()


def folder():
    os.symlink(VAL_TOKENS.parent, "folder")
    return Path("folder", VAL_TOKENS.name).read_bytes()


def hard():
    os.link(VAL_TOKENS, "hard")
    return Path("hard").read_bytes()


attempt("read a symbolic link", soft)
attempt("read through a linked folder", folder)
attempt("read a hard link", hard)

hand_in_shared_model()
