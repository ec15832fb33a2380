"""A version of an experiment is the git tree of its editable files, of which there may be several."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pytest_autoresearch.campaign import checkout
from pytest_autoresearch.campaign.git import Repository
from pytest_autoresearch.errors import RepositoryError
from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.source.files import digest, is_storable
from tests.project import Project

GLOBS = ("train.py", "model/**/*.py", "*.yaml")


@pytest.fixture
def spec(project: Project) -> ExperimentSpec:
    project.write(
        experiment__model__net_py="WIDTH = 1\n",
        experiment__model__layers__deep_py="DEPTH = 2\n",
        experiment__model__notes_md="notes\n",
        experiment__config_yaml="rate: 1\n",
        experiment__other__train_py="no part of it\n",
        elsewhere_py="nor this\n",
    )
    project.commit()
    return ExperimentSpec(project.script.parent, editable=GLOBS)


def made_by_git(project: Project, revision: str) -> str:
    """The tree that git itself makes of the editable files."""
    git = ["git", "-C", str(project.path)]

    def made(rows: str) -> str:
        done = subprocess.run([*git, "mktree"], input=rows, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def row(folder: str, *names: str) -> str:
        return project.git("ls-tree", f"{revision}:{folder}", *names) + "\n"

    layers = made(row("experiment/model/layers", "deep.py"))
    model = made(row("experiment/model", "net.py") + f"040000 tree {layers}\tlayers\n")
    return made(row("experiment", "train.py", "config.yaml") + f"040000 tree {model}\tmodel\n")


def test_the_id_is_the_one_that_git_gives(project: Project, spec: ExperimentSpec) -> None:
    repository = Repository(spec)
    files = repository.files_at("HEAD")
    assert sorted(files) == ["config.yaml", "model/layers/deep.py", "model/net.py", "train.py"]
    expected = made_by_git(project, "HEAD")
    assert repository.tree_at("HEAD") == repository.tree_of(files) == expected
    assert checkout.tree(repository) == expected
    assert repository.files_of(expected) == files
    project.script.write_text("LR = 1\n")
    assert checkout.tree(repository) == repository.tree_of(files | {"train.py": "LR = 1\n"}) != expected


def test_the_id_is_longer_where_the_repository_hashes_with_sha256(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "train.py").write_text("LR = 1\n")
    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-C", str(tmp_path)]
    for command in (["init", "--quiet", "--object-format=sha256"], ["add", "."], ["commit", "-qm", "Begin"]):
        subprocess.run([*git, *command], check=True)
    repository = Repository(ExperimentSpec(folder))
    commit = repository.commit("HEAD", {"experiment/train.py": "LR = 2\n"}, "Change it")
    for revision in ("HEAD", commit):
        tree = subprocess.run(
            [*git, "rev-parse", f"{revision}:experiment"], capture_output=True, text=True, check=True
        ).stdout.strip()
        assert repository.tree_at(revision) == tree
        assert len(tree) == 64


@pytest.mark.usefixtures("spec")
def test_a_commit_has_new_files_and_keeps_all_others(project: Project) -> None:
    repository = Repository(ExperimentSpec(project.script.parent))
    project.script.chmod(0o755)
    project.commit()
    changed = {
        "experiment/train.py": "LR = 1\n",
        "experiment/model/new/net.py": "x = 1\n",
        "top.py": "y = 2\n",
    }
    commit = repository.commit("HEAD", changed, "Change it")
    project.git("fsck", "--strict")
    assert set(project.git("diff", "--name-only", "HEAD", commit).splitlines()) == set(changed)
    for path, text in changed.items():
        assert project.git("show", f"{commit}:{path}") + "\n" == text
    assert project.git("ls-tree", commit, "experiment/train.py").startswith("100755")
    assert project.git("ls-tree", commit, "experiment/model/new/net.py").startswith("100644")
    assert project.git("status", "--porcelain") == ""


def test_a_tree_that_is_lost_is_never_written_over(project: Project, spec: ExperimentSpec) -> None:
    tree = project.git("rev-parse", "HEAD:experiment/model")
    (project.path / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    repository = Repository(spec)
    with pytest.raises(RepositoryError, match=f"tree {tree} is missing: run 'git fsck'"):
        repository.commit("HEAD", {"experiment/model/net.py": "WIDTH = 3\n"}, "Change it")
    with pytest.raises(RepositoryError, match=r"HEAD is not all there: run 'git fetch --unshallow'"):
        repository.files_at("HEAD")


@pytest.mark.parametrize(
    ("path", "editable"),
    [
        ("train.py", True),
        ("model/net.py", True),
        ("model/a/b/net.py", True),
        ("config.yaml", True),
        ("model/net.yaml", False),
        ("other/train.py", False),
        ("prepare.py", False),
        ("models/net.py", False),
    ],
)
def test_a_glob_matches_whole_paths(path: str, editable: bool) -> None:  # noqa: FBT001 - what is expected
    spec = ExperimentSpec(Path("/experiment"), editable=GLOBS)
    assert spec.is_editable(path) is editable
    assert not ExperimentSpec(Path("/experiment"), editable=("**",)).is_editable("prepare.py")


def test_versions_that_do_the_same_share_a_digest() -> None:
    files = {"train.py": "LR = 0.1\n", "config.yaml": "rate: 1\n"}
    assert digest(files) == digest(dict(reversed(files.items())))
    assert digest(files) == digest(files | {"train.py": "LR = 1e-1  # a comment\n"})
    for other in ({"config.yaml": "rate: 1 # a comment\n"}, {"train.py": "LR = 0.2\n"}, {"more.py": ""}):
        assert digest(files) != digest(files | other)
    assert digest({"a.py": "x = 1"}) != digest({"b.py": "x = 1"})


@pytest.mark.parametrize(
    ("path", "text", "storable"),
    [
        ("train.py", "x = 1\n", True),
        ("model/é.py", "x = 1\n", True),
        ("train.py", "\ud800", False),
        ("train.py", "x" * 300_000, False),
        ("../train.py", "", False),
        ("/train.py", "", False),
        ("model//net.py", "", False),
        ("./train.py", "", False),
        ("", "", False),
        (".git/hooks/x.py", "", False),
        ("model/.GIT/x.py", "", False),
        ("new\nline.py", "", False),
        ("\udcff.py", "", False),
    ],
)
def test_what_git_cannot_store_as_it_is_is_told(path: str, text: str, storable: bool) -> None:  # noqa: FBT001
    assert is_storable({path: text}) is storable
