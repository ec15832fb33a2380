"""A file of a stranger is read up to its size at that moment, or refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_autoresearch.errors import FileRefused
from pytest_autoresearch.system.files import read_bounded


def test_a_regular_file_is_read_whole_in_bounded_pieces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert list(read_bounded(path, 10, chunk=4)) == [b"0123", b"4567", b"89"]
    descriptor = os.open(path, os.O_RDONLY)
    os.lseek(descriptor, 5, os.SEEK_SET)
    assert list(read_bounded(descriptor, 10)) == [b"0123456789"]  # wherever its writer has left the position
    os.close(descriptor)


def test_a_file_that_grows_meanwhile_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123")
    read = b""
    for piece in read_bounded(path, 4, chunk=1):
        read += piece
        with path.open("ab") as file:
            file.write(b"more")
    assert read == b"0123"


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_only_regular_files_are_read_and_none_is_waited_for(kind: str, tmp_path: Path) -> None:
    path = {"device": Path("/dev/zero")}.get(kind, tmp_path / kind)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(FileRefused, match=r"^is no regular file$"):
        list(read_bounded(path, 100))


def test_what_is_too_large_linked_or_missing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1001))
    with pytest.raises(FileRefused, match=r"^has 1,001 bytes, at most 1,000 are allowed$"):
        list(read_bounded(path, 1000))
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(FileRefused, match=r"^cannot be read: Too many levels of symbolic links$"):
        list(read_bounded(tmp_path / "link", 2000))
    with pytest.raises(FileRefused, match=r"^cannot be read: No such file or directory$"):
        list(read_bounded(tmp_path / "missing", 2000))
    assert list(read_bounded(path, 2000, sole_name=True)) == [bytes(1001)]
    (tmp_path / "hard").hardlink_to(path)
    with pytest.raises(FileRefused, match=r"^has other names: no hard link is read$"):
        list(read_bounded(path, 2000, sole_name=True))
    assert list(read_bounded(path, 2000)) == [bytes(1001)]
