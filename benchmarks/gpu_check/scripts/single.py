"""A pytest plugin that measures an experiment's committed script once, and neither judges nor stores it.

    pytest -p single experiment/train.py::baseline

The run is the one that a campaign makes: same sandbox, same environment, same scorer, a tenth of the rows
probed. Its output is passed on as it comes.
"""

from __future__ import annotations

import json

import pytest

from pytest_autoresearch.runs.experiment import KEY


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Take the place of the item."""
    experiment = session.stash[KEY]  # opened by the package's own hook, around this one
    try:
        measured = experiment.measure(
            experiment.script(),
            seed=1,
            limit=experiment.limit,
            thorough=lambda _score: False,
            log=None,
            on_line=print,
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was to be found out
        print("MEASURED", json.dumps({"failed": f"{type(error).__name__}: {error}"}))
    else:
        print("MEASURED", json.dumps(measured.to_json()))
    return True
