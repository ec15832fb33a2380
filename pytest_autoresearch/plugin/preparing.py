"""What is on the screen while an experiment prepares itself."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_autoresearch.errors import RepositoryError, RunFailed, StorageError
from pytest_autoresearch.plugin.progress import LiveLine
from pytest_autoresearch.runs.experiment import KEY, Experiment
from pytest_autoresearch.sandbox import gpus
from pytest_autoresearch.system.text import single_line

if TYPE_CHECKING:
    from pytest_autoresearch.records.measurement import Trust
    from pytest_autoresearch.settings import Settings

PROGRESS = re.compile(r"\d%\|")  # a bar: it is going to be overwritten


TRUST: dict[Trust, str] = {
    "sealed": "trust: sealed, {metric} is computed outside the run",
    "reported": "trust: reported, {metric} is what the script prints",
}


@contextlib.contextmanager
def opened_experiment(
    session: pytest.Session, settings: Settings, revision: str = "HEAD"
) -> Iterator[Experiment]:
    """Open the experiment for the session's items; its ``prepare.py`` may have to fetch data first.

    What it says is shown; how far it is, on the live line. If it fails, the session ends with exit code 1.
    """
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    described = False
    with LiveLine(session.config, "prepare.py") as live:

        def show(line: str) -> None:
            nonlocal described
            described = described or line.strip() == "---"
            if PROGRESS.search(line):
                live.update(line)
            elif reporter is not None and reporter.verbosity >= 0 and not described and line.strip():
                reporter.write_line(f"prepare.py: {single_line(line)}")

        try:
            session.stash[KEY] = experiment = Experiment.of(settings, show, revision)
            experiment.start_scorer()
        except (RunFailed, RepositoryError, StorageError) as error:
            reason = f"prepare.py failed, {error}" if isinstance(error, RunFailed) else str(error)
            pytest.exit(reason, returncode=pytest.ExitCode.TESTS_FAILED)
    if reporter is not None and reporter.verbosity >= 0:
        reporter.write_line(TRUST[experiment.trust].format(metric=settings.metric))
        if experiment.no_gpu and (line := gpus.unused(experiment.no_gpu, os.environ)):
            reporter.write_line(line)
        if copies := experiment.conditions.copies:  # else nobody would know why something cannot be read
            more = f" and {len(copies) - 1} more" * (len(copies) > 1)
            reporter.write_line(f"hidden: copies of held-out data, {single_line(str(copies[0]))}{more}")
    try:
        yield experiment
    finally:
        experiment.close()
