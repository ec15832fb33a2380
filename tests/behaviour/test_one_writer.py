"""A campaign has one writer, and so has a working tree; the dead hold nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pytest_autoresearch.errors import LockHeld
from pytest_autoresearch.system.locks import Lock
from tests.project import Project

THINKS = """
import time
from pathlib import Path


def pytest_autoresearch_propose(briefing):
    if not Path({thinking!r}).exists():
        Path({thinking!r}).touch()
        time.sleep(60)
"""


@contextmanager
def at_work(project: Project) -> Iterator[subprocess.Popen[str]]:
    """A session on tag t that waits for its agent."""
    thinking = project.path / ".git" / "thinking"
    (project.path / "conftest.py").write_text(THINKS.format(thinking=str(thinking)))
    project.commit("Add a slow agent")
    with project.start("--autoresearch", "--autoresearch-tag=t") as process:
        try:
            while not thinking.exists():
                assert process.poll() is None, process.stdout.read() if process.stdout else ""
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def test_a_second_start_names_the_first(project: Project) -> None:
    with at_work(project) as process:
        before = project.git("for-each-ref")
        session = project.research("--autoresearch-trials=1").exits(4).hides("Traceback")
        holder = f"process {process.pid} on {os.uname().nodename}, since 20"
        session.shows(f"campaign t is in use by {holder}", "wait for it, or choose another tag")
        other = project.research("--autoresearch-trials=1", tag="u").exits(4)
        other.shows(f"this working tree is in use by {holder}", "git worktree add")
        assert project.git("for-each-ref") == before
        assert project.git("branch", "--show-current") == "autoresearch/t"


def test_the_lock_of_the_dead_is_taken_over(project: Project) -> None:
    with at_work(project) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    session = project.research().exits(0)
    session.shows(f"recovered: taken over from process {process.pid} on ", "which did not end as it should")
    project.research().exits(0).hides("recovered")  # that one did


def test_a_stopped_session_lets_go(project: Project) -> None:
    with at_work(project) as process:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    project.research().exits(0).hides("taken over")


def test_two_campaigns_in_two_working_trees(project: Project) -> None:
    project.git("worktree", "add", "--quiet", "--detach", ".git/beside")
    beside = project.beside(project.path / ".git" / "beside")
    with at_work(project):
        session = beside.research("--autoresearch-trials=0", tag="u").exits(0)
        session.shows("::baseline PASSED").leaves_clean()
        # The same campaign is refused there too, by the lock and not only by git's own check.
        beside.research("--autoresearch-trials=0").exits(4).shows("campaign t is in use by process")
    assert project.git("branch", "--list", "--format=%(refname:short)", "autoresearch/*").split() == [
        "autoresearch/t",
        "autoresearch/u",
    ]


def test_what_only_looks_needs_no_lock(project: Project) -> None:
    project.research("--autoresearch-trials=0").exits(0)
    with at_work(project):
        project.research("--collect-only").exits(0)
        project.pytest("-k", "baseline").exits(0)


def test_a_lock_has_one_holder(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("locks") / "deep" / "t.lock"
    with Lock(path) as lock:
        assert lock.died is None
        with pytest.raises(LockHeld, match=rf"^process {os.getpid()} on \S+, since [-0-9: +]+$"):
            Lock(path)
    with Lock(path) as lock:
        assert lock.died is None


def test_a_lock_that_was_not_let_go_tells_whose_it_was(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("locks") / "t.lock"
    if not (child := os.fork()):
        Lock(path)
        os._exit(0)
    os.waitpid(child, 0)
    with Lock(path) as lock:
        assert re.match(rf"process {child} on ", lock.died or "")


@pytest.mark.parametrize("text", ["", "torn", "two\nlines\n" * 99, "\udcff"])
def test_what_a_lock_says_may_be_anything(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("locks") / "t.lock"
    path.write_bytes(text.encode(errors="surrogateescape"))
    Lock(path).release()
    assert path.read_text() == ""
