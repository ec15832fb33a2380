"""Git's tree objects: read, changed and named without a git process. Pure.

A tree is a sequence of entries: the mode in octal digits, a space, the name, a NUL byte and the object's id
as 20 or 32 raw bytes (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Literal, NamedTuple, TypeAlias

from pytest_autoresearch.errors import RepositoryError

Algorithm: TypeAlias = Literal["sha1", "sha256"]
"""What the repository names its objects by."""

FILE, FOLDER = "100644", "40000"


class Entry(NamedTuple):
    """What a tree holds under one name."""

    mode: str
    object: str
    """Its id in hexadecimal digits."""

    @property
    def is_folder(self) -> bool:
        """Whether it is another tree."""
        return self.mode == FOLDER

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file: no link, no submodule."""
        return self.mode.startswith("100")


Tree: TypeAlias = dict[str, Entry]


def object_id(kind: str, data: bytes, algorithm: Algorithm) -> str:
    """Return the id of an object, whether it is stored or not."""
    return hashlib.new(algorithm, b"%b %d\0%b" % (kind.encode(), len(data), data)).hexdigest()


def parse(data: bytes, algorithm: Algorithm) -> Tree:
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
    rows = sorted((os.fsencode(name) + b"/" * entry.is_folder, entry) for name, entry in tree.items())
    return b"".join(
        b"%b %b\0%b" % (entry.mode.encode(), name.rstrip(b"/"), bytes.fromhex(entry.object))
        for name, entry in rows
    )


def tree_id(blobs: Mapping[str, str], algorithm: Algorithm) -> str:
    """Return the id of the tree that holds exactly these files, each of mode 100644.

    Args:
        blobs: the id of each file's blob, by its path.
        algorithm: of the repository.
    """
    return with_files({}, blobs, algorithm)[0]


def folders_of(paths: Mapping[str, str]) -> list[str]:
    """Return every folder above *paths*, the root as an empty string."""
    folders = {str(parent) for path in paths for parent in PurePosixPath(path).parents} | {"."}
    return sorted("" if folder == "." else folder for folder in folders)


def with_files(
    known: Mapping[str, Tree], blobs: Mapping[str, str], algorithm: Algorithm
) -> tuple[str, list[bytes]]:
    """Put files into a tree.

    Args:
        known: the tree of each folder above the files, as far as there is one, by its path.
        blobs: the id of each file's blob, by its path. A file keeps its mode.
        algorithm: of the repository.

    Returns:
        The id of the new root, and the data of every tree that is new.

    Raises:
        RepositoryError: a tree is not among the *known*, though its parent has it.
    """
    changed: dict[str, Tree] = {folder: dict(known.get(folder, {})) for folder in folders_of(blobs)}
    for path, blob in blobs.items():
        folder, _, name = path.rpartition("/")
        old = changed[folder].get(name)
        changed[folder][name] = Entry(old.mode if old is not None and old.is_file else FILE, blob)
    new: list[bytes] = []
    for folder in sorted(changed, reverse=True):  # a folder before the one above it
        data = serialize(changed[folder])
        new.append(data)
        made = object_id("tree", data, algorithm)
        if not folder:
            return made, new
        above, _, name = folder.rpartition("/")
        old = changed[above].get(name)
        if old is not None and old.is_folder and folder not in known:
            raise RepositoryError(f"tree {old.object} is missing", hint="run 'git fsck'")
        changed[above][name] = Entry(FOLDER, made)
    raise AssertionError  # the root is among them
