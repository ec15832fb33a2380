"""The lines at the top of a session that runs the experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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


def header(settings: Settings) -> list[str]:
    """Return what is known before ``prepare.py`` has run: the experiment, and the sandbox."""
    spec = settings.spec
    goal = {"minimize": "lower", "maximize": "higher"}[spec.direction]
    experiment = f"experiment: {spec.folder.name}/{spec.script}, {spec.metric}, {goal} is better"
    return [experiment, SANDBOXES[settings.runs.enforcer]]
