"""What these tests share."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from pytest_autoresearch.errors import SandboxUnavailable
from pytest_autoresearch.sandbox import enforcers
from pytest_autoresearch.system import temporary
from tests.agents.command.bench import Bench
from tests.project import Project


@pytest.fixture
def bench(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(project, tmp_path)
    with temporary.folder("before"):  # so that this process's own folder does not lie in the bench's
        pass
    monkeypatch.setattr(tempfile, "tempdir", str(bench.scratch))
    return bench


@pytest.fixture(params=["bwrap", "landlock"])
def enforcer(request: pytest.FixtureRequest) -> str:
    try:
        return enforcers.choose(request.param)
    except SandboxUnavailable as reason:
        pytest.skip(str(reason))
