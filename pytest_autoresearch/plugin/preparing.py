"""What is on the screen while an experiment prepares itself."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_autoresearch.errors import FAILED, RepositoryError, RunError, RunFailed, StorageError
from pytest_autoresearch.plugin.experiment import EXPERIMENT, Experiment
from pytest_autoresearch.plugin.header import TRUST
from pytest_autoresearch.plugin.progress import LiveLine
from pytest_autoresearch.plugin.translation import end
from pytest_autoresearch.sandbox import gpus
from pytest_autoresearch.text import single_line

if TYPE_CHECKING:
    import pytest

    from pytest_autoresearch.settings import Settings

PROGRESS = re.compile(r"\d%\|")  # a bar: it is going to be overwritten


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
            session.stash[EXPERIMENT] = experiment = Experiment.open(settings, show, revision)
        except RunFailed as error:
            end(RunError(f"prepare.py failed, {error}"))
        except (RepositoryError, StorageError) as error:
            end(error, exit_code=FAILED)
    site = experiment.site
    if reporter is not None and reporter.verbosity >= 0:
        reporter.write_line(TRUST[site.trust].format(metric=settings.spec.metric))
        if site.no_gpu and (line := gpus.unused(site.no_gpu, os.environ)):
            reporter.write_line(line)
        if copies := site.copies:  # else nobody would know why something cannot be read
            more = f" and {len(copies) - 1} more" * (len(copies) > 1)
            reporter.write_line(f"hidden: copies of held-out data, {single_line(str(copies[0]))}{more}")
    try:
        yield experiment
    finally:
        experiment.close()
