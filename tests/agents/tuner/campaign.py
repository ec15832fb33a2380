"""Campaigns of the tuner that measure nothing."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pytest_autoresearch.agents.briefing import Briefing
from pytest_autoresearch.agents.tuner.agent import Tuner
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.proposal import Proposal
from pytest_autoresearch.records.trial import Trial, Value, Verdict
from pytest_autoresearch.source import constants

SCRIPT = """\
\"\"\"A GPT in one file, cut down to its constants — ä, é.\"\"\"

import torch
from prepare import MAX_SEQ_LEN, TIME_BUDGET, evaluate_bpb, per_device

DEPTH = per_device(cuda=8, cpu=4)  # layers
ASPECT_RATIO = 64  # width = DEPTH * ASPECT_RATIO
HEAD_DIM = per_device(cuda=128, cpu=32)
WINDOW_PATTERN = per_device(cuda="SSSL", cpu="L")  # S = half context, L = full

TOTAL_BATCH_SIZE = per_device(cuda=2**19, cpu=2**12)  # tokens per optimizer step
DEVICE_BATCH_SIZE = per_device(cuda=128, cpu=16)  # rows per forward pass
EMBEDDING_LR = 0.6
UNEMBEDDING_LR = 0.004
MATRIX_LR = 0.04  # Muon
SCALAR_LR = 0.5
WEIGHT_DECAY = 0.2
ADAM_BETAS = (0.8, 0.95)
WARMUP_RATIO = 0.0  # of the time budget
WARMDOWN_RATIO = 0.5
FINAL_LR_FRAC = 0.0
SOFTCAP = 15.0
SEED = 42

rows = min(DEVICE_BATCH_SIZE, TOTAL_BATCH_SIZE // MAX_SEQ_LEN)
assert rows > 0
assert TOTAL_BATCH_SIZE % (rows * MAX_SEQ_LEN) == 0, "whole batches only"
model_dim = DEPTH * ASPECT_RATIO
assert model_dim % HEAD_DIM == 0
"""


FIXED = """\
def per_device(*, cuda, cpu):
    return cuda if torch.cuda.is_available() else cpu
MAX_SEQ_LEN = per_device(cuda=2048, cpu=256)
"""


SIZES = ["DEPTH", "ASPECT_RATIO", "HEAD_DIM", "TOTAL_BATCH_SIZE", "DEVICE_BATCH_SIZE"]
RATES = ["EMBEDDING_LR", "UNEMBEDDING_LR", "MATRIX_LR", "SCALAR_LR", "WEIGHT_DECAY"]
SHARES = ["WARMUP_RATIO", "WARMDOWN_RATIO", "FINAL_LR_FRAC"]
TUNED = [*SIZES, *RATES, "ADAM_BETAS[0]", "ADAM_BETAS[1]", *SHARES, "SOFTCAP"]
Device = Literal["cuda", "cpu"]
Objective = Callable[[Mapping[str, Value]], float | None]
Agent = Callable[[Briefing], Proposal | None]
propose = Tuner().propose


def brief(
    script: str = SCRIPT,
    history: Sequence[Trial] = (),
    *,
    start: str = "",
    device: Device = "cpu",
    number: int = 0,
    tag: str = "test",
    direction: Literal["minimize", "maximize"] = "minimize",
) -> Briefing:
    return Briefing(
        tag=tag,
        number=number or len(history) + 1,
        program="",
        fixed=FIXED,
        files={"train.py": script},
        start_files={"train.py": start or script},
        script_name="train.py",
        history=history,
        score=2.0,
        noise=0.001,
        metric="val_bpb",
        direction=direction,
        platform={"device": device},
    )


def entry(
    number: int, known: Mapping[str, Value], score: float | None = 2.0, verdict: Verdict = "discarded"
) -> Trial:
    measurements = () if score is None else (Measurement(score, seed=0, wall_seconds=1.0),)
    return Trial(number, "", verdict, "", "", "", 2.0, measurements, known)


@dataclasses.dataclass
class Campaign:
    """What a loop without git and noise-aware judging makes of an agent."""

    script: str
    best: float
    history: list[Trial]
    proposals: list[Proposal]
    incumbents: list[str]


def campaign(
    objective: Objective,
    trials: int,
    *,
    agent: Agent = propose,
    device: Device = "cpu",
    script: str = SCRIPT,
    tag: str = "test",
    direction: Literal["minimize", "maximize"] = "minimize",
    failure: Verdict = "crashed",
) -> Campaign:
    sign = 1 if direction == "minimize" else -1
    best = objective(constants.values(script, device))
    assert best is not None
    run = Campaign(script, best, [], [], [])
    for number in range(1, trials + 1):
        briefing = brief(run.script, run.history, start=script, device=device, tag=tag, direction=direction)
        proposal = agent(dataclasses.replace(briefing, number=number))
        if proposal is None:
            break
        known = constants.values(proposal.files["train.py"], device)
        score = objective(known)
        kept = score is not None and sign * score < sign * run.best
        verdict: Verdict = failure if score is None else "kept" if kept else "discarded"
        run.proposals.append(proposal)
        run.incumbents.append(run.script)
        run.history.append(
            dataclasses.replace(entry(number, known, score, verdict), incumbent_score=run.best)
        )
        if score is not None and kept:
            run.script, run.best = proposal.files["train.py"], score
    return run


def bowl(known: Mapping[str, Value], device: Device = "cpu", seed: int = 0) -> float:
    """Return a quadratic in the octaves of every constant, its optimum near the start and seeded."""
    start = constants.values(SCRIPT, device)
    rng, total = random.Random(seed), 1.0
    for name in TUNED:
        shift, weight = rng.gauss(0, 0.6), rng.lognormvariate(-3.0, 1.0)
        value, origin = (float(at[name]) for at in (known, start))
        if name in SHARES:
            distance = 2 * (value - origin)
        elif name.startswith("ADAM"):
            distance = math.log2((1 - value) / (1 - origin))
        else:
            distance = math.log2(value / origin)
        total += weight * (distance - shift) ** 2
    return total


@functools.cache
def forty(device: Device) -> Campaign:
    return campaign(functools.partial(bowl, device=device), 40, device=device)


def varied(name: str, value: Value, rng: random.Random) -> Value:
    if isinstance(value, str) or name == "SEED":
        return value
    return value * 2 if isinstance(value, int) else round(max(value, 0.1) * rng.uniform(0.5, 1.02), 4)


def first(briefing: Briefing) -> str:
    proposal = propose(briefing)
    assert proposal is not None
    return proposal.description.split()[0]
