"""How the judge's rule performs on a real landscape, with the tuner as the agent.

    python benchmarks/landscape.py [--runs 96] [--repetitions 10]

The landscape is that of ``surface.py``. Each run adds normal noise; identical runs of the study differ by
0.0001 to 0.0007. All rules have the same seeds and the same number of runs. *upstream* runs a proposal once,
keeps it if its score is lower, and claims the difference of the scores. The others are the shipped rule.
They use three runs for the first baseline, and claim the difference of two fresh runs of the start and two of
the last incumbent, which are not counted. Takes a few minutes on two cores.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import functools
import itertools
import math
import statistics
from typing import NamedTuple

from pytest_autoresearch.agents.tuner.agent import Tuner
from pytest_autoresearch.judging.judge import CONFIDENCE
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.trial import Trial
from pytest_autoresearch.source import constants
from surface import DEVICE, Runs, Shipped, briefing, landscape

# Upstream's constants. The tuner's own ranges, cut where the study has no data.
START = """\
from prepare import MAX_SEQ_LEN

DEPTH = 8
ASPECT_RATIO = 64  # tune: 32..128
HEAD_DIM = 128  # tune: 64..256
DEVICE_BATCH_SIZE = 128  # tune: 32..256
TOTAL_BATCH_SIZE = 2**19
EMBEDDING_LR = 0.6  # tune: 0.15..2.0
UNEMBEDDING_LR = 0.004
MATRIX_LR = 0.04
SCALAR_LR = 0.5
WEIGHT_DECAY = 0.2  # tune: 0.05..0.5
WARMUP_RATIO = 0.0  # tune: 0.0..0.3
WARMDOWN_RATIO = 0.5  # tune: 0.1..0.8
FINAL_LR_FRAC = 0.0  # tune: 0.0..0.2
WINDOW_PATTERN = "SSSL"  # tune: "SSSL" | "SSLL" | "SLSL" | "LLLL" | "SSSS" | "LSSL"

assert TOTAL_BATCH_SIZE % (DEVICE_BATCH_SIZE * MAX_SEQ_LEN) == 0
"""
NOISES = 0.0003, 0.0007, 0.002  # of identical runs
RULES = {"upstream": None, "shipped": CONFIDENCE, "shipped, 0.95": 0.95}  # with their confidence


class Upstream:
    """One run each, and what is lower is kept."""

    noise = 0.0

    def __init__(self, runs: Runs, start: float) -> None:
        self._runs = runs
        self.believed = self._first = runs.of(start)

    def decide(self, true: float) -> tuple[bool, list[float]]:
        """Run a proposal; return whether it is kept, and its scores."""
        score = self._runs.of(true)
        kept, self.believed = score < self.believed, min(score, self.believed)
        return kept, [score]

    def claim(self, *_: float) -> float:
        """Return the gain that is told: what was seen on the way."""
        return self._first - self.believed


class Outcome(NamedTuple):
    """What one campaign came to."""

    gain: float
    """Of the true score."""
    claimed: float
    proposals: int
    failed: int
    """Of the proposals, those that ran out of memory."""
    kept: int
    false: int
    """Of the kept, those that are truly worse than what they replaced."""


def campaign(repetition: int, confidence: float | None, noise: float, budget: int) -> Outcome:
    """Let the tuner propose, and a rule decide, until the runs are spent."""
    runs = Runs(noise, repetition, budget)
    start = true = landscape().score(constants.values(START, DEVICE))
    rule = Upstream(runs, start) if confidence is None else Shipped(runs, start, confidence)
    script, history, false = START, [], 0
    while runs.left:
        score, known_noise = rule.believed, rule.noise
        told = briefing(
            f"landscape-{repetition}", script, history, start=START, score=score, noise=known_noise
        )
        proposal = Tuner().propose(told)
        if proposal is None:
            break
        known = constants.values(proposal.files["train.py"], DEVICE)
        score = landscape().score(known)
        if math.isnan(score):
            runs.left -= 1
            verdict, scores = "out of memory", []
        else:
            kept, scores = rule.decide(score)
            verdict = "kept" if kept else "discarded"
        if verdict == "kept":
            false += score > true
            script, true = proposal.files["train.py"], score
        measurements = tuple(Measurement(one, seed=0, wall_seconds=300) for one in scores)
        number, text, before = told.number, proposal.description, told.score
        history.append(Trial(number, text, verdict, "", "", "", before, measurements, constants=known))
    verdicts = collections.Counter(trial.verdict for trial in history)
    claimed = rule.claim(start, true)
    return Outcome(start - true, claimed, len(history), verdicts["out of memory"], verdicts["kept"], false)


def main() -> None:
    """Print how good the landscape is, then one line for each rule and noise."""
    parser = argparse.ArgumentParser(description="the rule that judges, on a real landscape")
    parser.add_argument("--runs", type=int, default=96, help="of each campaign, all counted")
    parser.add_argument("--repetitions", type=int, default=10)
    options = parser.parse_args()
    landscape().validate()
    start = landscape().score(constants.values(START, DEVICE))
    print(f"\nstart {start:.4f}, best measured {landscape().best:.4f}; {options.runs} runs a campaign")
    print(f"means of {options.repetitions} campaigns ± standard error; gains in val_bpb")
    print("noise   rule           true gain          claimed   proposals  failed  kept  truly worse")
    with concurrent.futures.ProcessPoolExecutor() as pool:
        for noise, (title, confidence) in itertools.product(NOISES, RULES.items()):
            one = functools.partial(campaign, confidence=confidence, noise=noise, budget=options.runs)
            outcomes = list(pool.map(one, range(options.repetitions)))
            print(line(f"{noise:.4f}  {title:<13}", outcomes), flush=True)


def line(title: str, outcomes: list[Outcome]) -> str:
    """Return the means of the same rule's campaigns."""
    gain, *others = zip(*outcomes, strict=True)
    error = statistics.stdev(gain) / math.sqrt(len(gain)) if len(gain) > 1 else math.nan
    claimed, proposals, failed, kept, false = map(statistics.fmean, others)
    return (
        f"{title}  {statistics.fmean(gain):.5f} ± {error:.5f}  {claimed:.5f}"
        f"  {proposals:>9.1f}  {failed:>6.1f}  {kept:>4.1f}  {false:>11.1f}"
    )


if __name__ == "__main__":
    main()
