"""How the rule that judges proposals fares on a real landscape, with the tuner as the agent.

    python benchmarks/landscape.py [--runs 96] [--repetitions 10]

The landscape is a forest of extremely randomized trees (Geurts et al., 2006) over ``h200_trials.tsv.gz``:
7,338 trials of five minutes on one H200, of the study arXiv 2603.24647, from
github.com/ferreirafabio/autoresearch-automl, MIT licence (``h200_trials.LICENSE``). Columns: method, seed
and trial of the search, success (0: out of memory, or crashed), val_bpb, seconds, 14 hyperparameters. The
649 trials in which an agent edited the code are left out, for their hyperparameters do not describe them.
Each tree answers with measured values and the forest with their mean, on the scale of
log(val_bpb - 0.97), so nothing is promised below the best measured value; where little was measured, the
landscape is flat. Another forest tells which configurations run out of memory. Both are cross-validated
first, each search predicted from the others without the configurations that it shares with them.

What the forest says of a proposal counts as its true score, and each run adds normal noise; identical
runs of the study differ by 0.0001 to 0.0007. The rules see the same seeds and have the same number of
runs. *upstream* runs a proposal once, keeps it if it is lower, and claims what it believes. The others
are the shipped rule; they spend three runs on the first baseline, and claim the difference of two fresh runs
of the start and two of the last incumbent, which come on top. A few minutes on two cores.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import csv
import functools
import gzip
import itertools
import math
import random
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

from pytest_autoresearch.agents import constants
from pytest_autoresearch.agents.briefing import Briefing
from pytest_autoresearch.agents.tuner import Tuner
from pytest_autoresearch.judge import CONFIDENCE, Belief, Noise
from pytest_autoresearch.ledger import Entry, Value
from pytest_autoresearch.measuring.measurement import Measurement
from pytest_autoresearch.standing import Standing, Terms

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.base import BaseEstimator

TRIALS = Path(__file__).with_name("h200_trials.tsv.gz")
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
FIXED = "MAX_SEQ_LEN = 2048\n"
DEVICE = "cuda"
NAMES = list(constants.values(START, DEVICE))
FLOOR = 0.97  # below every measured score: the logarithm above it resolves what is good
TREES = 100
SPREADS = 0.0003, 0.0007, 0.002  # of identical runs
RULES = {"upstream": None, "shipped": CONFIDENCE, "shipped, 0.95": 0.95}  # with their confidence
OPENING = 3  # runs of the first baseline
FRESH = 2  # of start and end each, for a claim


def features(known: Mapping[str, Value | str]) -> list[float]:
    """Return what a configuration looks like to the forest; most sizes and rates count by their ratios."""
    pattern, number = str(known["WINDOW_PATTERN"]), {name: float(known[name]) for name in NAMES[:-1]}
    depth, head = number["DEPTH"], number["HEAD_DIM"]
    width = math.ceil(depth * number["ASPECT_RATIO"] / head) * head
    layers = itertools.islice(itertools.cycle(pattern), int(depth) - 1)  # the last one always sees all
    wide = (1 + sum(layer == "L" for layer in layers)) / depth
    logs = [math.log2(number[name]) for name in NAMES[2:9]]
    plain = [number[name] for name in (*NAMES[:2], *NAMES[9:-1])]
    size = math.log2(12 * depth * width**2 + 16_000 * width)
    memory = math.log2(depth * width * number["DEVICE_BATCH_SIZE"])
    return [*logs, *plain, pattern.count("S"), wide, math.log2(width), size, memory]


class Landscape:
    """True scores by configuration, from the study's trials."""

    def __init__(self) -> None:
        with gzip.open(TRIALS, "rt", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file, delimiter="\t") if "(Code)" not in row["method"]]
        self._inputs = np.array([features(row) for row in rows])
        self._scores = np.array([float(row["val_bpb"] or "nan") for row in rows])
        self._ran = ~np.isnan(self._scores)
        self._searches = np.array([f"{row['method']} {row['seed']}" for row in rows])
        self._forest = ExtraTreesRegressor(TREES, random_state=0)
        self._forest.fit(self._inputs[self._ran], np.log(self._scores[self._ran] - FLOOR))
        self._memory = ExtraTreesClassifier(TREES, max_features=None, random_state=0)
        self._memory.fit(self._inputs, self._ran)
        self.best: float = self._scores[self._ran].min()

    def score(self, known: Mapping[str, Value]) -> float:
        """Return the true score, NaN for what runs out of memory."""
        inputs = [features(known)]
        if not self._memory.predict(inputs)[0]:
            return math.nan
        return FLOOR + math.exp(self._forest.predict(inputs)[0])

    def validate(self) -> None:
        """Print how far the forests are from searches that they have not seen."""
        right = self._predicted(self._memory, self._ran) == self._ran
        found = FLOOR + np.exp(self._predicted(self._forest, np.log(self._scores - FLOOR)))
        scores, apart = self._scores[self._ran], (found - self._scores)[self._ran]
        print(f"cross-validated by search, {len(scores)} trials with a score of {len(right)}")
        print("val_bpb      trials  median error  mean error     bias")
        for title, limit in (("all", math.inf), ("below 1", 1), ("below 0.985", 0.985)):
            some = apart[scores < limit]
            figures = np.median(abs(some)), abs(some).mean(), some.mean()
            print("{:<11}  {:>6}  {:>12.4f}  {:>10.4f}  {:>+7.4f}".format(title, len(some), *figures))
        print(f"out of memory or not: {right.mean():.2%} right")

    def _predicted(self, forest: BaseEstimator, targets: NDArray[Any]) -> NDArray[Any]:
        """Return what a forest that has not seen a search says of its trials, NaN counting as no target."""
        usable = ~np.isnan(targets)
        _, same = np.unique(self._inputs, axis=0, return_inverse=True)
        found = np.empty_like(targets)
        for search in np.unique(self._searches):
            held = self._searches == search
            known = usable & ~np.isin(same, same[held])
            found[held] = clone(forest).fit(self._inputs[known], targets[known]).predict(self._inputs[held])
        return found


