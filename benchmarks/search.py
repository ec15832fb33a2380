"""How well the tuner searches, on a real landscape, against what others would do with as many runs.

    python benchmarks/search.py [--runs 288] [--repetitions 20] [--first SEED] [--only NAME ...]

The landscape is that of ``surface.py``, the ranges are the study's, and each run adds normal noise of 0.0004.
The table has the true score of the best version after so many runs. Random search, TPE with all constants,
CMA-ES and TPE with one to three constants free around the best are Optuna's with its defaults; they run a
proposal once and keep it if its score is lower. The tuner and the hybrid use the package's judge; its repeats
and its three runs of the first baseline count too. A proposal that a module-level assert forbids costs no
run. The line below each hybrid is its difference from the tuner, campaign by campaign.

The hybrid's language model is a stand-in with one belief about each constant: its value at the optimum of
the landscape, plus a normal error, drawn once for each campaign. Its standard deviation is a twentieth of the
range on the constant's scale: a factor of 1.2 to 1.3 for a learning rate, one layer for the depth; the batch
is wrong in a tenth of the campaigns, by an octave. The pattern of windows is right in half of the
campaigns, and random in the others. The stand-in proposes its beliefs about the batch and the rates, then
about the shape, then about the schedule, and after that a random part of each in turn. It learns nothing from
scores, but repeats no trial and obeys the asserts. The second one knows less: its errors are twice as large,
and the batch is wrong in half of the campaigns. The third one knows nothing: its beliefs are drawn from the
whole range.

The last table has the best single scores of the study's own searches after as many runs. They ran on the GPU
and not on the landscape, so compare only rows of one table. The landscape is as smooth as the tuner's own
model, though it is made of other features. Needs the extra ``benchmarks``.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import functools
import itertools
import math
import random
import statistics
import time
import warnings
from typing import TYPE_CHECKING, NamedTuple

import optuna

from pytest_autoresearch.agents.briefing import Briefing
from pytest_autoresearch.agents.hybrid import Hybrid
from pytest_autoresearch.agents.tuner.agent import Tuner
from pytest_autoresearch.agents.tuner.space import WHOLE, Axis, space
from pytest_autoresearch.errors import NoAnswer
from pytest_autoresearch.judging.judge import CONFIDENCE
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.proposal import Failure, Proposal
from pytest_autoresearch.records.trial import Trial, Value
from pytest_autoresearch.source import constants
from surface import DEVICE, FIXED, Runs, Shipped, briefing, landscape, rows

if TYPE_CHECKING:
    from pytest_autoresearch.agents.agent import Agent
    from pytest_autoresearch.records.trial import Verdict

NOISE = 0.0004
PART = 0.6  # how much of a group it proposes, once it has proposed all of it
HALF = 0.5
ATTEMPTS = 50  # to think of something new
COLUMNS = 48, 96, 288
START = """\
from prepare import MAX_SEQ_LEN

DEPTH = 8  # tune: 4..24
ASPECT_RATIO = 64  # tune: 32..128
HEAD_DIM = 128  # tune: 64..256
DEVICE_BATCH_SIZE = 128  # tune: 32..256
TOTAL_BATCH_SIZE = 2**19  # tune: 2**16..2**21
EMBEDDING_LR = 0.6  # tune: 0.01..2.0
UNEMBEDDING_LR = 0.004  # tune: 0.0005..0.05
MATRIX_LR = 0.04  # tune: 0.005..0.2
SCALAR_LR = 0.5  # tune: 0.05..2.0
WEIGHT_DECAY = 0.2  # tune: 0.0..0.5
WARMUP_RATIO = 0.0  # tune: 0.0..0.3
WARMDOWN_RATIO = 0.5  # tune: 0.1..0.8
FINAL_LR_FRAC = 0.0  # tune: 0.0..0.2
WINDOW_PATTERN = "SSSL"  # tune: "SSSL" | "SSLL" | "SLSL" | "LLLL" | "SSSS" | "LSSL"

