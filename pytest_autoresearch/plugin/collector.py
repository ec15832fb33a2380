"""The experiment's script as a test file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_autoresearch.plugin.baseline import BaselineItem
from pytest_autoresearch.plugin.candidate import CandidateItem
from pytest_autoresearch.plugin.items import ExperimentItem
from pytest_autoresearch.plugin.options import SETTINGS
from pytest_autoresearch.plugin.replay import STORED_TRIAL, ReplayItem


class ExperimentFile(pytest.File):
    """``experiment/train.py``: never imported, only run."""

    def collect(self) -> Iterator[ExperimentItem]:
        """Yield the items ``baseline`` and ``candidate``, or a replay; trials come one by one."""
        if self.config.stash[SETTINGS].replay is not None:
            stored = self.config.stash[STORED_TRIAL]
            yield ReplayItem.from_parent(self, name=f"replay[{stored.name}]", stored=stored)
            return
        yield BaselineItem.from_parent(self, name="baseline")
        yield CandidateItem.from_parent(self, name="candidate")
