"""A landscape fitted to real trials, and noisy runs on it.

The landscape is a Gaussian process (Matérn 3/2, a length scale for each feature) over ``h200_trials.tsv.gz``:
7,338 trials of five minutes on one H200, of the study arXiv 2603.24647, from
github.com/ferreirafabio/autoresearch-automl, MIT licence (``h200_trials.LICENSE``). Columns: method, seed
and trial of the search, success (0: out of memory, or crashed), val_bpb, seconds, 14 hyperparameters. The
649 trials in which an agent edited the code are left out: their hyperparameters do not describe them.
Scores above 1.15 count as 1.15. The process is fitted to the logarithm of a score's distance to 0.95, which
resolves good scores; no score is below it. The true score of a configuration is the mean plus one standard
deviation, so that regions without trials hold no optimum. A forest of extremely randomized trees (Geurts et
al., 2006) tells which configurations run out of memory. Both are cross-validated in four parts. Each part
consists of whole searches, and the other parts are used without the configurations that they share with it.
"""

from __future__ import annotations

import csv
import functools
import gzip
import itertools
import math
import random
import statistics
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pytest_autoresearch.agents.briefing import Briefing
from pytest_autoresearch.executors.base import RunOutcome, RunRequest
from pytest_autoresearch.judging.judge import JudgePolicy, JudgeState
from pytest_autoresearch.judging.noise import Estimate, Noise
from pytest_autoresearch.loop.trial import TrialSetup, TrialTask
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.proposal import Proposal
from pytest_autoresearch.records.trial import Decision, Trial, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRIALS = Path(__file__).with_name("h200_trials.tsv.gz")
DEVICE = "cuda"
FIXED = "MAX_SEQ_LEN = 2048\n"
NAMES = (
    *("DEPTH", "ASPECT_RATIO", "HEAD_DIM", "DEVICE_BATCH_SIZE", "TOTAL_BATCH_SIZE", "EMBEDDING_LR"),
    *("UNEMBEDDING_LR", "MATRIX_LR", "SCALAR_LR", "WEIGHT_DECAY", "WARMUP_RATIO", "WARMDOWN_RATIO"),
    *("FINAL_LR_FRAC", "WINDOW_PATTERN"),
)
FLOOR = 0.95  # below every measured score: the logarithm above it resolves what is good
WORST = 1.15  # runs that diverged are no worse than this
FITTED = 600  # trials that the length scales are fitted to
TREES = 100
OPENING = 3  # runs of the first baseline
PROPOSAL = Proposal({}, "a change")  # only its score matters
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


def rows() -> list[dict[str, str]]:
    """Return the trials that the hyperparameters describe."""
    with gzip.open(TRIALS, "rt", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file, delimiter="\t") if "(Code)" not in row["method"]]


class Landscape:
    """True scores by configuration, from the study's trials."""

    def __init__(self) -> None:
        self._rows = rows()
        self._inputs = np.array([features(row) for row in self._rows])
        self._scores = np.array([float(row["val_bpb"] or "nan") for row in self._rows])
        self._ran = ~np.isnan(self._scores)
        self._process = _fitted(self._inputs[self._ran], self._scores[self._ran])
        self._memory = ExtraTreesClassifier(TREES, max_features=None, random_state=0)
        self._memory.fit(self._inputs, self._ran)
        self._found: dict[tuple[Value, ...], float] = {}
        self.best: float = self._scores[self._ran].min()

    def score(self, known: Mapping[str, Value]) -> float:
        """Return the true score, NaN for what runs out of memory."""
        key = tuple(known[name] for name in NAMES)
        if key not in self._found:
            inputs = np.array([features(known)])
            fits = self._memory.predict(inputs)[0]
            self._found[key] = float(_expected(self._process, inputs, 1)[0]) if fits else math.nan
        return self._found[key]

    def validate(self) -> None:
        """Print how far the fits are from searches that they have not seen."""
        searches = np.array([f"{row['method']} {row['seed']}" for row in self._rows])
        _, same = np.unique(self._inputs, axis=0, return_inverse=True)
        found, fits = np.empty_like(self._scores), np.empty_like(self._ran)
        for part in range(4):
            held = np.isin(searches, np.unique(searches)[part::4])
            known = ~np.isin(same, same[held])
            ran = known & self._ran
            found[held] = _expected(_fitted(self._inputs[ran], self._scores[ran]), self._inputs[held], 0)
            memory = clone(self._memory).fit(self._inputs[known], self._ran[known])
            fits[held] = memory.predict(self._inputs[held])
        apart = found - self._scores
        print(f"cross-validated by search, {self._ran.sum()} trials with a score of {len(self._ran)}")
        print("val_bpb      trials  median error  mean error     bias")
        for title, limit in (("all", math.inf), ("below 1", 1), ("below 0.985", 0.985)):
            some = apart[self._ran & (self._scores < limit)]
            figures = np.median(abs(some)), abs(some).mean(), some.mean()
            print("{:<11}  {:>6}  {:>12.4f}  {:>10.4f}  {:>+7.4f}".format(title, len(some), *figures))
        print(f"out of memory or not: {(fits == self._ran).mean():.2%} right")


