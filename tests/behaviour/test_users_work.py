"""The user's own work: nothing that is not committed is overwritten, or committed, by anybody else."""

from __future__ import annotations

import textwrap
import threading
import time
from pathlib import Path

import pytest

from tests.project import Project

ALONE = ("--autoresearch-sandbox=none",)
NEXT = (*ALONE, "--autoresearch-trials=1")


def once(project: Project, change: str, work: str) -> str:
    """Return *change* with *work* that only the first run does."""
    done = str(project.path / ".git" / "done")
    body = textwrap.indent(work.strip(), "    ")
    return f"{change}\nimport os\nif not os.path.exists({done!r}):\n    open({done!r}, 'w').close()\n{body}\n"


@pytest.mark.parametrize("kind", ["untracked", "ignored"])
def test_a_record_that_is_not_committed_is_refused(campaign: Project, kind: str) -> None:
    """It would be believed, and then overwritten."""
    records = campaign.script.with_name("baseline.json")
    text = records.read_text()
    campaign.git("checkout", "--quiet", "main")
    records.write_text(text)
    if kind == "ignored":
        (campaign.path / ".git" / "info" / "exclude").write_text("*.json\n")
    session = campaign.research(*NEXT, tag="u").exits(4).hides("::baseline")
    session.shows("experiment/baseline.json is not committed: commit it, or move it away")
    assert records.read_text() == text
    assert not campaign.git("branch", "--list", "autoresearch/u")


@pytest.mark.parametrize("mark", ["assume-unchanged", "skip-worktree"])
@pytest.mark.parametrize("name", ["train.py", "baseline.json"], ids=["script", "record"])
def test_work_that_git_does_not_see_is_refused(campaign: Project, mark: str, name: str) -> None:
    file = campaign.script.with_name(name)
    campaign.git("update-index", f"--{mark}", f"experiment/{name}")
    file.write_text(file.read_text() + " ")
    session = campaign.research(*NEXT).exits(4).hides("::baseline")
    session.shows(
        f"git was told not to look at experiment/{name}: run 'git update-index --no-assume-unchanged"
    )
    assert file.read_text().endswith(" ")


@pytest.mark.parametrize("kind", ["untracked", "ignored"])
def test_a_file_that_the_branch_has_too_is_not_overwritten(campaign: Project, kind: str) -> None:
    campaign.write(notes_txt="theirs\n").commit("Add notes").git("checkout", "--quiet", "main")
    campaign.write(notes_txt="mine\n")
    if kind == "ignored":
        (campaign.path / ".git" / "info" / "exclude").write_text("notes.txt\n")
    session = campaign.research(*NEXT).exits(4).hides("Traceback", "::baseline")
    session.shows("untracked working tree files would be overwritten by checkout: notes.txt")
    assert (campaign.path / "notes.txt").read_text() == "mine\n"
    assert campaign.git("branch", "--show-current") == "main"


def test_a_merge_that_is_not_finished_is_left_alone(campaign: Project) -> None:
    """To move HEAD away would put its end onto the campaign's branch."""
    campaign.git("checkout", "--quiet", "-b", "side", "main")
    campaign.commit("Nothing").git("checkout", "--quiet", "main")
    campaign.git("merge", "--quiet", "--no-ff", "--no-commit", "side")
    campaign.research(*NEXT).exits(4).shows("git switch: fatal: cannot switch branch while merging")
    assert campaign.git("branch", "--show-current") == "main"
    assert (campaign.path / ".git" / "MERGE_HEAD").exists()


def test_other_files_are_the_users_while_a_run_trains(project: Project) -> None:
    """Edited or staged, they are neither in anybody's way nor in a commit."""
    (project.path / ".git" / "info" / "exclude").write_text("results.tsv\n")
    work = f"""LR = 0.05
import os, subprocess
os.chdir({str(project.path)!r})
open("conftest.py", "a").write("# mine\\n")
open("experiment/program.md", "a").write("mine\\n")
open("new.py", "w").write("mine\\n")
subprocess.run(["git", "add", "new.py"], check=True)
"""
    project.proposes(("LR = 0.04", work), ("BATCH = 64", "BATCH = 32")).research(*ALONE).exits(0).decides(
        "kept", "kept"
    )
    assert project.git("status", "--porcelain").splitlines() == [
        " M conftest.py",
        " M experiment/program.md",
        "A  new.py",
    ]
    written = project.git("log", "--format=", "--name-only", "main..autoresearch/t").split()
    assert set(written) == {"experiment/baseline.json", "experiment/train.py"}


def test_what_is_staged_while_a_run_trains_stays_staged(project: Project) -> None:
    """Even where the file itself is as it was."""
    work = f"""LR = 0.05
import subprocess
script = {str(project.script)!r}
text = open(script).read()
open(script, "a").write("# mine")
subprocess.run(["git", "-C", {str(project.path)!r}, "add", script], check=True)
open(script, "w").write(text)
"""
    project.proposes(("LR = 0.04", work), ("BATCH = 64", "BATCH = 32"))
    session = project.research(*ALONE).exits(1).decides("kept")
    session.shows("experiment/train.py changed during trial 1, which is stored").hides("::trial[0002")
    assert project.git("show", ":experiment/train.py").endswith("# mine")


