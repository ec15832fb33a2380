"""What the project's own tests share."""

from __future__ import annotations

import pytest

from tests.project import Project

pytest_plugins = ["pytester"]


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    """Return a scratch project with an experiment that takes milliseconds."""
    return Project(pytester)
