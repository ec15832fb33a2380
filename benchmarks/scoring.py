"""What a sealed score costs, and how far it is from the figure that the run itself would find.

    python benchmarks/scoring.py [--steps 20]

It builds the model of the embedded experiment, trains it for a few steps, evaluates it where it is, seals
it, and scores the sealed model with probes of every tenth row. Half a minute on a CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXPERIMENT = Path(__file__).resolve().parent.parent / "experiment"
SHARE = 0.1  # of the rows that are probed
FURTHEST = 1e-6  # that the two figures may lie apart, as a share of either
DEAREST = 1.25, 4.0  # what sealing and scoring may take: times the evaluation, plus seconds


def experiment() -> dict[str, Any]:
    """Run train.py up to where it trains, and return its names."""
    source = (EXPERIMENT / "train.py").read_text()
    before, marker, _ = source.partition("warm_up()\nseconds")
    assert marker, "train.py has changed: tell this script where it begins to train"
    names: dict[str, Any] = {"__name__": "experiment"}
    sys.path.insert(0, str(EXPERIMENT))
    with contextlib.redirect_stdout(sys.stderr):
        exec(compile(before, str(EXPERIMENT / "train.py"), "exec"), names)  # noqa: S102 - our own script
    return names


class Clock:
    """Seconds of wall and of processor time, by name."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextlib.contextmanager
    def measuring(self, name: str) -> Iterator[None]:
        """Measure what is done inside."""
        wall, cpu = time.monotonic(), time.process_time()
        yield
        self.wall[name], self.cpu[name] = time.monotonic() - wall, time.process_time() - cpu


def main() -> int:
    """Run everything, print the figures, and return 1 if they miss their target."""
    parser = argparse.ArgumentParser(description="the cost and the exactness of sealed scores")
    parser.add_argument(
        "--steps", type=int, default=20, help="of training, so that there is something to score"
    )
    steps = parser.parse_args().steps
    os.environ.pop("AUTORESEARCH_CHANNEL", None)
    names = experiment()
    import prepare

    batches = prepare.make_dataloader(names["tokenizer"], names["BATCH_ROWS"], prepare.MAX_SEQ_LEN, "train")
    batch = next(batches)
    for _ in range(steps):
        _, batch = names["train_step"](batch, batches, 1.0, 0.9, 0.0)
    clock = Clock()
    prepare.evaluate_bpb(names["compiled"], names["tokenizer"], 32)  # once for what only the first time takes
    with clock.measuring("evaluation"):
        own = prepare.evaluate_bpb(names["compiled"], names["tokenizer"], 32)
    with clock.measuring("importing"):
        from pytest_autoresearch.scoring.evaluation import LanguageModel
        from pytest_autoresearch.scoring.export import Trace, seal
        from pytest_autoresearch.scoring.interpreter import Interpreter, fill_memory
    model, tokens = names["compiled"], prepare.example()
    with prepare.eval_mode(model):
        with clock.measuring("tracing"):  # before the clock starts
            trace = Trace(model, tokens)
        with clock.measuring("announcing"):  # on it
            announced = trace.seal(model).digest
        with clock.measuring("sealing"):  # once it has stopped
            sealed = seal(model, tokens)
            file = io.BytesIO()
            sealed.write(file)
    assert sealed.digest == announced
    task = LanguageModel(prepare)
    fill_memory()
    with clock.measuring("scoring"):
        scored = task.evaluate(Interpreter(file.getvalue(), announced, task.device))
        found = scored.probed(SHARE)
    with clock.measuring("and for a keep"):  # goes on from there
        scored.probed(1.0)
    print(f"graph: {found.nodes} nodes, {len(zlib.compress(sealed.graph.encode()))} bytes compressed")
    return report(own, found.score, len(file.getvalue()), clock)


def report(own: float, sealed: float, size: int, clock: Clock) -> int:
    """Print the figures, and return 1 if they miss their target."""
    apart = abs(sealed / own - 1)
    print("---")
    print(f"val_bpb:           {own:.6f}")
    print(f"sealed_val_bpb:    {sealed:.6f}")
    print(f"apart:             {apart:.1e}")
    print(f"sealed_mb:         {size / 1e6:.1f}")
    for name in clock.wall:
        print(f"{name + ':':<19} {clock.wall[name]:.2f} s, {clock.cpu[name]:.2f} s of the processor's")
    times, plus = DEAREST
    allowed = times * clock.cpu["evaluation"] + plus
    taken = sum(clock.cpu[name] for name in ("importing", "sealing", "scoring"))
    print(f"overhead:          {taken:.2f} s of the processor's, of {allowed:.2f} s allowed")
    return int(apart > FURTHEST or taken > allowed)


if __name__ == "__main__":
    sys.exit(main())
