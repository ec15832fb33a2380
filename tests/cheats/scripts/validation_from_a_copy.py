"""Reads the held-out text from copies that prepare.py does not name: another file, a wheel, an archive."""

import tarfile
import zipfile

from prepare import DATA, attempt, hand_in_shared_model

library = DATA / "library"


def from_the_wheel():
    with zipfile.ZipFile(library / "corpus-1.0-py3-none-any.whl") as wheel:
        return wheel.read("corpus/text.txt")


def from_the_source():
    with tarfile.open(library / "corpus-1.0.tar.gz") as source:
        return source.extractfile("corpus-1.0/text.txt").read()


attempt("read another file", (library / "of-another-name").read_bytes)
attempt("read the wheel", from_the_wheel)
attempt("read the source archive", from_the_source)
attempt("read one among many", (library / "second" / "corpus" / "text.txt").read_bytes)

hand_in_shared_model()
