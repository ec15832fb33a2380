"""A real run within the limits of a sealed experiment, which does what a test tells it."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from pytest_autoresearch.records.overheads import ClockKind, Overheads
from pytest_autoresearch.runs.data import Data
from pytest_autoresearch.runs.environment import inherited
from pytest_autoresearch.runs.limits import SealedLimits
from pytest_autoresearch.runs.output import OnLine, Output, follow
from pytest_autoresearch.runs.request import RunRequest
from pytest_autoresearch.runs.session import RunSession
from pytest_autoresearch.sandbox import launch
from pytest_autoresearch.sandbox.policy import Policy
from pytest_autoresearch.scoring.calibration import Calibration
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
    harness._channel().send({{"trained": digest}})

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
        kind: ClockKind = "calibrated",
        overheads: Overheads | None = None,
    ) -> None:
        (folder / "train.tokens").write_bytes(b"tokens")
        (folder / "run").mkdir()
        self.folder = folder / "run"
        self.data = Data(training=(folder / "train.tokens",))
        self.limits = SealedLimits(budget, kind)
        self.scorer, self.calibration = scorer, Calibration(scorer)
        self.allowed = overheads
        self.seconds: float | None = None
        self.score: float | None = None
        self.overheads: Overheads | None = None
        self.lines: list[str] = []
        self.on_line: OnLine = self.lines.append

    def follow(self, body: str) -> Output:
        """Run *body* to its end, and return what it printed."""
        channel, theirs = Channel.pair()
        environment = {**inherited(), VARIABLE: str(theirs.fileno()), "PYTHONUNBUFFERED": "1"}
        script = SCRIPT.format(body=textwrap.dedent(body))
        command = [sys.executable, "-c", script]
        process = launch.start(command, Policy(self.folder), "none", environment, [theirs.fileno()])
        theirs.close()
        session = RunSession(
            RunRequest("candidate", {}, 1, lambda _score: True, overheads=self.allowed),
            channel,
            process,
            data=self.data,
            limits=self.limits,
            scorer=self.scorer,
            calibration=self.calibration,
        )
        try:
            return follow(process, limit=60, on_line=self.on_line, session=session)
        finally:
            session.close()
            channel.close()
            self.seconds, self.score = session.training_seconds, session.score
            self.overheads = session.overheads
