"""Overwrites the training data and the tokenizer, by name and through its descriptors."""

import fcntl
import mmap
import os

from prepare import DATA, VAL_TOKENS, attempt, hand_in_shared_model, opened

for name in ("train.tokens", "tokenizer.json", "shared.sealed"):
    path = DATA / name
    attempt(f"write {name} by its name", lambda: path.open("r+b").write(b"x"))
    attempt(f"remove {name}", lambda: os.remove(path) or "removed")
    file = opened(name)
    held = file.fileno()
    again = f"/proc/self/fd/{held}"
    attempt(f"write {name}", lambda: os.pwrite(held, b"x", 0))
    attempt(f"write {name} opened again", lambda: os.pwrite(os.open(again, os.O_RDWR), b"x", 0))
    attempt(f"truncate {name}", lambda: os.truncate(again, 0) or "truncated")
    attempt(f"map {name} to write", lambda: mmap.mmap(os.open(again, os.O_RDWR), 4, mmap.MAP_SHARED))
    attempt(f"unseal {name}", lambda: fcntl.fcntl(held, fcntl.F_ADD_SEALS, 0) or "unsealed")
    attempt(f"move {name} away", lambda: os.rename(path, f"{path}.moved") or "moved")
attempt("write validation", lambda: VAL_TOKENS.open("r+b").write(b"x"))
attempt("move validation", lambda: os.rename(VAL_TOKENS, "val.tokens") or "moved")

hand_in_shared_model()
