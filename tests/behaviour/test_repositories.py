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
    session.shows("git switch: fatal: 'autoresearch/t' is already").hides("Traceback", "INTERNALERROR")


def test_a_campaign_of_another_platform_is_refused(project: Project) -> None:
    project.research("--autoresearch-trials=0").exits(0)
    prepare = project.script.with_name("prepare.py")
    prepare.write_text(prepare.read_text().replace("toy processor", "other processor"))
    project.commit()
    session = project.proposes(GAIN).research().exits(4)
    session.shows("campaign t was started with device_name toy processor, now it is other processor")
    session.hides("Traceback", "INTERNALERROR", "::trial")


@pytest.mark.parametrize(
    "name",
    ["experiment/train.py", "experiment/prepare.py", "experiment/baseline.json"],
    ids=["script", "fixed", "record"],
)
def test_work_of_the_user_in_the_middle_is_not_overwritten(project: Project, name: str) -> None:
    meddle = f"""

def pytest_autoresearch_decided(trial):
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
    session = project.research("--autoresearch-sandbox=none").exits(1).decides("kept")
    session.shows("experiment/train.py changed during trial 1, which is stored").hides("Traceback")
    assert project.script.read_text().endswith("# mine")


def test_a_commit_of_the_user_during_a_run_is_not_undone(project: Project) -> None:
    command = f"cd {project.path} && git -c user.name=Ada -c user.email=a@b commit -q --allow-empty -m mine"
    project.proposes(("LR = 0.04", f"LR = 0.05\nimport os; assert not os.system({command!r})"))
    session = project.research("--autoresearch-sandbox=none").exits(1).hides("Traceback", "campaign.py")
    session.shows("trial 1 could not be stored: git update-ref: fatal:")
    assert project.subjects()[0] == "mine"
    assert sorted(project.refs()) == ["0000"]


def test_a_trial_that_cannot_be_stored_ends_the_loop(project: Project) -> None:
    project.proposes(GAIN, ("BATCH = 64", "BATCH = 32")).research("--autoresearch-trials=0").exits(0)
    (project.path / ".git" / "refs" / "autoresearch" / "t" / "0001.lock").touch()
    session = project.research().exits(1).hides("Traceback", "campaign.py")
    session.shows("trial 1 could not be stored: git update-ref: fatal:")
    assert "::trial[" not in session.screen


def test_a_campaign_goes_on_with_its_own_prepare(project: Project) -> None:
    project.proposes(GAIN).research("--autoresearch-trials=0").exits(0)
    project.git("checkout", "--quiet", "main")
    prepare = project.script.with_name("prepare.py")
    prepare.write_text(prepare.read_text().replace("nothing to fetch", "another corpus"))
    project.commit("Change what is fixed, on main alone")
    project.research().exits(0).decides("kept").shows("nothing to fetch").hides("another corpus")


def test_a_refused_campaign_leaves_the_branch_alone(project: Project) -> None:
    project.research("--autoresearch-trials=0").exits(0)
    project.git("checkout", "--quiet", "main")
    project.write(pytest_ini="[pytest]\nautoresearch_metric = training_seconds\n").commit()
    project.research().exits(4).shows("campaign t was started with metric val_bpb").hides("::baseline P")
    assert project.git("branch", "--show-current") == "main"


@pytest.mark.parametrize("name", ["notes", "0001"])
def test_a_foreign_ref_is_one_line(project: Project, name: str) -> None:
    project.proposes(GAIN).research("--autoresearch-trials=0").exits(0)
    project.git("update-ref", f"refs/autoresearch/t/{name}", "HEAD~1")
    session = project.research().exits(4).hides("Traceback", "INTERNALERROR")
    session.shows("refs/autoresearch/t/", "is no trial")


def test_a_script_that_is_not_utf8_is_one_line(project: Project) -> None:
    project.script.write_bytes("# -*- coding: latin-1 -*-\nNAME = 'caf\xe9'\n".encode("latin-1"))
    project.commit().research().exits(1).shows("experiment/train.py is not UTF-8 text").hides(
        "Traceback", "INTERNALERROR"
    )


def test_a_prepare_that_is_not_committed_is_one_line(project: Project) -> None:
    project.git("rm", "--quiet", "--cached", "experiment/prepare.py")
    project.git("commit", "--quiet", "--message", "Forget it")
    project.research().exits(1).shows("experiment/prepare.py is not committed: add and commit it first")


def test_results_of_somebody_else_are_not_written_over(project: Project) -> None:
    project.write(results_tsv="commit\tval_bpb\tmemory_gb\tstatus\tdescription\nabcdef0\t1\t1\tkeep\tx\n")
    project.research().exits(4).shows("results.tsv is not a campaign's: move it away first")
    assert "abcdef0" in (project.path / "results.tsv").read_text()


def test_a_second_campaign_writes_results_of_its_own(project: Project) -> None:
    project.proposes(GAIN).research().exits(0)
    project.research(tag="u").exits(0)
    assert len(project.rows()) == 3


@pytest.mark.parametrize(
    "text", ["LR = 0.04  # \u00e9\n", "LR = 0.04\r\nB = 1\r\n", "\ufeffLR = 0.04\n", "LR = 0.04"]
)
def test_a_script_goes_through_git_byte_for_byte(pytester: pytest.Pytester, text: str) -> None:
    project = Project(pytester, script="")
    project.script.write_bytes((text + '\nprint(f"val_bpb: {LR}")').encode())
    project.commit().proposes(("LR = 0.04", "LR = 0.03")).research().exits(0).decides("kept").leaves_clean()
    assert (
        project.script.read_bytes() == (text + '\nprint(f"val_bpb: {LR}")').replace("0.04", "0.03").encode()
    )


def test_no_filter_sees_what_is_checked_out(project: Project) -> None:
    """A filter is a program of the user's, and what is checked out may be an agent's."""
    seen = project.path / ".git" / "seen"
    for kind in ("smudge", "clean"):
        project.git("config", f"filter.watch.{kind}", f"echo {kind} >> {seen}; cat")
    project.git("config", "filter.watch.required", "true")
    (project.path / ".gitattributes").write_text("experiment/train.py filter=watch\n")
    project.proposes(("LR = 0.04", "LR = 0.05"), ("BATCH = 64", "BATCH = 32"))
    seen.unlink(missing_ok=True)  # our own commit's
    project.research().exits(0).decides("kept", "kept").leaves_clean()
    assert "smudge" not in (seen.read_text() if seen.exists() else "")


@pytest.mark.parametrize("name", ["p$HOME x", "~", "100% 'ä'"])
def test_a_folder_may_have_any_name(project: Project, name: str) -> None:
    project.proposes(GAIN).git("clone", "--quiet", str(project.path), str(project.path / name))
    clone = project.beside(project.path / name)
    clone.research("--autoresearch-trials=1").exits(0).decides("kept").leaves_clean()
    clone.pytest("-k", "baseline").exits(0)
