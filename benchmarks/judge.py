"""Which rule of judging gains most, on simulated campaigns with known true effects.

    python benchmarks/judge.py [--repetitions 300] [--processes 2]

A campaign has 288 runs, including the first baseline and all repeats. Its claim takes four fresh runs more. A
proposal is worse with a probability of 0.72, by |N(0, 0.002)|; better with 0.13, by |N(0, 0.0012)| times
exp(-gain/0.02), so that improvements shrink as the campaign gains; else it is null, N(0, 0.0001). The
shipped rule is not told these figures, but its constants were chosen on such campaigns, and its prior is
close to them. The greedy rule runs each proposal once and keeps every lower score. All rules see the same
proposals and the same noise. Takes one to two minutes.
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

from pytest_autoresearch.executors.base import RunOutcome, RunRequest
from pytest_autoresearch.judging.judge import CONFIDENCE, STRICT, JudgePolicy, JudgeState
from pytest_autoresearch.judging.noise import Estimate, Noise, gain_and_margin
from pytest_autoresearch.loop.trial import TrialSetup, TrialTask
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.proposal import Proposal
from pytest_autoresearch.records.trial import Decision

RUNS = 288
START = 1.0  # the first true score
BASELINE_RUNS = 3
CLAIM_RUNS = 2  # of each version
NOISES = 0.0001, 0.0003, 0.0007, 0.002, 0.006
CONFIDENCES = CONFIDENCE, 0.6, 0.8, STRICT
PROPOSAL = Proposal({}, "a change")  # only its effect matters
WORSE, BETTER = 0.72, 0.13  # shares of the proposals; the rest is null


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """One campaign, or the means of many; gains are positive."""

    gain: float
    claim: float
    nulls: float
    """Null proposals kept."""
    empty: float
    """Of these, the proposals that are no improvement."""
    null: float
    """Null proposals tried."""
    proposals: float
    runs: float
    """Spent on proposals."""


class World:
    """Proposals, and noisy runs of them."""

    def __init__(self, seed: int, noise: float) -> None:
        random = np.random.default_rng(seed)
        self.kinds: list[float] = random.random(RUNS).tolist()
        self.sizes: list[float] = random.normal(size=RUNS).tolist()
        self.errors: list[float] = (noise * random.normal(size=RUNS + 2 * CLAIM_RUNS)).tolist()
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
    """Run each proposal once and keep every lower score; the claimed gain is that of the scores."""
    world = World(seed, noise)
    true = 0.0
    first = best = world.run(START)
    nulls = empty = 0
    while world.spent < RUNS:
        effect, null = world.propose(true)
        score = world.run(START + true + effect)
        if score < best:
            true, best = true + effect, score
            nulls, empty = nulls + null, empty + (null and effect >= 0)
    return Outcome(-true, first - best, nulls, empty, world.nulls, world.proposed, world.proposed)


def ours(seed: int, noise: float, confidence: float) -> Outcome:
    """Run a campaign by the shipped rule; its claim is made from fresh runs."""
    world = World(seed, noise)
    first = [world.run(START) for _ in range(BASELINE_RUNS)]
    known = Noise.of(first)
    state = JudgeState.initial(JudgePolicy(confidence=confidence), Estimate.of(first, known), known)
    true = 0.0
    nulls = empty = 0
    while world.spent < RUNS:
        effect, null = world.propose(true)
        trial = TrialTask(TrialSetup(PROPOSAL, {}, state), lambda: 0)
        while isinstance(step := trial.next(), RunRequest) and world.spent < RUNS:
            score = world.run(START + true + (effect if step.role == "candidate" else 0))
            trial.feed(RunOutcome(Measurement(score, step.seed, 0.0), 0.0, 0.0))
        kept = isinstance(step, Decision) and step.verdict == "kept"
        scores, incumbent_scores = (
            [run.score for run in runs] for runs in (trial.runs, trial.incumbent_runs)
        )
        state = state.after(scores, incumbent_scores, kept=kept)
        if kept:
            true += effect
            nulls, empty = nulls + null, empty + (null and effect >= 0)
    spent = world.spent - BASELINE_RUNS
    before, after = ([world.run(version) for _ in range(CLAIM_RUNS)] for version in (START, START + true))
    gain, _ = gain_and_margin(before, after, state.noise)
    return Outcome(-true, -gain, nulls, empty, world.nulls, world.proposed, spent)


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
    parser = argparse.ArgumentParser(description="rules of judging, on simulated campaigns")
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    seeds = range(max(arguments.repetitions, 2))
    print("rule                  noise      true gain     claimed  nulls kept  no better  runs/proposal")
    with concurrent.futures.ProcessPoolExecutor(arguments.processes) as pool:
        for confidence in (None, *CONFIDENCES):
            name = "greedy" if confidence is None else f"confidence {confidence}"
            for noise in NOISES:
                campaign = functools.partial(simulated, (confidence, noise))
                print(
                    f"{name:<18}  {noise:7.4f}  {cells(pool.map(campaign, seeds, chunksize=10))}", flush=True
                )


if __name__ == "__main__":
    main()
