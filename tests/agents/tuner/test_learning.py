"""The tuner learns from verdicts, and beats chance."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from typing import Literal

import pytest

from pytest_autoresearch.agents.briefing import Briefing
from pytest_autoresearch.records.proposal import Proposal
from pytest_autoresearch.records.trial import Value, Verdict
from pytest_autoresearch.source import constants
from tests.agents.tuner.campaign import (
    FIXED,
    SCRIPT,
    SHARES,
    SIZES,
    TUNED,
    Objective,
    bowl,
    brief,
    campaign,
    entry,
    propose,
    varied,
)


def test_every_verdict_is_told() -> None:
    start = constants.values(SCRIPT, "cpu")
    rng = random.Random(0)
    verdicts: list[Verdict] = ["kept", "discarded", "crashed", "out of memory", "timeout", "refused"]
    history = [
        entry(number, {name: varied(name, value, rng) for name, value in start.items()}, 2.0, verdict)
        for number, verdict in enumerate(verdicts * 5, start=1)
    ]
    history.append(entry(31, {}, None, "refused"))
    history.append(entry(32, {"DEPTH": "a word", "SOFTCAP": -1.0, "ADAM_BETAS[0]": True}, 1.0))
    assert propose(brief(history=history)) is not None


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_it_beats_chance(direction: Literal["minimize", "maximize"]) -> None:
    sign = 1 if direction == "minimize" else -1
    gains: dict[str, float] = {}
    for name, agent in (("tuner", propose), ("chance", chance)):
        gains[name] = 0
        for seed in range(3):
            noise = random.Random(seed)
            landscape = functools.partial(bowl, seed=seed)

            def noisy(
                known: Mapping[str, Value],
                landscape: Objective = landscape,
                noise: random.Random = noise,
            ) -> float:
                return sign * ((landscape(known) or 0) + noise.gauss(0, 0.002))

            run = campaign(noisy, 50, agent=agent, tag=f"seed {seed}", direction=direction)
            left = landscape(constants.values(run.script, "cpu")) - 1
            gains[name] += 1 - left / (landscape(constants.values(SCRIPT, "cpu")) - 1)
    assert gains["tuner"] / 3 > 0.5, "of what there is to gain"
    assert gains["chance"] / 3 < 0.25


def chance(briefing: Briefing) -> Proposal | None:
    """Propose every constant anew, by chance in the tuner's own ranges."""
    rng = random.Random(f"{briefing.tag} {briefing.number}")
    known = constants.values(briefing.start, "cpu")
    while True:
        texts = {name: drawn(name, float(known[name]), rng) for name in TUNED}
        source = constants.replace(briefing.script, texts, "cpu")
        if constants.broken_assert(source, "cpu", FIXED) is None:
            return Proposal({"train.py": source}, "")


def drawn(name: str, origin: float, rng: random.Random) -> str:
    if name in SHARES:
        return repr(round(rng.random(), 3))
    if name.startswith("ADAM"):
        return repr(round(1 - min(1, (1 - origin) * 4 ** rng.uniform(-1, 1)), 4))
    if name == "DEPTH":
        return repr(rng.randint(2, 8))
    if name in SIZES:
        return repr(int(origin * 2.0 ** rng.randint(-2, 2)))
    return repr(round(origin * 4 ** rng.uniform(-1, 1), 5))
