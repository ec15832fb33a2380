"""How much the score of one and the same script scatters by the clock that its budget is counted on.

    python benchmarks/clock.py [--runs 10] [--budget 10] [--threads 1]

It runs experiment/train.py again and again with one seed, on an otherwise idle machine and beside a process
that keeps a core busy, through the harness. Nothing differs between the runs but how many steps they get,
so a perfect clock would give one number for all of them. Twenty minutes on a CPU, which nothing else
should use; clocks and neighbours take turns, so that what the machine does meanwhile befalls all alike.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.runs.clock import Kind
from pytest_autoresearch.runs.data import Data
from pytest_autoresearch.runs.run import RunConfig, execute, fresh_directory, inherited, measure
from pytest_autoresearch.runs.session import SealedLimits
from pytest_autoresearch.sandbox import launch
from pytest_autoresearch.scoring.client import Scorer, answering

EXPERIMENT = Path(__file__).resolve().parent.parent / "experiment"
KINDS: tuple[Kind, ...] = get_args(Kind)
READ = {"calibrated": "harness.clock()", "cpu": "time.process_time()", "wall": "time.monotonic()"}
SEED = 7
BUSY = "while True: pass"


def fixed(kind: Kind, threads: int) -> str:
    """Return the text of prepare.py with another clock and number of threads."""
    text = (EXPERIMENT / "prepare.py").read_text()
    for old, new in (
        ("return harness.clock()", f"return {READ[kind]}"),
        ("torch.set_num_threads(1)", f"torch.set_num_threads({threads})"),
    ):
        assert text.count(old) == 1, f"prepare.py has changed: tell this script where it says {old}"
        text = text.replace(old, new)
    return text


def describe(budget: float) -> dict[str, str]:
    """Run prepare.py, which prepares the data, and return what it says of the platform."""
    environment = dict(os.environ) | RunConfig("val_bpb", budget).told(SEED)
    with fresh_directory({"prepare.py": (EXPERIMENT / "prepare.py").read_text()}) as folder:
        return execute("prepare.py", folder, environment, lambda _line: None).values


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Keep *count* cores busy."""
    with contextlib.ExitStack() as started:
        for _ in range(count):
            process = started.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
            started.callback(process.kill)
        yield


def run(kind: Kind, conditions: RunConfig, threads: int) -> Measurement:
    """Measure the script once."""
    files = {"train.py": (EXPERIMENT / "train.py").read_text(), "prepare.py": fixed(kind, threads)}
    assert conditions.terms is not None
    return measure(
        files, "train.py", conditions, seed=SEED, limit=conditions.terms.limit, thorough=lambda _: False
    )


def main() -> None:
    """Run everything and print the figures."""
    parser = argparse.ArgumentParser(description="the scatter of identical runs, by clock and neighbour")
    parser.add_argument("--runs", type=int, default=10, help="of each clock, idle and beside a neighbour")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds of training")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    options = parser.parse_args()
    described = describe(options.budget)
    data, enforcer = Data.described(described), launch.choose("auto")
    scorer = Scorer(
        (EXPERIMENT / "prepare.py").read_text(),
        (*data.validation, *data.shared),
        enforcer,
        inherited() | RunConfig("val_bpb", options.budget).told(SEED),
        answering(options.budget, "calibrated"),
    )
    found: dict[tuple[str, int], list[Measurement]] = defaultdict(list)
    with contextlib.closing(scorer):
        for _, busy, kind in itertools.product(range(options.runs), (0, 1), KINDS):
            conditions = RunConfig(
                "val_bpb",
                options.budget,
                enforcer,
                readable=data.shared,
                hidden=(*data.validation, *data.training),
                terms=SealedLimits(data, scorer, options.budget, kind),
            )
            with neighbours(busy):
                measured = run(kind, conditions, options.threads)
            found[kind, busy].append(measured)
            print(
                json.dumps({"clock": kind, "busy": busy, **measured.to_json()}), file=sys.stderr, flush=True
            )
    report(found)


def report(found: dict[tuple[str, int], list[Measurement]]) -> None:
    """Print mean and scatter by clock, and what a neighbour costs."""
    print("---")
    for kind in KINDS:
        idle, busy = ([one.score for one in found[kind, count]] for count in (0, 1))
        for name, scores, runs in (("idle", idle, found[kind, 0]), ("busy", busy, found[kind, 1])):
            sd = statistics.stdev(scores) if len(scores) > 1 else 0.0
            steps = statistics.fmean(one.steps or 0 for one in runs)
            wall = statistics.fmean(one.wall_seconds for one in runs)
            mean = statistics.fmean(scores)
            print(f"{kind:<10} {name}: val_bpb {mean:.4f}, sd {sd:.4f}, {steps:.0f} steps in {wall:.0f} s")
        print(f"{kind:<10} shift: {statistics.fmean(busy) - statistics.fmean(idle):+.4f}")


if __name__ == "__main__":
    main()
