"""A proposal that does what was tried before is refused without a run."""

from __future__ import annotations

import pytest

from tests.project import SCRIPT, Project

DRAWING = SCRIPT.replace(
    "\nBATCH",
    """
import random

SEED = 1
random.seed(SEED)


def height(rate):
    \"\"\"Of the loss.\"\"\"
    return abs(rate - 0.06) + 0 * random.random()


BATCH""",
    1,
).replace("abs(LR - 0.06)", "height(LR)")
WORSE = ("LR = 0.05", "LR = 0.09")
EDITS = (
    ("SEED = 1", "SEED = 7"),
    ("LR = 0.04  # learning rate", "LR = 0.04  # the rate"),
    ("rate", "speed"),
    ("Of the loss.", "How high the loss is."),
    ("SEED = 1", "SEED = 7  # a lucky one"),
    ("LR = 0.04", "LR = 0.05"),
    WORSE,
    ("LR = 0.05", "LR   =   9e-2 "),
    ("LR = 0.05", "LR = 0.04"),
)
REASONS = (
    "no experiment: only seeds changed",
    "no experiment: only layout and comments changed",
    "no experiment: only names changed",
    "no experiment: only docstrings changed",
    "no experiment: only seeds changed",
    "KEPT (0.9700",
    "DISCARDED (0.9900",
    "the same script as trial 7",
    "the same script as at the start",
)


@pytest.fixture
def drawing(pytester: pytest.Pytester) -> Project:
    """Return a scratch project whose script has a seed, names and a docstring."""
    return Project(pytester, script=DRAWING)


def test_what_is_no_experiment_is_refused_without_a_run(drawing: Project) -> None:
    session = drawing.proposes(*EDITS).research().exits(0).shows(*REASONS).leaves_clean()
    verdicts = ["refused"] * 5 + ["kept", "discarded"] + ["refused"] * 2
    session.decides(*verdicts)
    assert [bool(entry["measurements"]) for entry in drawing.ledger()] == [
        verdict != "refused" for verdict in verdicts
    ]
    logs = drawing.path / ".autoresearch" / "t" / "logs"
    assert sorted(log.name for log in logs.iterdir()) == ["0006.log", "0007.log"]
    # A campaign that goes on has forgotten nothing of it.
    (logs.parent / "ledger.jsonl").unlink()
    drawing.proposes(*EDITS, WORSE, ("LR = 0.05", "LR = 0.04 # again"))
    session = drawing.research().exits(0).decides(*verdicts, "refused", "refused")
    session.shows("REFUSED (the same script as trial 7)", "REFUSED (the same script as at the start)")


def test_a_change_that_counts_is_run(drawing: Project) -> None:
    drawing.proposes(("SEED = 1", "SEED = 7\nLR = 0.05")).research().exits(0).decides("kept")
