"""Ctrl-C, SIGTERM and SIGHUP leave no process, a clean tree and a campaign that goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time

import psutil
import pytest

from tests.project import SCRIPT, Project

# The second trial trains for a minute, with a child in its own session as data loaders have.
HANGS = """LR = 0.05
import subprocess, sys, time
if LR > 0.055:
    sys.stdout.flush()
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(61)", "{token}"], start_new_session=True)
    time.sleep(60)
"""
FAST = ("LR = 0.04", "LR = 0.05")
SECOND = ("LR = 0.05", "LR = 0.06")


def hanging(project: Project) -> str:
    return HANGS.format(token=project.path)


def wait_until_it_hangs(project: Project, process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The script's process and its child's, however deep in a sandbox."""
    while True:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        for child in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if child.cmdline()[1:2] == ["-c"] and child.cmdline()[-1] == str(project.path):
                    return [child.parent() or child, child]
        time.sleep(0.05)


def interrupt(project: Project, number: int, *arguments: str) -> tuple[int, str, list[psutil.Process]]:
    """Send a signal in the middle of the run that hangs: exit code, screen, and the run's processes."""
    with project.start(*arguments) as process:
        run = wait_until_it_hangs(project, process)
        process.send_signal(number)
        screen, _ = process.communicate(timeout=20)
    return process.returncode, screen, run


def assert_dead(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("sandbox", ["auto", "none"])
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)
def test_a_stopped_campaign_is_whole(project: Project, number: signal.Signals, sandbox: str) -> None:
    first = ("LR = 0.04", hanging(project))
    project.proposes(first, SECOND)
    options = ("--autoresearch", "--autoresearch-tag=t", f"--autoresearch-sandbox={sandbox}")
    code, screen, run = interrupt(project, number, *options)
    assert code == 2, screen
    assert "1 kept" in screen
    assert_dead(run)
    assert project.is_clean()
    assert [entry["verdict"] for entry in project.ledger()] == ["kept"]
    assert sorted(project.refs()) == ["0000", "0001"]
    # The agent now has something else to say.
    project.proposes(first, ("BATCH = 64", "BATCH = 32")).research().exits(0).decides("kept", "kept")


@pytest.mark.parametrize("sandbox", ["auto", "none"])
def test_a_killed_pytest_takes_its_run_along(project: Project, sandbox: str) -> None:
    project.proposes(("LR = 0.04", hanging(project)), SECOND)
    options = ("--autoresearch", "--autoresearch-tag=t", f"--autoresearch-sandbox={sandbox}")
    code, _, run = interrupt(project, signal.SIGKILL, *options)
    assert code == -signal.SIGKILL
    assert_dead(run)
    assert project.is_clean()
    assert sorted(project.refs()) == ["0000", "0001"]


def test_a_reproduction_can_be_stopped_too(project: Project) -> None:
    project.research("--autoresearch-trials=0").exits(0)
    project.script.write_text(SCRIPT + hanging(project).replace("LR = 0.05", "LR = 0.06"))
    code, screen, run = interrupt(project, signal.SIGTERM, "experiment/train.py")
    assert code == 2, screen
    assert_dead(run)


def test_a_keep_that_did_not_reach_the_working_tree_is_finished(project: Project) -> None:
    project.proposes(("LR = 0.04", "LR = 0.05")).research().exits(0)
    # What a kill between the ref transaction and the working tree leaves.
    project.git("checkout", "HEAD^", "--", "experiment")
    assert not project.is_clean()
    project.research().exits(0).decides("kept").leaves_clean()
    assert "LR = 0.05" in project.script.read_text()


SLOW_GIT = """#!/bin/sh
case "$*" in *commit-tree*Trial*|*commit-tree*) if [ -e "{armed}" ]; then touch "{seen}"; sleep 1; fi;; esac
exec {git} "$@"
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_waits_for_git(project: Project, number: signal.Signals) -> None:
    """Ctrl-C in a terminal reaches every process of the group, in the middle of a trial's commit."""
    folder = project.path / ".git" / "slow"
    folder.mkdir()
    armed, seen = folder / "armed", folder / "seen"
    (folder / "git").write_text(SLOW_GIT.format(armed=armed, seen=seen, git=shutil.which("git")))
    (folder / "git").chmod(0o755)
    arm = f'\n\ndef pytest_autoresearch_decided(trial):\n    open({str(armed)!r}, "w").close()\n'
    project.proposes(FAST, ("BATCH = 64", "BATCH = 32"), ("BATCH = 32", "BATCH = 16"))
    conftest = project.path / "conftest.py"
    conftest.write_text(conftest.read_text() + arm)
    project.commit()
    path = f"{folder}:{os.environ['PATH']}"
    with project.start("--autoresearch", "--autoresearch-tag=t", PATH=path) as process:
        while not seen.exists():
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            time.sleep(0.02)
        os.killpg(process.pid, number)
        screen, _ = process.communicate(timeout=20)
    assert process.returncode == 2, screen
    assert [entry["verdict"] for entry in project.ledger()] == ["kept", "kept"]
    refs = project.refs()
    assert [entry["commit"] for entry in project.ledger()] == [refs["0001"], refs["0002"]]
    assert len(refs) == 3
    assert project.is_clean()
    subprocess.run(["git", "fsck", "--strict"], cwd=project.path, check=True, capture_output=True)


def test_a_stop_while_the_agent_thinks_is_no_failure(project: Project) -> None:
    thinking = project.path / "thinking"
    project.write(
        conftest_py=f"""
            import time

            def pytest_autoresearch_propose(briefing):
                open({str(thinking)!r}, "w").close()
                time.sleep(60)
        """
    ).commit()
    with project.start("--autoresearch", "--autoresearch-tag=t") as process:
        while not thinking.exists():
            time.sleep(0.05)
        process.terminate()
        screen, _ = process.communicate(timeout=20)
    assert process.returncode == 2, screen
    assert "no proposal" not in screen
