"""Finds copies of hidden files, by their content, in every place that a run may read.

``prepare.py`` names the held-out data by its paths. The same text may also lie in the packages of another
environment, or in the wheel that it was installed from.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import tarfile
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import IO

from pytest_autoresearch.sandbox.policy import Policy

# Bytes. A smaller file tells little, and unrelated packages share some: an empty __init__.py.
SMALLEST = 1 << 10
ZIPS = (".egg", ".pyz", ".whl", ".zip")
SNIFFED = 1 << 18  # bytes from which a file of any name may be a zip: pip's cache names wheels by digests
ZIP_BEGINS = b"PK\x03\x04"
TARS = (".tar", ".tar.bz2", ".tar.gz", ".tar.xz", ".tgz")
LARGEST_TAR = 1 << 26  # bytes; searching a larger one takes seconds, so it is not done
CROWD = 100  # copies in one folder; if there are more, the whole folder belongs to the data
KERNEL = Path("/sys")  # its files are no data, and their sizes are wrong

Fingerprint = Callable[[IO[bytes]], bytes | int]


def copies(policy: Policy) -> list[Path]:
    """Return the files and folders that a run under *policy* could read although they copy a hidden file.

    A copy has the same size and SHA-256. A zip archive counts as a copy if it holds a file of the same size
    and CRC-32, a tar archive if it holds a copy. A file that the policy names as readable does not count.
    """
    closed = {str(path.resolve()) for path in policy.hidden}
    named = {str(path.resolve()) for path in policy.readable} - closed
    originals = _Originals(closed, named)
    if not originals.sizes:
        return []
    files = set(filter(os.path.isfile, named))
    readable = policy.resolved().readable
    roots = [str(path) for path in readable if path.is_dir() and not path.is_relative_to(KERNEL)]
    found = [path for path, size in _files(roots, closed | files) if _is_copy(path, size, originals)]
    return _fewest(found, {*roots, "/"})


class _Originals:
    """The hidden files. Their content is only read once another file has the same size."""

    def __init__(self, closed: Collection[str], named: Collection[str]) -> None:
        """Find the files at and below *closed*, without those at and below *named*, which runs may read."""
        self.sizes: dict[int, list[str]] = defaultdict(list)
        files = [(path, Path(path).stat().st_size) for path in closed if Path(path).is_file()]
        for path, size in [*files, *_files(closed, named, links=True)]:
            if size >= SMALLEST:
                self.sizes[size].append(path)
        self._known: dict[tuple[int, Fingerprint], set[bytes | int]] = {}

    def include(self, size: int, file: IO[bytes]) -> bool:
        """Tell whether one of them has the content of *file*, which has *size* bytes."""
        return size in self.sizes and _digest(file) in self._fingerprints(size, _digest)

    def include_checksum(self, size: int, checksum: int) -> bool:
        """Tell whether one of them has that size and CRC-32."""
        return size in self.sizes and checksum in self._fingerprints(size, _checksum)

    def _fingerprints(self, size: int, of: Fingerprint) -> set[bytes | int]:
        if (size, of) not in self._known:
            found = set()
            for path in self.sizes[size]:
                with contextlib.suppress(OSError), Path(path).open("rb") as file:
                    found.add(of(file))
            self._known[size, of] = found
        return self._known[size, of]


def _files(
    folders: Iterable[str], closed: Collection[str], *, links: bool = False
) -> Iterator[tuple[str, int]]:
    """Yield the regular files below *folders* with their sizes, without what is at or below *closed*.

    Folders that cannot be listed are left out. With *links* a symbolic link to a file counts as one.
    """
    waiting = list(folders)
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in (entry for entry in entries if entry.path not in closed):
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file(follow_symlinks=links):
                    yield entry.path, entry.stat(follow_symlinks=links).st_size


def _is_copy(path: str, size: int, originals: _Originals) -> bool:
    is_archive = path.endswith((*ZIPS, *TARS))
    if size not in originals.sizes and size < SNIFFED and not is_archive:  # as nearly all
        return False
    try:
        with Path(path).open("rb") as file:
            if originals.include(size, file):
                return True
            file.seek(0)
            if path.endswith(TARS):
                return size <= LARGEST_TAR and _holds_copy(file, originals)
            if path.endswith(ZIPS) or file.read(len(ZIP_BEGINS)) == ZIP_BEGINS:
                with zipfile.ZipFile(file) as archive:
                    members = archive.infolist()
                return any(originals.include_checksum(member.file_size, member.CRC) for member in members)
    except Exception:  # noqa: BLE001 - the file may be anything, and parsers of archives raise anything
        return False
    return False


def _holds_copy(file: IO[bytes], originals: _Originals) -> bool:
    with tarfile.open(fileobj=file) as archive:
        return any(
            originals.include(member.size, content)
            for member in archive
            if member.size in originals.sizes and (content := archive.extractfile(member)) is not None
        )


def _fewest(found: Collection[str], roots: Collection[str]) -> list[Path]:
    """Return *found*, with a folder in place of the copies in it if they are a crowd, or all that lies there.

    Each path costs every run a mount, or a rule for each of its neighbours; bubblewrap takes 3,000 at most.
    """
    beside = Counter(map(os.path.dirname, found))
    above = {path: itertools.takewhile(lambda folder: folder not in roots, _above(path)) for path in found}
    counts = Counter(itertools.chain.from_iterable(above.values()))
    full: set[str] = set()
    for folder in sorted(counts):  # an outer one comes before those in it
        if full.isdisjoint(_above(folder)):
            sizeable = (path for path, size in _files([folder], ()) if size >= SMALLEST)
            are_all = len(list(itertools.islice(sizeable, counts[folder] + 1))) <= counts[folder]
            if are_all or beside[folder] > CROWD:
                full.add(folder)
    alone = [path for path in found if full.isdisjoint(_above(path))]
    return [Path(path) for path in sorted([*full, *alone])]


def _above(path: str) -> Iterator[str]:
    """Yield the folders that *path* lies in, the innermost first."""
    return map(str, Path(path).parents)


def _digest(file: IO[bytes]) -> bytes:
    return hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]  # any binary file will do


def _checksum(file: IO[bytes]) -> int:
    checksum = 0
    while chunk := file.read(1 << 20):
        checksum = zlib.crc32(chunk, checksum)
    return checksum
