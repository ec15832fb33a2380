"""What is on the screen while an experiment prepares itself: the header, and what ``prepare.py`` says."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_autoresearch.errors import FAILED, AutoresearchError, RepositoryError, RunFailed, StorageError
from pytest_autoresearch.plugin.experiment import EXPERIMENT, Experiment
from pytest_autoresearch.plugin.progress import LiveLine, say
from pytest_autoresearch.plugin.translation import end
from pytest_autoresearch.sandbox import gpus
from pytest_autoresearch.text import single_line

if TYPE_CHECKING:
    import pytest

    from pytest_autoresearch.records.measurement import Trust
    from pytest_autoresearch.sandbox.policy import Enforcer
    from pytest_autoresearch.settings import Settings

SANDBOXES: dict[Enforcer, str] = {
    "bwrap": "sandbox: bwrap, a run sees its own folder, and no network",
    "landlock": "sandbox: landlock, a run sees its own folder, and no network",
    "none": "sandbox: NONE! A run can read and change whatever you can, the validation data too",
}
TRUST: dict[Trust, str] = {
    "sealed": "trust: sealed, {metric} is computed outside the run",
    "reported": "trust: reported, {metric} is what the script prints",
}
PROGRESS = re.compile(r"\d%\|")  # a bar: it is going to be overwritten


def header(settings: Settings) -> list[str]:
    """Return what is known before ``prepare.py`` has run: the experiment, and the sandbox."""
    spec = settings.spec
    goal = {"minimize": "lower", "maximize": "higher"}[spec.direction]
    experiment = f"experiment: {spec.folder.name}/{spec.script}, {spec.metric}, {goal} is better"
    return [experiment, SANDBOXES[settings.enforcer]]


@contextlib.contextmanager
def opened_experiment(
    session: pytest.Session, settings: Settings, revision: str = "HEAD"
) -> Iterator[Experiment]:
    """Open the experiment for the session's items; its ``prepare.py`` may have to fetch data first.

    What it says is shown; how far it is, on the live line. If it fails, the session ends with exit code 1.
    """
    config, described = session.config, False
    with LiveLine(config, "prepare.py") as live:

        def show(line: str) -> None:
            nonlocal described
            described = described or line.strip() == "---"
            if PROGRESS.search(line):
                live.update(line)
            elif not described and line.strip():
                say(config, f"prepare.py: {single_line(line)}")

        try:
            session.stash[EXPERIMENT] = experiment = Experiment.open(settings, show, revision)
        except RunFailed as error:
            end(AutoresearchError(f"prepare.py failed, {error}"))
        except (RepositoryError, StorageError) as error:
            end(error, exit_code=FAILED)
    site = experiment.site
    say(config, TRUST[site.trust].format(metric=settings.spec.metric))
    if site.no_gpu and (line := gpus.unused(site.no_gpu, os.environ)):
        say(config, line)
    if copies := site.copies:  # else nobody would know why something cannot be read
        more = f" and {len(copies) - 1} more" * (len(copies) > 1)
        say(config, f"hidden: copies of held-out data, {single_line(str(copies[0]))}{more}")
    try:
        yield experiment
    finally:
        experiment.executor.close()
