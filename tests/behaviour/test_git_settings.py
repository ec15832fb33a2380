"""Whatever git is told by settings, the environment, or the shape of the repository."""

from __future__ import annotations

import copy
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.project import SCRIPT, Project

ALONE = ("--autoresearch-sandbox=none",)
GAIN = ("LR = 0.04", "LR = 0.05")
# What changes what git prints, or asks for what is not there.
SETTINGS = {
    "user.useConfigOnly": "true",
    "commit.gpgSign": "true",
    "tag.gpgSign": "true",
    "gpg.program": "/bin/false",
    "log.showSignature": "true",
    "log.follow": "true",
    "log.decorate": "full",
    "format.pretty": "oneline",
    "i18n.commitEncoding": "latin-1",
    "i18n.logOutputEncoding": "latin-1",
    "color.ui": "always",
    "core.abbrev": "4",
    "core.pager": "false",
    "core.preferSymlinkRefs": "true",
    "core.splitIndex": "true",
    "diff.external": "false",
    "diff.noprefix": "true",
    "diff.relative": "true",
    "diff.ignoreSubmodules": "none",
    "status.relativePaths": "true",
    "submodule.recurse": "true",
}


def at(project: Project, path: Path) -> Project:
    """Return the project as it is found in another folder."""
    other = copy.copy(project)
    other.path, other.script = path, path / "experiment" / "train.py"
    return other


def test_no_setting_is_in_the_way(project: Project) -> None:
    project.proposes(("LR = 0.04", "LR = 0.05"), ("BATCH = 64", "BATCH = 32"))
    conftest = project.path / "conftest.py"
    conftest.write_text(conftest.read_text().replace("->", "→"))
    project.commit()
    for name, value in SETTINGS.items():
        project.git("config", name, value)
    home = project.path / ".git" / "home"
    home.mkdir()
    nobody = {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"}
    session = project.research(*ALONE, **nobody).exits(0).decides("kept", "kept").leaves_clean()
    project.research(*ALONE, "--autoresearch-trials=0", **nobody).exits(0).decides("kept", "kept")
    plain = ["git", "-c", "log.showSignature=false", "-c", "i18n.logOutputEncoding=UTF-8", "log", "-1"]
    said = subprocess.run(
        [*plain, "--format=%s", "refs/autoresearch/t/0001"],
        cwd=session.project.path,
        capture_output=True,
        check=True,
    )
    assert said.stdout.decode() == "LR = 0.04 → LR = 0.05\n"


def test_no_name_is_mistaken_for_another(campaign: Project) -> None:
    """A branch, a tag or a file may have the name of what is meant, and a commit may be replaced."""
    (campaign.path / "HEAD").write_text("")
    campaign.commit("Add a file HEAD")
    campaign.git("tag", "autoresearch/t", "main")
    campaign.git("update-ref", "refs/heads/HEAD", "main")
    campaign.git("replace", "--graft", "refs/autoresearch/t/0001")
    campaign.research(*ALONE).exits(0).decides("kept", "discarded", "kept").leaves_clean()


def test_what_git_tells_its_hooks_leads_nowhere(campaign: Project, tmp_path: Path) -> None:
    """Such as a hook that runs pytest, even by one of another repository."""
    elsewhere = tmp_path / "elsewhere"
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", elsewhere], check=True)
    told = {
        "GIT_DIR": str(elsewhere / ".git"),
        "GIT_WORK_TREE": str(elsewhere),
        "GIT_INDEX_FILE": str(elsewhere / ".git" / "index"),
        "GIT_OBJECT_DIRECTORY": str(elsewhere / ".git" / "objects"),
        "GIT_ICASE_PATHSPECS": "1",
    }
    campaign.research(*ALONE, **told).exits(0).decides("kept", "discarded", "kept").leaves_clean()
    assert not [file for file in (elsewhere / ".git" / "objects").rglob("*") if file.is_file()]
    assert not (elsewhere / ".git" / "index").exists()


def test_a_repository_of_somebody_else_needs_the_users_word(campaign: Project) -> None:
    foreign = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}  # git's own tests have no second user either
    session = campaign.research(*ALONE, **foreign).exits(4).hides("Traceback", "::baseline")
    session.shows("dubious ownership in repository", "git config --global --add safe.directory")
    word = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    campaign.research(*ALONE, "--autoresearch-trials=0", **foreign, **word).exits(0)


@pytest.mark.parametrize("way", ["setting", "attribute"])
def test_line_ends_are_gits_affair(project: Project, way: str) -> None:
    """The blob is what is measured; the working tree has the ends that the user wants."""
    if way == "setting":
        project.git("config", "core.autocrlf", "true")
    else:
        (project.path / ".gitattributes").write_text("*.py text eol=crlf\n*.json text eol=crlf\n")
    project.script.write_bytes(SCRIPT.replace("\n", "\r\n").encode())
    project.proposes(GAIN).research(*ALONE).exits(0).decides("kept").leaves_clean()
    changed = SCRIPT.replace(*GAIN)
    assert project.script.read_bytes() == changed.replace("\n", "\r\n").encode()
    assert project.git("show", "HEAD:experiment/train.py") + "\n" == changed
    project.pytest("experiment/train.py", *ALONE).exits(0).shows("1 skipped")


