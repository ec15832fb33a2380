"""Git's tree objects: read, changed and named without a git process. Pure.

A tree is a sequence of entries: the mode in octal digits, a space, the name, a NUL byte and the object's id
as 20 or 32 raw bytes (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects). The *algorithm* that a
repository names its objects by is ``sha1`` or ``sha256``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

from pytest_autoresearch.errors import RepositoryError

FILE, FILES, FOLDER = "100644", {"100644", "100755", "100664"}, "40000"


class Entry(NamedTuple):
    """What a tree holds under one name."""

    mode: str
    """Of another tree :data:`FOLDER`, of a regular file 100644 or 100755; others are links and submodules."""
    object: str
    """Its id in hexadecimal digits."""


Tree: TypeAlias = dict[str, Entry]


def object_id(kind: str, data: bytes, algorithm: str) -> str:
    """Return the id of an object, whether it is stored or not."""
    return hashlib.new(algorithm, b"%b %d\0%b" % (kind.encode(), len(data), data)).hexdigest()


def parse(data: bytes, algorithm: str) -> Tree:
    """Return the entries of a tree."""
    width, tree, at = hashlib.new(algorithm).digest_size, Tree(), 0
    while at < len(data):
        end = data.index(b"\0", at)
        mode, _, name = data[at:end].partition(b" ")
        at = end + 1 + width
        tree[os.fsdecode(name)] = Entry(mode.decode(), data[end + 1 : at].hex())
    return tree


def serialize(tree: Tree) -> bytes:
    """Return the data of a tree, in git's order: a folder is sorted as if its name ended with a slash."""
    rows = sorted((os.fsencode(name) + b"/" * (entry.mode == FOLDER), entry) for name, entry in tree.items())
    return b"".join(
        b"%b %b\0%b" % (entry.mode.encode(), name.rstrip(b"/"), bytes.fromhex(entry.object))
        for name, entry in rows
    )


def folders_of(paths: Iterable[str]) -> list[str]:
    """Return every folder above *paths*, first the root as an empty string."""
    folders = {""}
    for path in paths:
        while path := path.rpartition("/")[0]:
            folders.add(path)
    return sorted(folders)


def with_files(
    known: Mapping[str, Tree], blobs: Mapping[str, str], algorithm: str
) -> tuple[str, list[bytes]]:
    """Return the id of a tree after files, by path, were put into it, and the data of every new tree.

    *known* has the tree of each folder above the files, as far as there is one. A file keeps its mode.

    Raises:
        RepositoryError: a tree is not among the *known*, though its parent has it.
    """
    changed: dict[str, Tree] = {folder: dict(known.get(folder, {})) for folder in folders_of(blobs)}
    for path, blob in blobs.items():
        folder, _, name = path.rpartition("/")
        old = changed[folder].get(name)
        changed[folder][name] = Entry(old.mode if old is not None and old.mode in FILES else FILE, blob)
    new: list[bytes] = []
    made = ""
    for folder in sorted(changed, reverse=True):  # a folder before the one above it, and the root at last
        data = serialize(changed[folder])
        new.append(data)
        made = object_id("tree", data, algorithm)
        if folder:
            above, _, name = folder.rpartition("/")
            old = changed[above].get(name)
            if old is not None and old.mode == FOLDER and folder not in known:
                raise RepositoryError(f"tree {old.object} is missing", hint="run 'git fsck'")
            changed[above][name] = Entry(FOLDER, made)
    return made, new