assert TOTAL_BATCH_SIZE % (DEVICE_BATCH_SIZE * MAX_SEQ_LEN) == 0
"""
OPTIMUM: dict[str, Value] = {  # of the landscape within these ranges; six local searches ended here
    "DEPTH": 9,
    "ASPECT_RATIO": 64,
    "HEAD_DIM": 128,
    "DEVICE_BATCH_SIZE": 64,
    "TOTAL_BATCH_SIZE": 2**17,
    "EMBEDDING_LR": 0.76,
    "UNEMBEDDING_LR": 0.00477,
    "MATRIX_LR": 0.0215,
    "SCALAR_LR": 0.397,
    "WEIGHT_DECAY": 0.067,
    "WARMUP_RATIO": 0.0,
    "WARMDOWN_RATIO": 0.639,
    "FINAL_LR_FRAC": 0.0,
    "WINDOW_PATTERN": "SSSS",
}
TOGETHER = (
    [name for name in OPTIMUM if name.endswith(("BATCH_SIZE", "LR"))],
    ["DEPTH", "ASPECT_RATIO", "HEAD_DIM", "WINDOW_PATTERN"],
    ["WEIGHT_DECAY", "WARMUP_RATIO", "WARMDOWN_RATIO", "FINAL_LR_FRAC"],
)
AXES = {axis.name: axis for axis in space(START, DEVICE)}
ORIGIN = constants.values(START, DEVICE)


class Path(NamedTuple):
    """What one search came to."""

    scores: list[float]
    """The true score of the best version, after each run."""
    failed: float
    """The share of the proposals that ran out of memory."""
    seconds: float
    """What a proposal took."""


class Believing:
    """Stands in for a language model: it has a belief of each constant, drawn once for each campaign."""

    takes_time = False
    sandbox = None

    def __init__(self, name: str, error: float | None) -> None:
        self.name, self._error = name, error

    def propose(self, briefing: Briefing) -> Proposal | None:
        """Return the incumbent with what is believed of constants that belong together."""
        beliefs, rng = self._beliefs(briefing.tag), random.Random(f"{briefing.tag} {briefing.number}")
        now = constants.values(briefing.script, DEVICE)
        tried = [now, *(entry.constants for entry in briefing.history)]
        own = sum(self.name in entry.agent for entry in briefing.history)
        for attempt in range(ATTEMPTS):
            part = PART if attempt or own >= len(TOGETHER) else 1.0
            names = [name for name in TOGETHER[(own + attempt) % len(TOGETHER)] if rng.random() < part]
            moved = {name: beliefs[name] for name in names if beliefs[name] != now[name]}
            texts = {name: AXES[name].text(value, "") for name, value in moved.items()}
            source = constants.replace(briefing.script, texts, DEVICE)
            if {**now, **moved} not in tried and not broken(source):
                return Proposal(
                    {briefing.script_name: source},
                    ", ".join(f"{name} = {text}" for name, text in texts.items()),
                )
        raise NoAnswer("nothing new comes to mind")

    def fix(self, briefing: Briefing, failure: Failure) -> Proposal | None:  # noqa: ARG002 - an agent's
        """Give it up."""
        return None

    def close(self) -> None:
        """There is nothing to close."""

    def _beliefs(self, tag: str) -> dict[str, Value]:
        rng = random.Random(f"beliefs {tag}")
        beliefs = {}
        for name, axis in AXES.items():
            place = rng.random()
            if self._error is not None and axis.scale != "choice":
                place = axis.unit(OPTIMUM[name]) + rng.gauss(0, self._error)
            elif self._error is not None and rng.random() < HALF:
                place = axis.unit(OPTIMUM[name])
            beliefs[name] = axis.at(min(max(place, 0.0), 1.0))
        return beliefs


def broken(source: str) -> bool:
    """Tell whether a module-level assert forbids this."""
    return constants.broken_assert(source, DEVICE, FIXED) is not None


def judged(agent: Agent, repetition: int, budget: int) -> Path:
    """Let *agent* propose and the package's judge decide."""
    runs = Runs(NOISE, repetition, budget)
    true = landscape().score(ORIGIN)
    rule = Shipped(runs, true, CONFIDENCE)
    script, scores, seconds = START, [true] * (budget - runs.left), 0.0
    history: list[Trial] = []
    while runs.left:
        left = runs.left
        score, noise = rule.believed, rule.noise
        told = briefing(f"search-{repetition}", script, history, start=START, score=score, noise=noise)
        began = time.perf_counter()
        proposal = agent.propose(told)
        seconds += time.perf_counter() - began
        if proposal is None:
            break
        known = constants.values(proposal.files["train.py"], DEVICE)
        score = landscape().score(known)
        verdict: Verdict = "out of memory"
        found: list[float] = []
        if math.isnan(score):
            runs.left -= 1
        else:
            kept, found = rule.decide(score)
            verdict = "kept" if kept else "discarded"
        measurements = tuple(Measurement(one, seed=0, wall_seconds=300) for one in found)
        number, text, before = told.number, proposal.description, told.score
        entry = Trial(number, text, verdict, "", "", "", before, measurements, known, agent=proposal.agent)
        history.append(entry)
        scores += [true] * (left - runs.left - 1)
        if verdict == "kept":
            script, true = proposal.files["train.py"], score
        scores.append(true)
    scores += [true] * (budget - len(scores))
    failed = collections.Counter(entry.verdict for entry in history)["out of memory"]
    return Path(scores, failed / len(history), seconds / len(history))


