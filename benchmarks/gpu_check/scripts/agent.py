"""An agent with proposals that are sure to be discarded after one run: nothing is learned at such rates.

It is the conftest.py of the check's campaign, whose length is thereby known: three runs of the baseline, and
one of each trial.
"""

from __future__ import annotations

import re

from pytest_autoresearch import Proposal
from pytest_autoresearch.agents.briefing import Briefing


def pytest_autoresearch_propose(briefing: Briefing) -> Proposal:
    """Set every learning rate to next to nothing, to another value in each trial."""
    rate = f"{briefing.number}e-9"
    script, count = re.subn(r"(?m)^(\w+_LR) = [^\s#]+", rf"\1 = {rate}", briefing.script)
    assert count, "train.py has no learning rates by that name any more"
    return Proposal({briefing.script_name: script}, f"all learning rates {rate}")
