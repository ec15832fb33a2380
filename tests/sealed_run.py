"""A real run under the terms of a sealed experiment, which does what a test tells it."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from pytest_autoresearch.records.overheads import Overheads
from pytest_autoresearch.runs import clock
from pytest_autoresearch.runs.data import Data
from pytest_autoresearch.runs.output import OnLine, Output, follow
from pytest_autoresearch.runs.run import inherited
from pytest_autoresearch.runs.session import RunSession, SealedLimits
from pytest_autoresearch.sandbox import launch
from pytest_autoresearch.scoring.client import Scorer
from pytest_autoresearch.system.channel import VARIABLE, Channel

SCRIPT = """
import os, sys, time
from pytest_autoresearch import harness

def work(seconds):
    began = time.process_time()
    while time.process_time() - began < seconds:
        sum(range(10_000))

def train(seconds):
    began = harness.clock()
    while harness.clock() - began < seconds:
        sum(range(10_000))

def hand_in(digest="0" * 64):
    harness._wire().send({{"trained": digest}})

def hand_in_model():
    with open("model", "rb") as model:
        print("answer:", harness._ask({{"model": True}}, model.fileno()).content)

{body}
"""


class Run:
    """A run of :data:`SCRIPT`, by default under a calibrated clock."""

    def __init__(
        self,
        folder: Path,
        scorer: Scorer,
        budget: float,
        kind: clock.Kind = "calibrated",
        needs: Overheads | None = None,
    ) -> None:
        (folder / "train.tokens").write_bytes(b"tokens")
        (folder / "run").mkdir()
        self.folder = folder / "run"
        self.terms = SealedLimits(Data(training=(folder / "train.tokens",)), scorer, budget, kind)
        self.allowed = needs
        self.seconds: float | None = None
        self.score: float | None = None
        self.needs: Overheads | None = None
        self.lines: list[str] = []
        self.on_line: OnLine = self.lines.append

    def follow(self, body: str) -> Output:
        """Run *body* to its end, and return what it printed."""
        wire, theirs = Channel.pair()
        environment = {**inherited(), VARIABLE: str(theirs.fileno()), "PYTHONUNBUFFERED": "1"}
        script = SCRIPT.format(body=textwrap.dedent(body))
        command = [sys.executable, "-c", script]
        guarded = launch.start(command, launch.Policy(self.folder), "none", environment, [theirs.fileno()])
        theirs.close()
        handover = RunSession(
            self.terms, wire, guarded, lambda _score: True, claimed=False, needs=self.allowed
        )
        try:
            return follow(guarded, limit=60, on_line=self.on_line, handover=handover)
        finally:
            handover.close()
            wire.close()
            self.seconds, self.score, self.needs = handover.training_seconds, handover.score, handover.needs
