"""What the project's own tests share."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.project import Project

pytest_plugins = ["pytester"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests, so that no worker is alone with one of them in the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    """Return a scratch project with an experiment that takes milliseconds."""
    return Project(pytester)


@pytest.fixture
def campaign(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return the project with campaign t: a trial that was kept, one that was discarded, and one to come.

    It is researched once, and copied from then on.
    """
    first = tmp_path_factory.getbasetemp() / "campaign"
    if not first.exists():
        project.proposes(
            ("LR = 0.04", "LR = 0.05"), ("BATCH = 64", "BATCH = 128"), ("LR = 0.05", "LR = 0.06")
        )
        (project.path / ".git" / "info" / "exclude").write_text("results.tsv\n")
        project.research("--autoresearch-trials=2").exits(0).decides("kept", "discarded")
        shutil.copytree(project.path, first, symlinks=True)
    else:
        shutil.rmtree(project.path)
        shutil.copytree(first, project.path, symlinks=True)
        os.chdir(project.path)  # pytester's own folder is a new one now
    return project
