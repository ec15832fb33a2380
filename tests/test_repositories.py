"""Repositories in every state: what works, and what is refused before anything runs."""

from __future__ import annotations

import shutil
import stat

import pytest

from tests.project import Project

GAIN = ("LR = 0.04", "LR = 0.05")


def test_uncommitted_changes_are_refused(project: Project) -> None:
    project.script.write_text("LR = 1\n")
    session = project.research().exits(4)
    session.shows("uncommitted changes in experiment/train.py: commit or stash them first").hides("Traceback")
    assert project.script.read_text() == "LR = 1\n"


def test_staged_changes_are_refused(project: Project) -> None:
    project.write(new_py="").git("add", "new.py")
    project.research().exits(4).shows("uncommitted changes in new.py")


def test_untracked_files_are_left_alone(project: Project) -> None:
    project.proposes(GAIN).write(notes_txt="mine\n").research().exits(0).decides("kept")
    assert (project.path / "notes.txt").read_text() == "mine\n"
    assert "notes.txt" not in project.git("ls-files")


def test_no_repository_is_refused(project: Project) -> None:
    shutil.rmtree(project.path / ".git")
    project.research().exits(4).shows("is not in a git repository: run 'git init'").hides("Traceback")
    project.pytest("-k", "baseline").exits(1).shows("is not in a git repository").hides("Traceback")


def test_a_repository_without_commits_is_refused(project: Project) -> None:
    shutil.rmtree(project.path / ".git")
    project.git("init", "--quiet")
    project.research().exits(4).shows("experiment/train.py is not committed: add and commit it first")


def test_no_git_is_refused(project: Project) -> None:
    project.research(PATH="/nowhere").exits(4).shows("git is not installed").hides("Traceback")


def test_a_root_above_the_project_works(project: Project) -> None:
    inner = project.path / "inner"
    inner.mkdir()
    project.git("mv", "experiment", "inner/experiment")
    (inner / "pytest.ini").write_text("[pytest]\n")
    project.commit()
    session = project.research("-c", "inner/pytest.ini", "--rootdir=inner", "--autoresearch-trials=0").exits(
        0
    )
    session.shows("baseline PASSED")
    assert project.git("diff", "--name-only", "HEAD^") == "inner/experiment/baseline.json"
    assert (inner / "results.tsv").exists()


def test_a_detached_head_without_an_identity_works(project: Project) -> None:
    project.proposes(GAIN).git("checkout", "--quiet", "--detach")
    project.git("config", "user.useConfigOnly", "true")
    project.research(GIT_CONFIG_GLOBAL="/dev/null").exits(0).decides("kept").leaves_clean()
    assert project.git("log", "-1", "--format=%an <%ae>") == "pytest-autoresearch <autoresearch@localhost>"


def test_hooks_filters_and_signing_are_not_in_the_way(project: Project) -> None:
    project.proposes(GAIN)
    for name in ("pre-commit", "commit-msg", "post-commit", "post-checkout", "reference-transaction"):
        hook = project.path / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\necho {name} >> {project.path}/hooked\nexit 1\n")
        hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    project.git("config", "commit.gpgSign", "true")
    project.git("config", "core.fsmonitor", f"{project.path}/.git/hooks/pre-commit")
    project.research().exits(0).decides("kept")
    assert not (project.path / "hooked").exists()


def test_a_branch_of_another_worktree_is_refused(project: Project) -> None:
    project.git("branch", "autoresearch/t")
    project.git("worktree", "add", "--quiet", "elsewhere", "autoresearch/t")
    session = project.research().exits(4)
    session.shows("git checkout: fatal: 'autoresearch/t' is already").hides("Traceback", "INTERNALERROR")


def test_a_campaign_of_another_platform_is_refused(project: Project) -> None:
    project.research("--autoresearch-trials=0").exits(0)
    prepare = project.script.with_name("prepare.py")
    prepare.write_text(prepare.read_text().replace("toy processor", "other processor"))
    project.commit()
    session = project.proposes(GAIN).research().exits(4)
    session.shows("campaign t was begun with platform", "toy processor", "other processor", "choose another")
    session.hides("Traceback", "INTERNALERROR", "::trial")


@pytest.mark.parametrize(
    "name",
    ["experiment/train.py", "experiment/prepare.py", "experiment/baseline.json"],
    ids=["script", "fixed", "record"],
)
def test_work_of_the_user_in_the_middle_is_not_overwritten(project: Project, name: str) -> None:
    meddle = f"""

def pytest_autoresearch_decided(entry):
    with open({name!r}, "a") as file:
        file.write(" ")
"""
    project.proposes(GAIN, ("BATCH = 64", "BATCH = 32"))
    conftest = project.path / "conftest.py"
    conftest.write_text(conftest.read_text() + meddle)
    session = project.commit().research().exits(1)
    session.shows("KEPT", f"{name} changed during the campaign: commit or restore").hides("Traceback")
    assert (project.path / name).read_text().endswith(" ")


def test_work_of_the_user_during_a_run_is_not_overwritten(project: Project) -> None:
    path = str(project.script)
    project.proposes(("LR = 0.04", f"LR = 0.05\nopen({path!r}, 'a').write('# mine')"))
    session = project.research().exits(1).decides("kept")
    session.shows("experiment/train.py changed during trial 1, which is stored").hides("Traceback")
    assert project.script.read_text().endswith("# mine")
