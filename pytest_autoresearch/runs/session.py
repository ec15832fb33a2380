"""The harness's side of one sealed run: gives it its data, keeps its clock, takes its model."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Protocol

from pytest_autoresearch.errors import (
    FileRefused,
    ModelRefused,
    ProtocolError,
    RunAborted,
    ScorerOutOfMemory,
    ScorerUnavailable,
)
from pytest_autoresearch.records.measurement import LARGEST_MODEL, Scored, Split
from pytest_autoresearch.records.overheads import Overheads
from pytest_autoresearch.runs.clock import Calibration, Clock
from pytest_autoresearch.runs.data import Data
from pytest_autoresearch.runs.limits import MAX_WALL_ENDING, Phase, SealedLimits
from pytest_autoresearch.runs.request import ProbeAllRows, RunRequest
from pytest_autoresearch.sandbox.process import SandboxedProcess
from pytest_autoresearch.system.channel import Channel, Message
from pytest_autoresearch.system.files import read_bounded, writing
from pytest_autoresearch.text import quoted, single_line

# Training beyond the budget makes the score worse, by this share of it for one whole budget more. That is
# more than longer training gains: see benchmarks/overtime.py.
OVERTIME_CHARGE = 0.5
BETWEEN_CHECKS = 0.5  # seconds: adding up the CPU time of a process tree takes a millisecond
ANSWER_TIMEOUT = 5.0  # seconds after which a run that does not read an answer is ended
MAX_QUESTIONS = 100  # of one run
SAMPLE = 0.1  # share of the rows that causality probes look at, unless all are asked for


class Scorer(Protocol):
    """Turns sealed models into scores, outside of any run."""

    @property
    def longest(self) -> float:
        """Seconds until a score is there or given up."""

    def wait(self) -> object:
        """Wait until it is ready, or raise ScorerUnavailable."""

    def score(
        self,
        model: BinaryIO,
        digest: str,
        share: float,
        *,
        split: Split = "val",
        overheads: Overheads | None = None,
        probe_all_rows: ProbeAllRows | None = None,
    ) -> Scored:
        """Return the score of a sealed model, or raise as :meth:`scoring.client.Scorer.score` does."""


class RunSession:
    """One sealed run, from its first message to its score, through the phases of :class:`Phase`.

    In the end it has a *score*, a *refusal* or a *shortage* (each the reason in one line), or none of them.
    """

    score: float | None = None
    claim: float | None = None
    """The score on the text for claims, if that was asked for."""
    refusal: str | None = None
    shortage: str | None = None
    """Of the accelerator's memory, which the scorer shares with the run."""
    training_seconds: float | None = None
    """On the run's clock, with the charge for its start-up."""
    ended_for_scorer = False
    """Whether the run was killed after it had handed in its model, to free its resources for the scorer."""
    overheads: Overheads | None = None
    """What it took beside its training, once it has a score."""

    def __init__(
        self,
        request: RunRequest,
        channel: Channel,
        process: SandboxedProcess,
        *,
        data: Data,
        limits: SealedLimits,
        scorer: Scorer,
        calibration: Calibration,
        before_training: Callable[[], object] | None = None,
    ) -> None:
        """Begin with the start-up of the run *process*, at the other end of *channel*.

        *before_training* is called after the start-up, off the clock; no training data was given yet.
        """
        self._request = request
        self._channel = channel
        self._process = process
        self._data = data
        self._limits = limits
        self._scorer = scorer
        self._before_training = before_training
        self._clock = Clock(limits.clock, process, calibration)
        self._startup = 0.0  # seconds on the clock
        self._charged = 0.0  # of these the seconds that the budget was charged with
        self._digest = ""  # of the model
        self._questions = 0
        self._checked = -math.inf
        self._enter(Phase.START_UP)

    def close(self) -> None:
        """Release the clock, once the run has ended."""
        self._clock.close()

    def fileno(self) -> int:
        """Return the descriptor to select on."""
        return self._channel.fileno()

    def check(self) -> None:
        """Raise RunAborted if a phase has taken too long; looks twice a second at most."""
        if time.monotonic() - self._checked < BETWEEN_CHECKS:
            return
        self._checked = time.monotonic()
        if self._phase is Phase.TRAINING:
            self._clock.correct()
        phase, used = self._phase.value, self._used()
        limit = self._limits.phase_seconds(self._phase, self._request.overheads)
        if used > limit and self._phase is Phase.TRAINING:
            start_up = f" and its start-up {self._charged:.1f} s too long" if self._charged else ""
            trained, budget = used - self._charged, self._limits.budget
            raise RunAborted(f"still training after {trained:.1f} s{start_up}, its budget is {budget:g} s")
        if used > limit:
            raise RunAborted(f"{phase} took {used:.1f} s, and was not over: it may take {limit:.1f} s")
        wall = time.monotonic() - self._entered
        if wall > self._limits.phase_wall_seconds(self._phase):
            raise RunAborted(f"{phase} took {wall:.0f} s of wall time, and was not over")

    def answer(self) -> bool:
        """Read the run's messages and answer them; return whether more can come.

        Raises:
            RunAborted: the run breaks the protocol, or its training ended too late.
            ScorerUnavailable: there is no scorer.
        """
        try:
            messages = self._channel.read()
            try:
                for message in messages:
                    self._act(message)
            finally:
                for descriptor in (item for message in messages for item in message.descriptors):
                    os.close(descriptor)
        except ProtocolError as error:
            raise RunAborted(self._refuse(f"the run does not keep to the protocol: {error}")) from error
        except TimeoutError as error:
            raise RunAborted(self._refuse("the run does not read what it is told")) from error
        except (EOFError, OSError):
            return False  # the run has closed its end
        return True

    def _act(self, message: Message) -> None:
        self._questions += 1
        match message.content:
            case {"open": str(name)} if self._questions <= MAX_QUESTIONS:
                self._open(name)
            case {"clock": True} if self._questions <= MAX_QUESTIONS:
                self._show_clock()
            case {"trained": str(digest)} if self._phase in (Phase.START_UP, Phase.TRAINING):
                self._end_training(digest)
            case {"unsealable": str(reason)} if self._phase is not Phase.ENDING:
                self._end({"refused": self._refuse(f"it cannot seal its model: {quoted(reason, 250)}")})
            case {"model": True} if self._phase is Phase.SEALING and len(message.descriptors) == 1:
                self._end(self._scored(message.descriptors[0]))
            case {"trained": _} | {"model": _}:
                raise ProtocolError("a run hands in one model, once")
            case _:
                raise ProtocolError("no such message")

    def _open(self, name: str) -> None:
        descriptor = self._data.open(name)
        if descriptor is None:
            self._send({"refused": f"there is no {single_line(name, 80)!r} for a run"})
            return
        is_training = self._data.is_training(name)
        if is_training and self._phase is Phase.START_UP:
            self._begin_training()
        try:
            self._send({"charged": self._charged} if is_training else {}, descriptor)
        finally:
            os.close(descriptor)

    def _begin_training(self) -> None:
        """Start the clock; a start-up longer than the committed script's has used some of the budget."""
        self._clock.start()
        self._startup = self._used() * self._clock.rate
        if (baseline := self._request.overheads) is not None:
            self._charged = max(self._startup - baseline.startup_allowed(self._limits.clock), 0.0)
        if self._before_training is not None:
            self._before_training()
        self._enter(Phase.TRAINING)
        self._began -= self._charged
        self._clock.charge(self._charged)

    def _show_clock(self) -> None:
        if self._clock.page is None:
            self._send({"refused": f"this clock counts {self._limits.clock} time, and shows none"})
        else:
            self._send({"at": self._clock.show()}, self._clock.page.fileno())

    def _end_training(self, digest: str) -> None:
        self._checked = -math.inf
        self.check()
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ProtocolError("no digest of a model")
        if self._phase is Phase.START_UP:  # a run that opens no training data has started up all the same
            self._begin_training()
        self.training_seconds = self._used()
        self._digest = digest
        self._enter(Phase.SEALING)

    def _scored(self, descriptor: int) -> Mapping[str, Any]:
        """Score the model; return the answer to the run."""
        sealing = self._used()
        try:
            with _own_copy(descriptor) as model:
                # With a claim split, that is what is probed in every row.
                rule = None if self._request.score_claim_split else self._request.probe_all_rows
                scored = self._score(model, SAMPLE, probe_all_rows=rule)
                if self._request.score_claim_split:  # the run is not told this score
                    self.claim = self._score(model, 1.0, "claim").score
        except ModelRefused as error:
            return {"refused": self._refuse(str(error))}
        except ScorerOutOfMemory as error:
            self.shortage = str(error)
            return {"refused": self.shortage}
        self.overheads = Overheads(self._startup, sealing, scored.predicting, scored.nodes)
        self.score = scored.score
        return {"score": scored.score}

    def _score(
        self, model: BinaryIO, share: float, split: Split = "val", probe_all_rows: ProbeAllRows | None = None
    ) -> Scored:
        """Have the model scored; *probe_all_rows* is asked about the score with its charge for overtime."""
        rule = None if probe_all_rows is None else lambda score: probe_all_rows(self._charged_for(score))
        score = functools.partial(
            self._scorer.score,
            model,
            self._digest,
            share,
            split=split,
            overheads=self._request.overheads,
            probe_all_rows=rule,
        )
        try:
            scored = score()
        except ScorerUnavailable:
            # The run may hold the memory, the GPU or the processes that the scorer needs; it is not needed.
            self.ended_for_scorer = True
            self._process.cancel()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(MAX_WALL_ENDING)
            scored = score()
        return dataclasses.replace(scored, score=self._charged_for(scored.score))

    def _charged_for(self, score: float) -> float:
        """Return *score* made worse by the training beyond the budget."""
        assert self.training_seconds is not None
        overtime = max(self.training_seconds / self._limits.budget - 1, 0.0)
        return score + abs(score) * OVERTIME_CHARGE * overtime

    def _end(self, answer: Mapping[str, Any]) -> None:
        self._enter(Phase.ENDING)
        with contextlib.suppress(OSError):  # a run need not wait for its answer
            self._send(answer)

    def _refuse(self, reason: str) -> str:
        self.refusal = self.refusal or single_line(reason, 300)
        return reason

    def _send(self, content: Mapping[str, Any], *descriptors: int) -> None:
        self._channel.send(content, *descriptors, timeout=ANSWER_TIMEOUT)

    def _enter(self, phase: Phase) -> None:
        self._phase, self._entered, self._began = phase, time.monotonic(), self._clock.seconds()

    def _used(self) -> float:
        """Return the seconds on the clock since the phase began."""
        return self._clock.seconds() - self._began


def _own_copy(descriptor: int) -> BinaryIO:
    """Return a copy of a file that a run has handed over, and may still write to, or raise ModelRefused."""
    with writing():
        copy = tempfile.TemporaryFile()  # noqa: SIM115  the caller's to close
    try:
        with writing():  # failing to write the copy is no fault of the model's
            copy.writelines(read_bounded(descriptor, LARGEST_MODEL))
            copy.flush()
    except FileRefused as error:
        copy.close()
        raise ModelRefused(f"the sealed model {error}") from error
    return copy
