"""The process that turns sealed models into scores: started once, warm ever after."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from pytest_autoresearch.errors import ModelRefused, ProtocolError, ScorerOutOfMemory, ScorerUnavailable
from pytest_autoresearch.records.measurement import Scored
from pytest_autoresearch.records.overheads import Overheads
from pytest_autoresearch.sandbox import launch
from pytest_autoresearch.system import temporary
from pytest_autoresearch.system.channel import VARIABLE, Channel
from pytest_autoresearch.system.files import writing
from pytest_autoresearch.system.text import single_line

if TYPE_CHECKING:
    from pytest_autoresearch.runs.clock import Kind

# Seconds that one answer may take, to which ANSWERING_SHARE budgets are added. What a model may take is
# decided by what the baseline's took, see needs.py. This ends a scorer that hangs, so no honest
# model may come near it: an accelerator scores 320 times as much text, may be a slow one, and may have to do
# it again in float32.
ANSWERING: Mapping[Kind, float] = {"calibrated": 120.0, "cpu": 120.0, "wall": 600.0}
ANSWERING_SHARE = 2.0
WARMING_UP = 180.0  # seconds to import torch and to load the tokenizer
PROBING = 1.0  # seconds of wall time that a probe may take on a machine that is busy with other things
ATTEMPTS = 2  # at anything: a scorer that has died in between is replaced
MARGIN = 15.0  # seconds beyond the limit after which the process itself, which keeps it, is given up
MEMORY = 8 << 30  # bytes for one scoring


def answering(budget: float, clock: Kind) -> float:
    """Return the seconds of wall time that one answer may take, for a budget in seconds on that clock."""
    return ANSWERING[clock] + ANSWERING_SHARE * budget


Split = Literal["val", "claim"]
"""Of the validation data: what verdicts are made on, and what claims are made on and no verdict sees."""


class Scorer:
    """The parent's end. The process sees the validation data, and no network; each model is a fork of it."""

    def __init__(
        self,
        fixed: str,
        readable: Sequence[Path],
        enforcer: launch.Enforcer,
        environment: Mapping[str, str],
        limit: float,
    ) -> None:
        """Remember how to start.

        Args:
            fixed: the text of the committed ``prepare.py``, whose ``evaluate_bpb`` scores.
            readable: what the process may read beside the system: the validation data.
            enforcer: of its sandbox.
            environment: of the process.
            limit: seconds that one answer may take; see :func:`answering`.
        """
        self._fixed = fixed
        self._readable = tuple(readable)
        self._enforcer = enforcer
        self._environment = environment
        self.limit = limit
        self.quickest = math.inf
        """Seconds of a probe at the machine's best, of all that were asked for."""
        self._live = contextlib.ExitStack()
        self._guarded: launch.SandboxedProcess | None = None
        self._wire: Channel | None = None
        self._is_ready = False
        self._output = b""

    @property
    def longest(self) -> float:
        """Seconds until a score is there or given up: from a cold start, probed again or for a claim.

        All of it may be done twice, once beside the run and once without it.
        """
        return 2 * ATTEMPTS * (WARMING_UP + 2 * (self.limit + MARGIN))

    def wait(self) -> None:
        """Wait until the process is ready, so that it does not get so at the expense of a run.

        Raises:
            Broken: it does not start.
        """
        self._ready()

    def start(self) -> None:
        """Start the process, unless it runs, without waiting for it to get ready."""
        if self._guarded is not None:
            return
        folder = self._live.enter_context(temporary.folder("scorer"))
        with writing(folder):
            (folder / "prepare.py").write_bytes(self._fixed.encode())
        self._wire, theirs = Channel.pair()
        self._live.callback(self._wire.close)
        command = [sys.executable, "-m", "pytest_autoresearch.scoring.server"]
        environment = {**self._environment, VARIABLE: str(theirs.fileno()), "TMPDIR": str(folder)}
        policy = launch.Policy(folder, readable=self._readable)
        self._guarded = launch.start(command, policy, self._enforcer, environment, pass_fds=[theirs.fileno()])
        self._live.callback(self._guarded.end)
        theirs.close()

    def score(
        self,
        model: BinaryIO,
        digest: str,
        share: float,
        *,
        split: Split = "val",
        needs: Overheads | None = None,
        thorough: Callable[[float], bool] | None = None,
    ) -> Scored:
        """Return the score of a sealed model.

        A scorer that fails is replaced and asked once more: its fault is not the model's.

        Args:
            model: the file.
            digest: of the model as it was announced.
            share: of the rows that causality probes look at.
            split: of the validation data.
            needs: what the baseline took; a model may take some times that. None is no limit.
            thorough: tells of the score whether probes shall look at all rows too, for the score to return.

        Raises:
            Refused: it gets none.
            OutOfMemory: the accelerator has no room for it.
            Broken: the scorer does not start, fails before it has read the model, or may not use the GPU.
        """
        request = {"score": True, "digest": digest, "share": share, "split": split}
        request |= {"seconds": self.limit, "memory": MEMORY, "waits": thorough is not None}
        if needs is not None:
            request |= {"predicting": needs.predicting_allowed, "nodes": needs.nodes_allowed}
        is_read = False
        for _ in range(ATTEMPTS):
            wire = self._ready()
            try:
                wire.send(request, model.fileno())
                while (answer := self._received(wire)) == {"read": True}:
                    is_read = True
                if thorough is not None and "score" in answer:
                    if thorough(Scored.from_json(answer).score):
                        wire.send({"more": 1.0})
                        answer = self._received(wire)
                    else:
                        wire.send({"enough": True})
            except (OSError, EOFError, ProtocolError):
                answer = {"failed": "it did not survive this model"}
            except BaseException:
                self.close()  # or the next model would be given the answer to this one
                raise
            if "failed" not in answer:
                return self._scored(answer)
            self.close()  # and start afresh
        reason = single_line(f"the scorer failed {ATTEMPTS} times: {answer['failed']}", 300)
        raise ModelRefused(reason) if is_read else ScorerUnavailable(reason)

    def _received(self, wire: Channel) -> Mapping[str, object]:
        return wire.receive(self.limit + MARGIN).content

    def _scored(self, answer: Mapping[str, object]) -> Scored:
        self._drain()
        match answer:
            case {"score": _}:
                return Scored.from_json(answer)
            case {"out of memory": reason}:
                raise ScorerOutOfMemory(single_line(str(reason), 300))
            case {"broken": reason}:
                raise ScorerUnavailable(f"the scorer cannot work: {single_line(str(reason), 300)}")
        raise ModelRefused(single_line(str(answer.get("refused", "the scorer gave no answer")), 300))

    def probe(self, count: int) -> list[float]:
        """Do the fixed piece of work *count* times; return the processor's seconds of each.

        Raises:
            Broken: the scorer does not start, or does not survive it.
        """
        for _ in range(ATTEMPTS):
            wire = self._ready()
            try:
                wire.send({"probe": count})
                answer = wire.receive(MARGIN + PROBING * count).content
                probes = [float(seconds) for seconds in answer["probe"]]
            except (OSError, EOFError, ProtocolError):
                self.close()
            except BaseException:
                self.close()  # or the next request would be given the answer to this one
                raise
            else:
                self.quickest = min(self.quickest, statistics.fmean(probes))
                return probes
        raise ScorerUnavailable("the scorer does not survive a probe of the machine's pace")

    def close(self) -> None:
        """End the process."""
        self._live.close()
        self._guarded = self._wire = None
        self._is_ready = False

    def _ready(self) -> Channel:
        if self._guarded is not None and self._guarded.exit_code() is not None:
            self.close()  # it has died while it had nothing to do
        try:
            self.start()
        except OSError as error:
            self.close()
            raise ScorerUnavailable(f"the scorer does not start: {single_line(str(error), 200)}") from None
        assert self._wire is not None
        if not self._is_ready:
            try:
                self._wire.receive(WARMING_UP)
            except (OSError, EOFError, ProtocolError):
                said = self._said()
                self.close()
                raise ScorerUnavailable(f"the scorer did not start: {said}") from None
            self._is_ready = True
        return self._wire

    def _said(self) -> str:
        """Return the last line that the process printed."""
        self._drain()
        lines = self._output.decode(errors="replace").strip().splitlines()
        return single_line(lines[-1]) if lines else "it said nothing"

    def _drain(self) -> None:
        """Read what the process printed: a full pipe would stop it."""
        assert self._guarded is not None
        output = self._guarded.process.stdout
        assert output is not None
        os.set_blocking(output.fileno(), False)
        self._output = (self._output + (output.read() or b""))[-4096:]
