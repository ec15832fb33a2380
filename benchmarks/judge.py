"""Which rule finds the most: simulated campaigns in which every proposal's true effect is known.

    python benchmarks/judge.py [--repetitions 300] [--processes 2]

A campaign has 288 runs, those of the first baseline and repeats among them; the four fresh ones that its
claim is made from come on top. A proposal is worse with a probability of 0.72, by |N(0, 0.002)|; better with
0.13, by |N(0, 0.0012)| that shrinks as exp(-gain/0.02) while the campaign gains; else it is null, N(0,
0.0001). The rule is told none of this, but its constants were chosen on such campaigns, and the shares that
it expects at first are near these. It is compared with the greedy one, which runs each proposal once and
keeps what prints a lower number. All rules see the same proposals and the same noise. One to two minutes.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import math
import statistics
from collections.abc import Iterable

import numpy as np

from pytest_autoresearch.judging.judge import CONFIDENCE, STRICT, Estimate, GainEstimate, Noise
from pytest_autoresearch.judging.state import JudgePolicy, JudgeState

RUNS = 288
BEGIN = 1.0  # the score at first
FIRST = 3  # runs of the first baseline
FRESH = 2  # of either version, for the claim
NOISES = 0.0001, 0.0003, 0.0007, 0.002, 0.006
FRONTIER = CONFIDENCE, 0.6, 0.8, STRICT
WORSE, BETTER = 0.72, 0.13  # shares of the proposals; the rest is null


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """Of one campaign, or the means of many; gains are positive."""

    gain: float
    claim: float
    nulls: float
    """Null proposals kept."""
    empty: float
    """Those of them that are no better at all."""
    null: float
    """Null proposals tried."""
    proposals: float
    runs: float
    """Spent on proposals."""


class World:
    """What a campaign meets: proposals, and runs that are noisy."""

    def __init__(self, seed: int, noise: float) -> None:
        random = np.random.default_rng(seed)
        self.kinds: list[float] = random.random(RUNS).tolist()
        self.sizes: list[float] = random.normal(size=RUNS).tolist()
        self.errors: list[float] = (noise * random.normal(size=RUNS + 2 * FRESH)).tolist()
        self.spent = self.proposed = self.nulls = 0

    def run(self, score: float) -> float:
        """Measure a version whose true score is known here."""
        self.spent += 1
        return score + self.errors[self.spent - 1]

    def propose(self, score: float) -> tuple[float, bool]:
        """Return the true effect of a proposal on a version of this true score, and whether it is null."""
        kind, size = self.kinds[self.proposed], self.sizes[self.proposed]
        self.proposed += 1
        null = kind >= WORSE + BETTER
        self.nulls += null
        if null:
            return 0.0001 * size, True
        if kind < WORSE:
            return 0.002 * abs(size), False
        return -0.0012 * abs(size) * math.exp(score / 0.02), False


def greedy(seed: int, noise: float) -> Outcome:
    """Run each proposal once and keep what prints a lower number; the gain claimed is what is printed."""
    world = World(seed, noise)
    true = 0.0
    first = best = world.run(BEGIN)
    nulls = empty = 0
    while world.spent < RUNS:
        effect, null = world.propose(true)
        score = world.run(BEGIN + true + effect)
        if score < best:
            true, best = true + effect, score
            nulls, empty = nulls + null, empty + (null and effect >= 0)
    return Outcome(-true, first - best, nulls, empty, world.nulls, world.proposed, world.proposed)


def ours(seed: int, noise: float, confidence: float) -> Outcome:
    """Run a campaign by the shipped rule; its claim is made from fresh runs when all others are spent."""
    world = World(seed, noise)
    first = [world.run(BEGIN) for _ in range(FIRST)]
    known = Noise.of(first)
    standing = JudgeState.opening(JudgePolicy(confidence=confidence), Estimate.of(first, known), known)
    true = 0.0
    nulls = empty = 0
    while world.spent < RUNS:
        effect, null = world.propose(true)
        scores: list[float] = []
        again: list[float] = []
        while (found := standing.judge(scores, again)).action not in ("keep", "discard"):
            if world.spent == RUNS:
                break
            if found.action == "measure candidate":
                scores.append(world.run(BEGIN + true + effect))
            else:
                again.append(world.run(BEGIN + true))
        kept = found.action == "keep"
        standing = standing.after(scores, again, kept=kept)
        if kept:
            true += effect
            nulls, empty = nulls + null, empty + (null and effect >= 0)
    spent = world.spent - FIRST
    before, after = ([world.run(version) for _ in range(FRESH)] for version in (BEGIN, BEGIN + true))
    claim = GainEstimate.of(before, after, standing.noise)
    return Outcome(-true, -claim.gain, nulls, empty, world.nulls, world.proposed, spent)


def simulated(task: tuple[float | None, float], seed: int) -> Outcome:
    """Simulate one campaign, greedy without a confidence."""
    confidence, noise = task
    return greedy(seed, noise) if confidence is None else ours(seed, noise, confidence)


def cells(outcomes: Iterable[Outcome]) -> str:
    """Return the figures of one rule at one noise."""
    every = list(outcomes)
    mean = {
        field.name: statistics.fmean(getattr(outcome, field.name) for outcome in every)
        for field in dataclasses.fields(Outcome)
    }
    gains = [outcome.gain for outcome in every]
    error = statistics.stdev(gains) / math.sqrt(len(gains))
    share, empty = mean["nulls"] / mean["null"], mean["empty"] / mean["null"]
    return (
        f"{mean['gain']:8.4f} ± {error:.4f}  {mean['claim']:8.4f}  {share:10.1%}  {empty:9.1%}"
        f"  {mean['runs'] / mean['proposals']:13.2f}"
    )


def main() -> None:
    """Print one line for each rule and noise."""
    parser = argparse.ArgumentParser(description="the rules of judging, on simulated campaigns")
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    seeds = range(max(arguments.repetitions, 2))
    print("rule                  noise      true gain     claimed  nulls kept  no better  runs/proposal")
    with concurrent.futures.ProcessPoolExecutor(arguments.processes) as pool:
        for confidence in (None, *FRONTIER):
            name = "greedy" if confidence is None else f"confidence {confidence}"
            for noise in NOISES:
                campaign = functools.partial(simulated, (confidence, noise))
                print(
                    f"{name:<18}  {noise:7.4f}  {cells(pool.map(campaign, seeds, chunksize=10))}", flush=True
                )


if __name__ == "__main__":
    main()