def sampled(name: str, repetition: int, budget: int) -> Path:
    """Let a sampler of Optuna's propose, and keep what is lower."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")  # experimental features
    noise, rng = random.Random(repetition), random.Random(f"free {repetition}")
    sampler = made(name, repetition)
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial(positions(ORIGIN))
    held: dict[str, Value] = {}
    believed, true, scores, failed, seconds = math.inf, math.nan, [], 0, 0.0
    while len(scores) < budget:
        if name.startswith("TPE, 1-3") and held:
            free = rng.sample(list(AXES), k=rng.randint(1, 3))
            fixed = {constant: at for constant, at in held.items() if constant not in free}
            study.sampler = optuna.samplers.PartialFixedSampler(fixed, sampler)
        began = time.perf_counter()
        trial = study.ask({constant: distribution(axis) for constant, axis in AXES.items()})
        seconds += time.perf_counter() - began
        known = {constant: AXES[constant].value(at) for constant, at in trial.params.items()}
        texts = {constant: AXES[constant].text(value, "") for constant, value in known.items()}
        if broken(constants.replace(START, texts, DEVICE)):
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            continue
        score = landscape().score(known)
        if math.isnan(score):
            failed += 1
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            seen = score + noise.gauss(0, NOISE)
            study.tell(trial, seen)
            if seen < believed:
                believed, true, held = seen, score, dict(trial.params)
        scores.append(true)
    return Path(scores, failed / budget, seconds / budget)


def made(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of this *name*."""
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "CMA-ES":
        numbers = {constant: at for constant, at in positions(ORIGIN).items() if not isinstance(at, str)}
        return optuna.samplers.CmaEsSampler(seed=seed, x0=numbers)
    return optuna.samplers.TPESampler(seed=seed)


def positions(known: dict[str, Value]) -> dict[str, Value]:
    """Return what Optuna knows the values by: octaves by their exponents."""
    octaves = {name for name, axis in AXES.items() if axis.scale == "octave"}
    return {name: int(math.log2(value)) if name in octaves else value for name, value in known.items()}


def distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    """Return where Optuna may draw a position from."""
    if axis.scale == "choice":
        return optuna.distributions.CategoricalDistribution(axis.choices)
    if axis.scale in WHOLE:
        return optuna.distributions.IntDistribution(int(axis.low), int(axis.high))
    return optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.scale == "log")


