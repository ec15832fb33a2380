"""The refs and objects of a long campaign lie in few files, and are the same."""

from __future__ import annotations

import pytest

from tests.project import Project

EVERY_OTHER = """
from pytest_autoresearch.campaign import writer

writer.PACKED_EVERY = 2
"""
# Another git comes to have what holds the refs.
LOCKS = """
import pathlib


def pytest_autoresearch_decided(trial):
    if trial.number == 1:
        pathlib.Path(".git/packed-refs.lock").touch()
"""


@pytest.fixture
def packing(project: Project) -> Project:
    project.proposes(*((f"LR = 0.0{value}", f"LR = 0.0{value + 1}") for value in (4, 5, 6)))
    return more(project, EVERY_OTHER)


def more(project: Project, text: str) -> Project:
    conftest = project.path / "conftest.py"
    conftest.write_text(conftest.read_text() + text)
    return project.commit()


def loose(project: Project) -> set[str]:
    folder = project.path / ".git" / "refs"
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_is_stored_is_packed_every_now_and_then(packing: Project) -> None:
    packing.research("--autoresearch-trials=3").exits(0)
    assert packing.git("count-objects", "-v").splitlines()[3] == "packs: 1"
    packed = (packing.path / ".git" / "packed-refs").read_text()
    assert "refs/autoresearch/t/0002\n" in packed
    assert "refs/autoresearch/t/log/0002\n" in packed
    assert {"autoresearch/t/0003", "autoresearch/t/log/0003"} <= loose(packing)
    assert not {"autoresearch/t/0001", "autoresearch/t/0002"} & loose(packing)
    known = packing.refs()
    session = packing.research("--autoresearch-trials=0").exits(0).hides("recovered").leaves_clean()
    assert {name: session.project.refs()[name] for name in known} == known


def test_a_lock_on_the_packed_refs_stops_no_campaign(packing: Project) -> None:
    more(packing, LOCKS).research("--autoresearch-trials=3").exits(0).hides("Traceback", "packed-refs")
    assert "autoresearch/t/0002" in loose(packing)
    lock = packing.path / ".git" / "packed-refs.lock"
    packing.research("--autoresearch-trials=0").exits(4).shows(f"{lock} is there: remove it")
    lock.unlink()
    packing.research("--autoresearch-trials=0").exits(0)
