"""The harness's side of the scorer: a process that is started once and scores many sealed models."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from pytest_autoresearch.errors import ModelRefused, ProtocolError, ScorerOutOfMemory, ScorerUnavailable
from pytest_autoresearch.records.measurement import Scored, Split
from pytest_autoresearch.records.overheads import Overheads
from pytest_autoresearch.sandbox import launch
from pytest_autoresearch.sandbox.policy import Enforcer, Policy
from pytest_autoresearch.sandbox.process import SandboxedProcess
from pytest_autoresearch.system import temporary
from pytest_autoresearch.system.channel import VARIABLE, Channel
from pytest_autoresearch.text import single_line

WARMING_UP = 180.0  # seconds to import torch and to load the tokenizer
ATTEMPTS = 2  # at anything: a scorer that has died in between is replaced
MARGIN = 15.0  # seconds beyond its limit after which a process, which should keep it itself, is given up
MEMORY = 8 << 30  # bytes for one scoring


class Scorer:
    """Starts the scorer and asks it. Its process sees the validation data, and no network."""

    def __init__(
        self,
        fixed: str,
        readable: Sequence[Path],
        enforcer: Enforcer,
        environment: Mapping[str, str],
        limit: float,
    ) -> None:
        """Remember how to start the process.

        Args:
            fixed: the text of the committed ``prepare.py``; see :mod:`~pytest_autoresearch.scoring.task`.
            readable: what the process may read beside the system: the validation data.
            enforcer: of its sandbox.
            environment: of the process.
            limit: seconds that one answer may take.
        """
        self._fixed = fixed
        self._readable = tuple(readable)
        self._enforcer = enforcer
        self._environment = environment
        self.limit = limit
        self._live = contextlib.ExitStack()
        self._process: SandboxedProcess | None = None
        self._channel: Channel | None = None
        self._is_ready = False
        self._output = b""
        self._is_cancelled = False

    @property
    def longest(self) -> float:
        """Seconds until there is a score or none: from a cold start, probed again or for a claim.

        All of it may be done twice, once beside the run and once without it.
        """
        return 2 * ATTEMPTS * (WARMING_UP + 2 * (self.limit + MARGIN))

    def start(self) -> None:
        """Start the process unless it runs, without waiting until it is ready."""
        if self._process is not None:
            return
        folder = self._live.enter_context(temporary.folder("scorer", {"prepare.py": self._fixed}))
        self._channel, theirs = Channel.pair()
        self._live.callback(self._channel.close)
        command = [sys.executable, "-m", "pytest_autoresearch.scoring.server"]
        environment = {**self._environment, VARIABLE: str(theirs.fileno()), "TMPDIR": str(folder)}
        policy = Policy(folder, readable=self._readable)
        self._process = launch.start(command, policy, self._enforcer, environment, pass_fds=[theirs.fileno()])
        self._live.callback(self._process.end)
        theirs.close()

    def wait(self) -> Channel:
        """Return the channel of the process, started if need be, once it is ready.

        Raises:
            ScorerUnavailable: it does not start.
        """
        if self._process is not None and self._process.exit_code() is not None:
            self.close()  # it has died while it had nothing to do
        try:
            self.start()
        except OSError as error:
            self.close()
            raise ScorerUnavailable(f"the scorer does not start: {error}") from None
        if self._is_cancelled:
            self.close()
            raise ScorerUnavailable("the scorer was cancelled")
        assert self._channel is not None
        if not self._is_ready:
            try:
                self._channel.receive(WARMING_UP)
            except (OSError, EOFError, ProtocolError):
                reason = self._last_line()
                self.close()
                raise ScorerUnavailable(f"the scorer did not start: {reason}") from None
            self._is_ready = True
        return self._channel

    def score(
        self,
        model: BinaryIO,
        digest: str,
        share: float,
        *,
        split: Split = "val",
        overheads: Overheads | None = None,
        probe_all_rows: Callable[[float], bool] | None = None,
    ) -> Scored:
        """Return the score of a sealed model.

        A scorer that fails is replaced and asked once more: that may not be the model's fault.

        Args:
            model: the file.
            digest: of the model, as the run announced it.
            share: of the rows, for causality probes.
            split: of the validation data.
            overheads: of the baseline; a model may take a multiple of them. None is no limit.
            probe_all_rows: tells whether a score is to be probed in all rows before it is returned.

        Raises:
            ModelRefused: it gets no score.
            ScorerOutOfMemory: the accelerator has no memory left for it.
            ScorerUnavailable: it does not start, fails before it has read the model, or may not use the GPU.
        """
        request = {"score": True, "digest": digest, "share": share, "split": split}
        request |= {"seconds": self.limit, "memory": MEMORY, "waits": probe_all_rows is not None}
        if overheads is not None:
            request |= {"predicting": overheads.predicting_allowed, "nodes": overheads.nodes_allowed}
        is_read = False
        for _ in range(ATTEMPTS):
            channel = self.wait()
            try:
                channel.send(request, model.fileno())
                while (answer := self._received(channel)) == {"read": True}:
                    is_read = True
                if probe_all_rows is not None and "score" in answer:
                    if probe_all_rows(Scored.from_json(answer).score):
                        channel.send({"more": 1.0})
                        answer = self._received(channel)
                    else:
                        channel.send({"enough": True})
            except (OSError, EOFError, ProtocolError):
                answer = {"failed": "it did not survive this model"}
            except BaseException:
                self.close()  # or the next model would be given the answer to this one
                raise
            if "failed" not in answer:
                return self._scored(answer)
            self.close()
        reason = f"the scorer failed {ATTEMPTS} times: {answer['failed']}"
        raise ModelRefused(reason) if is_read else ScorerUnavailable(reason)

    def calibrate(self, end: Channel, cores: Sequence[int], on_close: Callable[[], object]) -> None:
        """Have a fork tell the speed of *cores* over *end*; *on_close* is called when the process ends.

        Raises:
            OSError: the process is gone.
            ScorerUnavailable: it does not start.
        """
        channel = self.wait()
        self._live.callback(on_close)
        channel.send({"calibrate": [*cores]}, end.fileno())

    def close(self) -> None:
        """End the process, and its forks."""
        self._live.close()
        self._process = self._channel = None
        self._is_ready = False

    def _received(self, channel: Channel) -> Mapping[str, object]:
        return channel.receive(self.limit + MARGIN).content

    def _scored(self, answer: Mapping[str, object]) -> Scored:
        self._drain()
        match answer:
            case {"score": _}:
                return Scored.from_json(answer)
            case {"out of memory": reason}:
                raise ScorerOutOfMemory(str(reason))
            case {"broken": reason}:
                raise ScorerUnavailable(f"the scorer cannot work: {reason}")
        raise ModelRefused(str(answer.get("refused", "the scorer gave no answer")))

    def cancel(self) -> None:
        """End the process for good, from any thread: requests now and later get no answer."""
        self._is_cancelled = True
        if (process := self._process) is not None:
            process.cancel()

    def _last_line(self) -> str:
        """Return the last line that the process printed."""
        self._drain()
        lines = self._output.decode(errors="replace").strip().splitlines()
        return single_line(lines[-1]) if lines else "it said nothing"

    def _drain(self) -> None:
        """Read what the process printed: a full pipe would stop it."""
        assert self._process is not None
        output = self._process.output
        os.set_blocking(output.fileno(), False)
        self._output = (self._output + (output.read() or b""))[-4096:]
