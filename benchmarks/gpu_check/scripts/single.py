"""A pytest plugin that measures an experiment's committed script once, and neither judges nor stores it.

    pytest -p single experiment/train.py::baseline

The run is the one that a campaign makes: same sandbox, same environment, same scorer, a tenth of the rows
probed. Its output is passed on as it comes.
"""

from __future__ import annotations

import json

import pytest

from pytest_autoresearch.executors.base import RunFailure, RunRequest
from pytest_autoresearch.judging.rules import Always
from pytest_autoresearch.plugin.experiment import EXPERIMENT


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Take the place of the item."""
    experiment = session.stash[EXPERIMENT]  # opened by the package's own hook, around this one
    request = RunRequest("candidate", experiment.files, 1, Always(answer=False))
    try:
        found = experiment.executor.submit(request, print).result().result
    except Exception as error:  # noqa: BLE001 - any error is what the check is to find
        found = RunFailure("crashed", f"{type(error).__name__}: {error}")
    if isinstance(found, RunFailure):
        print("MEASURED", json.dumps({"failed": f"{found.kind}: {found.reason}"}))
    else:
        print("MEASURED", json.dumps(found.to_json()))
    return True
