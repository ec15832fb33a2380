"""Temporary folders end with their process, or with the session after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_autoresearch.system import temporary

MAKES = """
import sys, time
from pytest_autoresearch.system import temporary
with temporary.folder("run") as folder:
    (folder / "deep").mkdir(mode=0o700)
    (folder / "deep" / "file").touch()
    (folder / "deep").chmod(0)
    print(folder, flush=True)
    if sys.argv[1:]:
        time.sleep(60)
"""


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TMPDIR of its own."""
    path = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr("tempfile.tempdir", str(path))
    return path


def made(place: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKES, *arguments],
        env=os.environ | {"TMPDIR": str(place)},
        stdout=subprocess.PIPE,
        text=True,
    )


def sweep() -> int:
    found = temporary.sweep()
    temporary._own.cache_clear()
    return found


def test_a_process_leaves_nothing(place: Path) -> None:
    with made(place) as process:
        assert process.stdout is not None
        assert Path(process.stdout.readline().strip()).name.startswith("run-")
    assert process.returncode == 0
    assert not list(place.iterdir())


def test_a_sweep_that_was_killed_half_way_is_done_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_path: Path) -> None:
        raise KeyboardInterrupt

    with made(place, "wait") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    with monkeypatch.context() as patch:
        patch.setattr(temporary, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            sweep()
    temporary._own.cache_clear()
    assert sweep() >= 1
    assert not [path for path in place.iterdir() if f"-{process.pid}-" in path.name]


def test_folders_of_killed_processes_are_swept(place: Path) -> None:
    with made(place, "wait") as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert sweep() == 0  # it lives
        assert folder.exists()
        process.send_signal(signal.SIGKILL)
    assert folder.exists()
    assert sweep() == 1
    assert not folder.exists()


def test_a_folder_without_a_lock_is_swept_when_its_process_is_dead(place: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    dead, alive = (place / f"{temporary.PREFIX}{pid}-abcd_123" for pid in (process.pid, os.getpid()))
    for path in (dead, alive):
        path.mkdir()
    (dead / temporary.OWNER).touch()
    assert sweep() == 1
    assert alive.exists()
    assert not dead.exists()


def test_other_folders_are_left_alone(place: Path) -> None:
    work = f"{temporary.PREFIX}99999999-abcdefgh"  # named as ours by chance, and with something in it
    for name in (f"{temporary.PREFIX}notes", f"{temporary.PREFIX}2024-projects", work, "other-1-x"):
        (place / name).mkdir()
        (place / name / "thesis.tex").touch()
    (place / f"{temporary.PREFIX}1-file").touch()
    elsewhere = place / "other-1-x" / "mine"
    elsewhere.mkdir()
    (place / f"{temporary.PREFIX}99999999-link_to_").symlink_to(elsewhere)
    assert sweep() == 0
    assert len(list(place.glob("*/thesis.tex"))) == 4
    assert elsewhere.exists()