def test_a_repository_with_sha256_works(project: Project) -> None:
    shutil.rmtree(project.path / ".git")
    project.git("init", "--quiet", "--initial-branch=main", "--object-format=sha256")
    project.temporary.mkdir()
    project.proposes(GAIN).research(*ALONE).exits(0).decides("kept").leaves_clean()
    project.research(*ALONE, "--autoresearch-trials=0").exits(0).shows("stored 0.9700")


def test_a_sparse_checkout_stays_sparse(project: Project) -> None:
    project.write(other__big_txt="big\n").proposes(GAIN)
    project.git("sparse-checkout", "set", "experiment")
    project.research(*ALONE).exits(0).decides("kept").leaves_clean()
    assert not (project.path / "other").exists()
    assert "other/big.txt" in project.git("ls-tree", "-r", "--name-only", "HEAD").split()


def test_a_shallow_clone_works_and_says_what_it_lacks(campaign: Project) -> None:
    first = campaign.clone("--depth=1", "--branch=main")
    first.research(*ALONE, "--autoresearch-trials=1").exits(0).decides("kept")
    shutil.rmtree(first.path)
    shallow = campaign.clone("--depth=1", "--branch=autoresearch/t")
    shallow.git("fetch", "--quiet", "--depth=1", "origin", "refs/autoresearch/*:refs/autoresearch/*")
    session = shallow.research(*ALONE).exits(4).hides("Traceback", "::baseline")
    session.shows("of campaign t is not all there: run 'git fetch --unshallow'")
    shallow.git("fetch", "--quiet", "--unshallow")
    shallow.research(*ALONE).exits(0).decides("kept", "discarded", "kept")


def test_a_linked_worktree_works(project: Project) -> None:
    project.proposes(GAIN).git("worktree", "add", "--quiet", "linked")
    at(project, project.path / "linked").research(*ALONE).exits(0).decides("kept").leaves_clean()
    assert project.git("branch", "--show-current") == "main"
    assert project.is_clean()


def test_submodules_are_nobodys_business(project: Project, tmp_path: Path) -> None:
    """Neither what has changed in them nor which of their commits is staged."""
    module = tmp_path / "module"
    shutil.copytree(project.path, module)
    add = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", module.as_uri())
    for name in ("edited", "staged"):
        project.git(*add, name)
    project.proposes(GAIN)
    (project.path / "edited" / "conftest.py").write_text("# mine\n")
    at(project, project.path / "staged").commit("Mine")
    project.git("add", "staged")
    project.research(*ALONE).exits(0).decides("kept")
    assert (project.path / "edited" / "conftest.py").read_text() == "# mine\n"
    assert project.git("diff", "--cached", "--name-only") == "staged"
    written = project.git("log", "--format=", "--name-only", "main..autoresearch/t").split()
    assert set(written) == {"experiment/baseline.json", "experiment/train.py"}


def test_an_experiment_in_a_submodule_works(project: Project, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", outer], check=True)
    project.proposes(GAIN)
    around = at(project, outer)
    around.git(
        "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", project.path.as_uri(), "inner"
    )
    around.commit("Add a submodule")
    inner = at(project, outer / "inner")
    inner.research(*ALONE).exits(0).decides("kept").leaves_clean()
    assert around.git("for-each-ref", "--format=%(refname)") == "refs/heads/main"
    assert around.git("status", "--porcelain") == " M inner"


def test_pytest_may_start_below_its_root_and_its_root_lie_above_the_repository(project: Project) -> None:
    inner = project.path / "inner"
    inner.mkdir()
    project.proposes(GAIN)
    for name in (".git", ".gitignore", "experiment", "conftest.py"):
        (project.path / name).rename(inner / name)
    project.write(pytest_ini="[pytest]\nautoresearch_experiment = inner/experiment/train.py\n")
    below = at(project, inner / "experiment")
    below.temporary = inner / ".git" / "tmp"
    below.research(*ALONE).exits(0).shows("::trial[0001-lr-0.04-lr-0.05] KEPT")
    assert (project.path / "results.tsv").exists()
    assert at(project, inner).is_clean()


def test_a_bare_repository_is_refused(project: Project) -> None:
    project.git("config", "core.bare", "true")
    project.research().exits(4).shows("is a bare repository: work in a clone or a worktree of it")


def test_a_script_outside_the_repository_is_refused(project: Project, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    project.script.rename(outside / "train.py")
    project.script.symlink_to(outside / "train.py")
    session = project.commit().research().exits(4).hides("Traceback", "INTERNALERROR")
    session.shows(f"{outside}/train.py is not in a git repository")
