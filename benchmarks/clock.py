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
import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pytest_autoresearch.judging.rules import Always
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.overheads import ClockKind
from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.runs.config import RunConfig
from pytest_autoresearch.runs.limits import SealedLimits
from pytest_autoresearch.runs.request import RunRequest
from pytest_autoresearch.runs.run import measure
from pytest_autoresearch.runs.site import PREPARE, Site
from pytest_autoresearch.sandbox import enforcers
from pytest_autoresearch.scoring.calibration import Calibration
from pytest_autoresearch.scoring.client import Scorer

EXPERIMENT = Path(__file__).resolve().parent.parent / "experiment"
KINDS: tuple[ClockKind, ...] = get_args(ClockKind)
READ = {"calibrated": "harness.clock()", "cpu": "time.process_time()", "wall": "time.monotonic()"}
SEED = 7
BUSY = "while True: pass"


def fixed(kind: ClockKind, threads: int) -> str:
    """Return the text of prepare.py with another clock and number of threads."""
    text = (EXPERIMENT / "prepare.py").read_text()
    for old, new in (
        ("return harness.clock()", f"return {READ[kind]}"),
        ("torch.set_num_threads(1)", f"torch.set_num_threads({threads})"),
    ):
        assert text.count(old) == 1, f"prepare.py has changed: tell this script where it says {old}"
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Keep *count* cores busy."""
    with contextlib.ExitStack() as started:
        for _ in range(count):
            process = started.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
            started.callback(process.kill)
        yield


def run(config: RunConfig, scorer: Scorer, calibration: Calibration) -> Measurement:
    """Measure the script once."""
    files = {"train.py": (EXPERIMENT / "train.py").read_text()}
    request = RunRequest("candidate", files, SEED, Always(answer=False))
    return measure(request, config, scorer=scorer, calibration=calibration)


def main() -> None:
    """Run everything and print the figures."""
    parser = argparse.ArgumentParser(description="the scatter of identical runs, by clock and neighbour")
    parser.add_argument("--runs", type=int, default=10, help="of each clock, idle and beside a neighbour")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds of training")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    options = parser.parse_args()
    enforcer, prepare = enforcers.choose("auto"), (EXPERIMENT / "prepare.py").read_text()
    site = Site.of({PREPARE: prepare}, "minimize", time_budget=options.budget, enforcer=enforcer)
    config = RunConfig(ExperimentSpec(EXPERIMENT), site, {}, options.budget, enforcer)
    scorer = Scorer(
        prepare,
        (*site.data.validation, *site.data.shared),
        enforcer,
        config.scorer_environment(),
        SealedLimits(options.budget, "calibrated").scoring_seconds,
    )
    calibration = Calibration(scorer)
    found: dict[tuple[str, int], list[Measurement]] = defaultdict(list)
    with contextlib.closing(scorer):
        for _, busy, kind in itertools.product(range(options.runs), (0, 1), KINDS):
            config = dataclasses.replace(
                config,
                site=dataclasses.replace(site, sealed=SealedLimits(options.budget, kind)),
                fixed={PREPARE: fixed(kind, options.threads)},
            )
            with neighbours(busy):
                measured = run(config, scorer, calibration)
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
