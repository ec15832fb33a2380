"""What is hidden stays hidden under every name, in every archive, and nothing else is hidden with it."""

from __future__ import annotations

import json
import os
import random
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_autoresearch.errors import SandboxUnavailable
from pytest_autoresearch.runs import copies as copies_of
from pytest_autoresearch.runs.copies import CROWD, SMALLEST, SNIFFED
from pytest_autoresearch.sandbox import enforcers, launch
from pytest_autoresearch.sandbox.policy import Enforcer, Policy

TEXT = random.Random(1).randbytes(3 * SMALLEST)
OTHER = random.Random(2).randbytes(3 * SMALLEST)
READ = (
    "import json, sys\nfor path in json.loads(sys.argv[1]):\n    try: print(len(open(path, 'rb').read()))\n"
)
READ += "    except OSError as error: print(type(error).__name__)"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    (tmp_path / "held-out").mkdir()
    (tmp_path / "held-out" / "text.txt").write_bytes(TEXT)
    (tmp_path / "held-out" / "__init__.py").write_text("# as in many packages\n")
    (tmp_path / "library").mkdir()
    (tmp_path / "run").mkdir()
    return tmp_path / "library"


def policy(library: Path, *named: Path) -> Policy:
    beside = library.parent
    return Policy(beside / "run", (library, *named), (beside / "held-out",))


def found(library: Path, *named: Path) -> set[str]:
    """Return what is found in the library; going through the rest of the machine takes a second or two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Policy, "resolved", lambda _policy: SimpleNamespace(readable={library}))
        return {str(path.relative_to(library)) for path in copies_of.copies(policy(library, *named))}


def put(path: Path, content: bytes = TEXT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def wheel(path: Path, *contents: bytes) -> Path:
    with zipfile.ZipFile(put(path, b""), "w", zipfile.ZIP_DEFLATED) as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"package/{number}", content)
    return path


def source(path: Path, content: bytes, mode: str) -> Path:
    member = put(path.with_suffix(".member"), content)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # one of the modes
        archive.add(member, "package/text")
    member.unlink()
    return path


@pytest.mark.parametrize("enforcer", ["bwrap", "landlock"])
def test_a_run_reads_no_copy_and_all_else(library: Path, enforcer: Enforcer) -> None:
    try:
        enforcers.choose(enforcer)
    except SandboxUnavailable as reason:
        pytest.skip(str(reason))
    closed = [
        put(library / "packages" / "of-another-name"),
        wheel(library / "wheels" / "corpus-1.0-py3-none-any.whl", OTHER, TEXT),
        source(library / "wheels" / "corpus-1.0.tar.gz", TEXT, "w:gz"),
        put(library / "second" / "corpus" / "data" / "text.txt"),
    ]
    (library / "link").symlink_to(closed[0])
    readable = [
        put(library / "packages" / "module.py", OTHER),
        wheel(library / "wheels" / "other-1.0-py3-none-any.whl", OTHER),
        put(library / "second" / "other" / "text.txt", OTHER),
    ]
    allowed = policy(library)
    allowed = Policy(allowed.folder, allowed.readable, (*allowed.hidden, *copies_of.copies(allowed)))
    paths = json.dumps([str(path) for path in (*closed, library / "link", *readable)])
    with launch.start([sys.executable, "-c", READ, paths], allowed, enforcer, {}) as run:
        said = run.output.read().decode().split()
    assert set(said[:5]) <= {"PermissionError", "FileNotFoundError"}
    assert said[5:] == [str(path.stat().st_size) for path in readable]


def test_what_only_looks_alike_is_no_copy(library: Path) -> None:
    put(library / "of-the-same-size", OTHER)
    put(library / "package" / "__init__.py", b"# as in many packages\n")
    put(library / "shorter", TEXT[:-1])
    wheel(library / "other.whl", OTHER, TEXT[:-1])
    source(library / "other.tar", OTHER, "w")
    assert found(library) == set()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_archives_are_looked_into(library: Path, mode: str) -> None:
    name = f"source.tar{mode[1:].replace(':', '.')}"
    source(library / name, TEXT, mode)
    assert found(library) == {name}


def test_a_large_archive_of_any_name_is_looked_into(library: Path) -> None:
    wheel(library / "d41d8cd9.body", random.Random(3).randbytes(SNIFFED), TEXT)
    assert found(library) == {"d41d8cd9.body"}


def test_another_name_of_the_same_file_is_a_copy(library: Path) -> None:
    os.link(library.parent / "held-out" / "text.txt", library / "hard")
    assert found(library) == {"hard"}


def test_what_a_hidden_link_leads_to_is_hidden(library: Path) -> None:
    """As a model hub's cache keeps them: names in one folder, blobs in another."""
    (library.parent / "held-out" / "link.txt").symlink_to(put(library / "blobs" / "1", OTHER))
    put(library / "blobs" / "2", TEXT[::-1])
    assert found(library) == {"blobs/1"}


def test_a_file_that_is_named_as_readable_stays_so(library: Path) -> None:
    assert found(library, put(library / "named"), put(library.parent / "held-out" / "given", OTHER)) == set()
    put(library / "like-given", OTHER)
    put(library / "like-named")
    assert found(library, library / "named", library.parent / "held-out" / "given") == {"like-named"}


def test_a_folder_of_nothing_but_copies_is_hidden_as_one(library: Path) -> None:
    for number in range(40):
        text = random.Random(number).randbytes(2 * SMALLEST)
        put(library.parent / "held-out" / str(number), text)
        put(library / "site-packages" / "corpus" / "data" / f"{number}.txt", text)
        put(library / "mixed" / f"{number}.txt", text)
    put(library / "site-packages" / "corpus" / "__init__.py", b"")
    put(library / "site-packages" / "other" / "module.py", OTHER)
    put(library / "mixed" / "module.py", OTHER)
    assert found(library) == {"site-packages/corpus", *(f"mixed/{number}.txt" for number in range(40))}


def test_a_crowd_of_copies_is_hidden_with_its_neighbours(library: Path) -> None:
    for number in range(CROWD + 1):
        text = random.Random(number).randbytes(2 * SMALLEST)
        put(library.parent / "held-out" / str(number), text)
        put(library / "mixed" / str(number), text)
    put(library / "mixed" / "index", OTHER)
    assert found(library) == {"mixed"}


def test_odd_things_on_the_way_do_no_harm(library: Path) -> None:
    put(library / "torn.whl", b"PK\x03\x04" + OTHER)
    put(library / "torn.tar.gz", b"\x1f\x8b" + OTHER)
    put(library / "empty.zip", b"")
    os.mkfifo(library / "pipe.whl")
    (library / "loop").symlink_to(library)
    (library / "nowhere.whl").symlink_to("gone")
    (library.parent / "held-out" / "nowhere").symlink_to("gone")
    put(library / "closed" / "copy").parent.chmod(0)
    put(library / "copy")
    try:
        assert found(library) - {"closed"} == {"copy"}
    finally:
        (library / "closed").chmod(0o755)
