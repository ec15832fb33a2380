"""The harness's side of one run's wire: what the run is given, when its clock runs, what it hands in."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import re
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from pytest_autoresearch.errors import (
    ModelRefused,
    ProtocolError,
    RunAborted,
    ScorerOutOfMemory,
    ScorerUnavailable,
)
from pytest_autoresearch.records.measurement import Scored
from pytest_autoresearch.records.overheads import Overheads
from pytest_autoresearch.runs.clock import Calibrated, Clock, Kind
from pytest_autoresearch.runs.data import Data
from pytest_autoresearch.sandbox.launch import SandboxedProcess
from pytest_autoresearch.scoring.client import Scorer, Split
from pytest_autoresearch.system.channel import Channel, Message
from pytest_autoresearch.system.files import writing
from pytest_autoresearch.system.text import quoted, single_line

ProbeAllRows = Callable[[float], bool]
"""Tells of a score whether it counts so much that its model is probed thoroughly."""

# Seconds on the clock that may be spent before and after training, to compile and to seal, at the very most.
PHASE_LIMITS = {
    "calibrated": {"start-up": 120.0, "sealing": 60.0},
    "cpu": {"start-up": 120.0, "sealing": 60.0},
    "wall": {"start-up": 180.0, "sealing": 120.0},
}
WAITING = 300.0  # seconds of wall time for either, however busy the machine is
GRACE = 1.5  # seconds of overtime, for the step in which the budget ended,
GRACE_SHARE = 0.02  # and that share of the budget
# What a run trains beyond its budget makes its score worse: one budget more by this share of the score, less
# in proportion. That is more than training longer gains: see benchmarks/overtime.py.
OVERTIME_CHARGE = 0.5
# Wall time that a budget on another clock may take, in budgets: its core may be slow and shared with others.
STRETCH = {"calibrated": 5.0, "cpu": 2.0}
STALLING = 30.0  # and seconds
LEAVING = 10.0  # seconds to end once the model is scored
BETWEEN_CHECKS = 0.5  # seconds: the processor's time of a tree of processes takes a millisecond to add up
ANSWERING = 5.0  # seconds that a run may let an answer wait
QUESTIONS = 100  # of one run at most
LARGEST = 2 << 30  # bytes of a sealed model
PROBED = 0.1  # share of the rows that causality probes look at, unless the score is to be kept


@dataclasses.dataclass(frozen=True, slots=True)
class SealedLimits:
    """What every run of a sealed experiment is held to."""

    data: Data
    scorer: Scorer
    budget: float
    """Seconds of training, on *clock*."""
    clock: Kind

    @property
    def limit(self) -> float:
        """Seconds of wall time that a run may take if it is slow in everything."""
        return sum(self.limits.values()) + self.scorer.longest

    @property
    def limits(self) -> Mapping[str, float]:
        """Seconds of wall time that each phase may take."""
        stretch = STRETCH.get(self.clock)
        training = self.allowed if stretch is None else stretch * self.budget + STALLING
        return {"start-up": WAITING, "training": training, "sealing": WAITING, "ending": LEAVING}

    @property
    def allowed(self) -> float:
        """Seconds on the clock that training may take."""
        return self.budget * (1 + GRACE_SHARE) + GRACE


class RunSession:
    """One run, from its first message to its score: start-up, training, sealing, then ending.

    Afterwards it has a *score*, or a *refusal*, or a *shortage*, each the reason in one line, or none.
    """

    score: float | None = None
    claim: float | None = None
    """The score on the text that claims are made on, if that was asked for."""
    refusal: str | None = None
    shortage: str | None = None
    """Of the accelerator's memory, which the scorer shares with the run."""
    training_seconds: float | None = None
    """On the clock of the terms, with what is charged for the start-up."""
    ended = False
    """Whether it was ended once it had handed in its model, for the scorer to have what it held."""
    needs: Overheads | None = None
    """What it took beside its training, once it has a score."""

    def __init__(
        self,
        terms: SealedLimits,
        wire: Channel,
        guarded: SandboxedProcess,
        thorough: ProbeAllRows,
        *,
        claimed: bool,
        needs: Overheads | None,
        before_training: Callable[[], object] | None = None,
    ) -> None:
        """Begin with the start-up; the arguments are as for :func:`measuring.run.measure`.

        *before_training* is called after the start-up, off the clock, before any data is handed over.
        """
        self._terms = terms
        self._wire = wire
        self._guarded = guarded
        self._before_training = before_training
        calibrated = terms.clock == "calibrated"
        self._clock = Calibrated(guarded, terms.scorer) if calibrated else Clock(terms.clock, guarded)
        self._thorough = thorough
        self._is_claimed = claimed
        self._phase = "start-up"
        self._since = time.monotonic()
        self._checked = -math.inf
        self._mark = self._clock.seconds()  # when the phase began
        self._baseline = needs
        self._charged = 0.0  # seconds of the budget that the start-up has used
        self._model = ""  # its digest
        self._took: dict[str, float] = {}  # seconds on the clock, by phase
        self._questions = 0

    def close(self) -> None:
        """Let go of the clock, once the run has ended."""
        self._clock.close()

    def fileno(self) -> int:
        """Return the descriptor to select on."""
        return self._wire.fileno()

    def check(self) -> None:
        """Raise :class:`Over` if the present phase has taken too long; looks twice a second at most.

        Raises:
            Over: it has.
            scorer.Broken: the clock cannot be kept.
        """
        now, terms = time.monotonic(), self._terms
        if now - self._checked < BETWEEN_CHECKS:
            return
        self._checked = now
        if self._phase == "training":
            self._clock.correct()
        used, wall = self._used(), now - self._since
        if self._phase == "training" and used > terms.allowed:
            start = f" and its start-up {self._charged:.1f} s too long" if self._charged else ""
            trained = used - self._charged
            raise RunAborted(f"still training after {trained:.1f} s{start}, its budget is {terms.budget:g} s")
        if used > self._limit:
            raise RunAborted(
                f"{self._phase} took {used:.1f} s, and was not over: it may take {self._limit:.1f} s"
            )
        if wall > terms.limits[self._phase]:
            raise RunAborted(f"{self._phase} took {wall:.0f} s of wall time, and was not over")

    @property
    def _limit(self) -> float:
        """Seconds on the clock that the present phase may take, if it is not training."""
        limit = PHASE_LIMITS[self._terms.clock].get(self._phase, math.inf)
        if self._phase == "sealing" and self._baseline is not None:
            limit = min(limit, self._baseline.sealing_allowed)
        return limit

    def answer(self) -> bool:
        """Read what the run says and answer it; return whether there is more to come.

        Raises:
            Over: it says too late that its training is over, or what it may not say.
            scorer.Broken: there is no scorer.
        """
        try:
            messages = self._wire.read()
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
            return False  # it is gone
        return True

    def _act(self, message: Message) -> None:
        self._questions += 1
        match message.content:
            case {"open": str(name)} if self._questions <= QUESTIONS:
                self._open(name)
            case {"clock": True} if self._questions <= QUESTIONS:
                self._show_clock()
            case {"trained": str(digest)} if self._phase in ("start-up", "training"):
                self._stop_clock(digest)
            case {"unsealable": str(reason)} if self._phase != "ending":
                self._done({"refused": self._refuse(f"it cannot seal its model: {quoted(reason, 250)}")})
            case {"model": True} if self._phase == "sealing" and len(message.descriptors) == 1:
                self._done(self._scored(message.descriptors[0]))
            case {"trained": _} | {"model": _}:
                raise ProtocolError("a run hands in one model, once")
            case _:
                raise ProtocolError("no such message")

    def _open(self, name: str) -> None:
        descriptor = self._terms.data.open(name)
        if descriptor is None:
            self._send({"refused": f"there is no {single_line(name, 80)!r} for a run"})
            return
        is_training = self._terms.data.is_training(name)
        if is_training and self._phase == "start-up":
            self._start_clock()
        try:
            self._send({"charged": self._charged} if is_training else {}, descriptor)
        finally:
            os.close(descriptor)

    def _start_clock(self) -> None:
        """Begin with the training. A start-up longer than the committed script's has used some budget."""
        self._clock.start()
        took = self._used() * self._clock.rate
        if self._baseline is not None:
            self._charged = max(took - self._baseline.startup_allowed(self._terms.clock), 0.0)
        if self._before_training is not None:
            self._before_training()
        self._enter("training")
        self._took["start-up"] = took
        self._mark -= self._charged
        self._clock.charge(self._charged)

    def _show_clock(self) -> None:
        if isinstance(self._clock, Calibrated):
            self._send({"at": self._clock.show()}, self._clock.face.fileno())
        else:
            self._send({"refused": f"this clock counts {self._terms.clock} time, and shows none"})

    def _stop_clock(self, digest: str) -> None:
        self._checked = -math.inf
        self.check()
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ProtocolError("no digest of a model")
        if self._phase == "start-up":  # a run that wants no data has started up all the same
            self._start_clock()
        self.training_seconds = self._used()
        self._model = digest
        self._enter("sealing")

    def _scored(self, descriptor: int) -> Mapping[str, Any]:
        self._took["sealing"] = self._used()
        try:
            with _own_copy(descriptor) as model:
                found = self._score(model, PROBED, thorough=None if self._is_claimed else self._thorough)
                if self._is_claimed:  # not for the run to know
                    self.claim = self._score(model, 1.0, "claim").score
        except ModelRefused as error:
            return {"refused": self._refuse(str(error))}
        except ScorerOutOfMemory as error:
            self.shortage = str(error)
            return {"refused": self.shortage}
        startup, sealing = (self._took.get(phase, 0.0) for phase in ("start-up", "sealing"))
        self.needs = Overheads(startup, sealing, found.predicting, found.nodes)
        self.score = found.score
        return {"score": found.score}

    def _score(
        self, model: BinaryIO, share: float, split: Split = "val", thorough: ProbeAllRows | None = None
    ) -> Scored:
        """Have the model scored; *thorough* is asked about the score as it is charged."""
        charged = None if thorough is None else lambda score: thorough(self._charged_for(score))
        score = functools.partial(
            self._terms.scorer.score,
            model,
            self._model,
            share,
            split=split,
            needs=self._baseline,
            thorough=charged,
        )
        try:
            found = score()
        except ScorerUnavailable:
            # The run may leave it no process, no memory or no GPU to work with. Its model is handed in.
            self.ended = True
            self._guarded.cancel()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guarded.wait(LEAVING)
            found = score()
        return dataclasses.replace(found, score=self._charged_for(found.score))

    def _charged_for(self, score: float) -> float:
        """Return a score made worse by what the model was trained beyond its budget."""
        assert self.training_seconds is not None
        overtime = max(self.training_seconds / self._terms.budget - 1, 0.0)
        return score + abs(score) * OVERTIME_CHARGE * overtime

    def _done(self, answer: Mapping[str, Any]) -> None:
        self._enter("ending")
        with contextlib.suppress(
            OSError
        ):  # a run that does not wait for its answer has its score all the same
            self._send(answer)

    def _refuse(self, reason: str) -> str:
        self.refusal = self.refusal or single_line(reason, 300)
        return reason

    def _send(self, content: Mapping[str, Any], *descriptors: int) -> None:
        self._wire.send(content, *descriptors, timeout=ANSWERING)

    def _enter(self, phase: str) -> None:
        self._phase, self._since, self._mark = phase, time.monotonic(), self._clock.seconds()

    def _used(self) -> float:
        """Return the seconds on the clock since the phase began."""
        return self._clock.seconds() - self._mark


def _own_copy(descriptor: int) -> BinaryIO:
    """Return a copy of a file that a run has handed over, and may still write to.

    Raises:
        Refused: it is no regular file, or too large.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ModelRefused("the sealed model is no regular file")
    if status.st_size > LARGEST:
        raise ModelRefused(f"the sealed model has {status.st_size} bytes, at most {LARGEST} are allowed")
    with writing():
        copy = tempfile.TemporaryFile()  # noqa: SIM115  the caller's to close
    # As many bytes as it has now: it may grow, or be one of the kernel's that have no size, and no end.
    with writing():  # what is ours to write is no fault of the model's
        while chunk := _read(descriptor, min(1 << 20, status.st_size - copy.tell()), copy.tell()):
            copy.write(chunk)
        copy.flush()
    return copy


def _read(descriptor: int, length: int, position: int) -> bytes:
    try:
        return os.pread(descriptor, length, position)
    except OSError as error:
        raise ModelRefused(f"the sealed model cannot be read: {error.strerror}") from error