def _fitted(inputs: NDArray[Any], scores: NDArray[Any]) -> Any:
    """Return a process over all, with the length scales of some."""
    targets = np.log(np.minimum(scores, WORST) - FLOOR)
    lengths = Matern(np.full(inputs.shape[1], 4.0), (0.3, 100), nu=1.5)
    kernel = ConstantKernel() * lengths + WhiteKernel(0.05, (1e-4, 1))
    scaler = StandardScaler().fit(inputs)
    some = np.random.default_rng(0).permutation(len(inputs))[:FITTED]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what does not matter has the longest scale
        first = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        first.fit(scaler.transform(inputs[some]), targets[some])
    process = GaussianProcessRegressor(first.kernel_, optimizer=None, normalize_y=True)
    return make_pipeline(scaler, process.fit(scaler.transform(inputs), targets))


def _expected(process: Any, inputs: NDArray[Any], doubts: float) -> NDArray[Any]:
    """Return the expected scores, and so many standard deviations of the landscape more."""
    means, stds = process.predict(inputs, return_std=True)
    regressor = process[-1]
    noise = regressor.kernel_.k2.noise_level * regressor._y_train_std**2  # noqa: SLF001 - told nowhere else
    return FLOOR + np.exp(means + doubts * np.sqrt(np.maximum(stds**2 - noise, 0)))


landscape = functools.cache(Landscape)  # once in each process


class Runs:
    """Noisy runs, until they are spent."""

    def __init__(self, noise: float, seed: int, left: int) -> None:
        self._noise = noise
        self._random = random.Random(seed)
        self.left = left

    def of(self, true: float) -> float:
        """Run a version once."""
        self.left -= 1
        return true + self._random.gauss(0, self._noise)


class Shipped:
    """The package's own rule."""

    def __init__(self, runs: Runs, start: float, confidence: float) -> None:
        self._runs, self._incumbent = runs, start
        scores = [runs.of(start) for _ in range(OPENING)]
        noise = Noise.of(scores)
        self._state = JudgeState.initial(
            JudgePolicy(confidence=confidence), Estimate.of(scores, noise), noise
        )

    @property
    def believed(self) -> float:
        """The estimate of the incumbent's score."""
        return self._state.incumbent.mean

    @property
    def noise(self) -> float:
        """The noise of one run."""
        return self._state.noise.std

    def decide(self, true: float) -> tuple[bool, list[float]]:
        """Run a proposal as often as is asked for; return whether it is kept, and its scores."""
        trial = TrialTask(TrialSetup(PROPOSAL, {}, self._state), lambda: 0)
        while isinstance(step := trial.next(), RunRequest) and self._runs.left:
            score = self._runs.of(true if step.role == "candidate" else self._incumbent)
            trial.feed(RunOutcome(Measurement(score, step.seed, 300.0), 0.0, 300.0))
        kept = isinstance(step, Decision) and step.verdict == "kept"  # undecided when the runs are spent: no
        scores, incumbent_scores = (
            [run.score for run in runs] for runs in (trial.runs, trial.incumbent_runs)
        )
        self._state = self._state.after(scores, incumbent_scores, kept=kept)
        self._incumbent = true if kept else self._incumbent
        return kept, scores

    def claim(self, start: float, end: float) -> float:
        """Return the gain that is told: what fresh runs of both say."""
        before, after = (statistics.fmean(self._runs.of(true) for _ in range(FRESH)) for true in (start, end))
        return before - after


def briefing(
    tag: str, script: str, history: list[Trial], *, start: str, score: float, noise: float
) -> Briefing:
    """Return what an agent is told of a campaign on the landscape."""
    return Briefing(
        tag=tag,
        number=len(history) + 1,
        program="",
        fixed=FIXED,
        files={"train.py": script},
        start_files={"train.py": start},
        script_name="train.py",
        history=tuple(history),
        score=score,
        noise=noise,
        metric="val_bpb",
        direction="minimize",
        platform={"device": DEVICE},
    )