METHODS = {
    **{
        name: functools.partial(sampled, name)
        for name in ("random", "TPE, all constants", "CMA-ES", "TPE, 1-3 around the best")
    },
    "the tuner": lambda *terms: judged(Tuner(), *terms),
    "the hybrid, knows a little": lambda *terms: judged(Hybrid(Believing("little", 0.05)), *terms),
    "the hybrid, knows less": lambda *terms: judged(Hybrid(Believing("less", 0.1)), *terms),
    "the hybrid, knows nothing": lambda *terms: judged(Hybrid(Believing("nothing", None)), *terms),
}


def searched(name: str, budget: int, repetition: int) -> Path:
    """Search once."""
    return METHODS[name](repetition, budget)


def main() -> None:
    """Print one line for each way to search, then what the study's own searches reached."""
    parser = argparse.ArgumentParser(description="the tuner, on a real landscape")
    parser.add_argument("--runs", type=int, default=COLUMNS[-1], help="of each search, all counted")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="of the first repetition")
    parser.add_argument("--only", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--no-validation", dest="validate", action="store_false")
    options = parser.parse_args()
    if options.validate:
        landscape().validate()
    columns = [count for count in COLUMNS if count <= options.runs]
    start = landscape().score(ORIGIN)
    print(f"\nstart {start:.4f}, best measured {landscape().best:.4f}; noise of a run {NOISE}")
    print(f"true score of the best after so many runs: means of {options.repetitions} ± standard error")
    print(" " * 27 + "".join(f"{count:>18}" for count in columns) + "  out of memory  ms a proposal")
    tuned: list[Path] = []
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        for name in options.only:
            one = functools.partial(searched, name, options.runs)
            seeds = range(options.first, options.first + options.repetitions)
            paths = list(pool.map(one, seeds))
            print(line(name, columns, paths), flush=True)
            tuned = paths if name == "the tuner" else tuned
            if tuned and "hybrid" in name:
                print(differences(columns, paths, tuned), flush=True)
    print("\nthe best single score that the study's searches had measured by then")
    for search, found in studied():
        print(f"{search:<27}" + "".join(f"{min(found[:count]):>18.4f}" for count in columns))


def line(name: str, columns: list[int], paths: list[Path]) -> str:
    """Return the means of one method."""
    text = f"{name:<27}"
    for count in columns:
        text += "{:>9.4f} ± {:.4f}".format(*mean([path.scores[count - 1] for path in paths]))
    failed, seconds = (statistics.fmean(values) for values in list(zip(*paths, strict=True))[1:])
    return f"{text}  {failed:>13.1%}  {1000 * seconds:>13.0f}"


def differences(columns: list[int], paths: list[Path], tuned: list[Path]) -> str:
    """Return how far the campaigns are from those of the tuner with the same seeds."""
    text = f"{'  from the tuner':<27}"
    for count in columns:
        pairs = zip(paths, tuned, strict=True)
        apart = [path.scores[count - 1] - other.scores[count - 1] for path, other in pairs]
        text += "{:>+9.4f} ± {:.4f}".format(*mean(apart))
    return text


def mean(figures: list[float]) -> tuple[float, float]:
    """Return the mean and its standard error."""
    error = statistics.stdev(figures) / math.sqrt(len(figures)) if len(figures) > 1 else math.nan
    return statistics.fmean(figures), error


def studied() -> list[tuple[str, list[float]]]:
    """Return the study's searches with their scores, infinite for what ran out of memory."""
    trials = sorted(rows(), key=lambda row: (row["method"], row["seed"], int(row["trial"])))
    searches = itertools.groupby(trials, key=lambda row: f"{row['method']}, {row['seed']}")
    return [(name, [float(row["val_bpb"] or "inf") for row in some]) for name, some in searches]


if __name__ == "__main__":
    main()
