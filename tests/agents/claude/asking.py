"""How Claude is asked in these tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pytest_autoresearch.agents.briefing import Briefing
from pytest_autoresearch.agents.claude.agent import Claude
from pytest_autoresearch.errors import NoAnswer
from pytest_autoresearch.records.trial import Trial
from pytest_autoresearch.source.files import digest
from tests.anthropic_server import KEY

SCRIPT = """\
LR = 0.04
BATCH = 64
assert BATCH % 2 == 0
print(f"val_bpb: {LR * BATCH}")
"""


MENDED = SCRIPT.replace("0.04", "0.05")
Make = Callable[..., Claude]


def brief(history: Sequence[Trial] = (), **changed: Any) -> Briefing:
    briefing = Briefing(
        tag="t",
        number=len(history) + 1,
        program="Lower val_bpb.\n",
        fixed="TIME_BUDGET = 1\n",
        files={"train.py": SCRIPT},
        start_files={"train.py": SCRIPT},
        script_name="train.py",
        history=history,
        score=2.56,
        noise=0.01,
        metric="val_bpb",
        direction="minimize",
        platform={"device": "cpu"},
    )
    return dataclasses.replace(briefing, **changed)


def refused(claude: Claude, briefing: Briefing | None = None) -> NoAnswer:
    with pytest.raises(NoAnswer) as caught:
        claude.propose(briefing or brief())
    assert KEY not in str(caught.value)
    return caught.value


def entry(number: int, source: str = "") -> Trial:
    known = digest({"train.py": source})
    return Trial(number, "a try", "discarded", "no better", "c" * 40, "b" * 40, 2.0, digest=known)