landscape = functools.cache(Landscape)  # once in each process


class Runs:
    """Noisy runs, until they are spent."""

    def __init__(self, spread: float, seed: int, left: int) -> None:
        self._spread = spread
        self._random = random.Random(seed)
        self.left = left

    def of(self, true: float) -> float:
        """Run a version once."""
        self.left -= 1
        return true + self._random.gauss(0, self._spread)


class Upstream:
    """One run each, and what is lower is kept."""

    spread = 0.0

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


class Shipped:
    """The package's own rule."""

    def __init__(self, runs: Runs, start: float, confidence: float) -> None:
        self._runs, self._incumbent = runs, start
        scores = [runs.of(start) for _ in range(OPENING)]
        noise = Noise.of(scores)
        self._standing = Standing.opening(Terms(confidence=confidence), Belief.of(scores, noise), noise)

    @property
    def believed(self) -> float:
        """What is believed of the incumbent's score."""
        return self._standing.belief.mean

    @property
    def spread(self) -> float:
        """The noise of one run."""
        return self._standing.noise.spread

    def decide(self, true: float) -> tuple[bool, list[float]]:
        """Run a proposal as often as is asked for; return whether it is kept, and its scores."""
        scores: list[float] = []
        again: list[float] = []
        action = self._standing.judge(scores, again).action
        while action.startswith("measure") and self._runs.left:
            if action == "measure candidate":
                scores.append(self._runs.of(true))
            else:
                again.append(self._runs.of(self._incumbent))
            action = self._standing.judge(scores, again).action
        kept = action == "keep"  # what is still open when the runs are spent is not
        self._standing = self._standing.after(scores, again, kept=kept)
        self._incumbent = true if kept else self._incumbent
        return kept, scores

    def claim(self, start: float, end: float) -> float:
        """Return the gain that is told: what fresh runs of both say."""
        before, after = (statistics.fmean(self._runs.of(true) for _ in range(FRESH)) for true in (start, end))
        return before - after


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


def campaign(repetition: int, confidence: float | None, spread: float, budget: int) -> Outcome:
    """Let the tuner propose, and a rule decide, until the runs are spent."""
    runs = Runs(spread, repetition, budget)
    start = true = landscape().score(constants.values(START, DEVICE))
    rule = Upstream(runs, start) if confidence is None else Shipped(runs, start, confidence)
    script, history, false = START, [], 0
    while runs.left:
        told = briefing(f"landscape-{repetition}", script, history, rule)
        proposal = Tuner().propose(told)
        if proposal is None:
            break
        known = constants.values(proposal.source, DEVICE)
        score = landscape().score(known)
        if math.isnan(score):
            runs.left -= 1
            verdict, scores = "crashed", []
        else:
            kept, scores = rule.decide(score)
            verdict = "kept" if kept else "discarded"
        if verdict == "kept":
            false += score > true
            script, true = proposal.source, score
        measurements = tuple(Measurement(one, seed=0, wall_seconds=300) for one in scores)
        number, text, before = told.number, proposal.description, told.score
        history.append(Entry(number, text, verdict, "", "", "", before, measurements, constants=known))
    verdicts = collections.Counter(trial.verdict for trial in history)
    claimed = rule.claim(start, true)
    return Outcome(start - true, claimed, len(history), verdicts["crashed"], verdicts["kept"], false)


def briefing(tag: str, script: str, history: list[Entry], rule: Upstream | Shipped) -> Briefing:
    """Return what the tuner is told."""
    return Briefing(
        tag=tag,
        number=len(history) + 1,
        program="",
        fixed=FIXED,
        script=script,
        start=START,
        history=tuple(history),
        score=rule.believed,
        noise=rule.spread,
        metric="val_bpb",
        direction="minimize",
        platform={"device": DEVICE},
        memory_mb=None,
        memory_soft_limit_mb=None,
        memory_limit_mb=None,
    )


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
        for spread, (title, confidence) in itertools.product(SPREADS, RULES.items()):
            one = functools.partial(campaign, confidence=confidence, spread=spread, budget=options.runs)
            outcomes = list(pool.map(one, range(options.repetitions)))
            print(line(f"{spread:.4f}  {title:<13}", outcomes), flush=True)


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
