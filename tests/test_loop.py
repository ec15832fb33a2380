"""``pytest --autoresearch`` keeps what improves and drops the rest."""

from __future__ import annotations

from tests.project import Project

GAIN = ("LR = 0.04", "LR = 0.05")
LOSS = ("LR = 0.05", "LR = 0.09")
ONE_MORE = ("BATCH = 64", "BATCH = 32")


def test_gains_are_committed_and_the_rest_is_dropped(project: Project) -> None:
    session = project.proposes(GAIN, LOSS, ONE_MORE).research()
    session.exits(0).decides("kept", "discarded", "kept").leaves_clean()
    session.shows("::baseline PASSED", "KEPT (", "DISCARDED (", "KEPT (", "3 trials: 2 kept, 1 discarded")
    session.counts("1 passed, 2 kept, 1 discarded")