def test_a_branch_that_is_left_while_a_run_trains_is_not_missed(project: Project) -> None:
    command = f"git -C {project.path} checkout --quiet main"
    project.proposes(
        ("LR = 0.04", f"LR = 0.05\nimport os; os.system({command!r})"), ("BATCH = 64", "BATCH = 32")
    )
    session = project.research(*ALONE).exits(1).decides("kept").hides("Traceback", "::trial[0002")
    session.shows("autoresearch/t was left during trial 1, which is stored: start again")
    assert project.git("branch", "--show-current") == "main"
    project.git("checkout", "--quiet", "autoresearch/t")
    assert "LR = 0.05" in project.script.read_text()


def test_what_is_tidied_away_while_a_run_trains_is_written_again(project: Project) -> None:
    """``git clean -x`` in another terminal."""
    tidy = f"""
import os, shutil
shutil.rmtree({str(project.path / ".autoresearch")!r})
os.remove({str(project.path / "results.tsv")!r})
"""
    second = ("LR = 0.04", once(project, "LR = 0.05", tidy))
    project.proposes(("BATCH = 64", "BATCH = 63"), second, ("BATCH = 63", "BATCH = 32"))
    project.research(*ALONE).exits(0).decides("kept", "kept", "kept")
    assert project.rows()[1][-1] == "baseline"


@pytest.mark.parametrize(
    "name", ["index.lock", "HEAD.lock", "packed-refs.lock", "refs/heads/autoresearch/t.lock"]
)
def test_a_lock_of_another_git_is_refused(campaign: Project, name: str) -> None:
    lock = campaign.path / ".git" / name
    lock.touch()
    session = campaign.research(*NEXT).exits(4).hides("Traceback", "::baseline")
    session.shows(f"{lock} is there: remove it, unless another git is at work")
    assert lock.exists()


def locking(project: Project) -> Path:
    """Let the run of the first trial, and no other, lock the index; return the lock."""
    lock = project.path / ".git" / "index.lock"
    project.proposes(("LR = 0.04", once(project, "LR = 0.05", f"open({str(lock)!r}, 'w').close()")))
    return lock


def test_a_lock_that_passes_is_waited_for(project: Project) -> None:
    """Editors let git look at the index every now and then."""
    lock = locking(project)

    def hold() -> None:
        while not lock.exists():
            time.sleep(0.02)
        time.sleep(1)
        lock.unlink()

    other = threading.Thread(target=hold, daemon=True)
    other.start()
    project.research(*ALONE).exits(0).decides("kept").leaves_clean()
    other.join(timeout=5)


def test_a_lock_that_stays_costs_no_verdict(project: Project) -> None:
    lock = locking(project)
    session = project.research(*ALONE).exits(1).decides("kept").hides("Traceback", "campaign.py")
    session.shows(
        "trial 1 is stored, but not in the working tree: git reset: fatal: Unable to create",
        "index.lock': File exists: remove it, unless another git is at work",
    )
    lock.unlink()
    project.research(*ALONE).exits(0).decides("kept").leaves_clean()
    assert "LR = 0.05" in project.script.read_text()


def test_work_of_the_user_while_prepare_runs_is_not_overwritten(campaign: Project) -> None:
    """It may fetch data for minutes."""
    campaign.write(notes_txt="old\n")
    prepare = campaign.script.with_name("prepare.py")
    mine = f"for name in ({str(campaign.script)!r}, {str(campaign.path / 'notes.txt')!r}):\n"
    prepare.write_text(f"{prepare.read_text()}\n{mine}    open(name, 'a').write('# mine')\n")
    campaign.commit("Let prepare.py stand in for a user")
    session = campaign.research(*NEXT).exits(4).hides("recovered", "::baseline PASSED")
    session.shows("uncommitted changes in experiment/train.py, notes.txt: commit or stash them first")
    assert campaign.script.read_text().endswith("# mine")
    assert (campaign.path / "notes.txt").read_text() == "old\n# mine"


# The lock is there from the proposal on; git wants it once the trial is stored.
WAITED_FOR = """

import subprocess

made = pytest_autoresearch_propose


def pytest_autoresearch_propose(briefing):
    if briefing.number == 3:
        open(".git/index.lock", "w").close()
        stored = "for _ in $(seq 500); do git rev-parse -q --verify refs/autoresearch/t/0003 && break; done"
        work = f"{stored}; sleep 1; echo '# mine' >> experiment/train.py; sleep 0.5; rm .git/index.lock"
        subprocess.Popen(["sh", "-c", work], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return made(briefing)
"""


def test_work_that_is_saved_while_a_lock_is_waited_for_is_not_overwritten(campaign: Project) -> None:
    conftest = campaign.path / "conftest.py"
    conftest.write_text(conftest.read_text() + WAITED_FOR)
    session = campaign.commit("Let a user work").research(*NEXT).exits(1).hides("Traceback")
    session.shows("trial 3 is stored, but not in the working tree", "changed meanwhile: restore and start")
    assert campaign.script.read_text().endswith("# mine\n")
    assert "0003" in campaign.refs()
