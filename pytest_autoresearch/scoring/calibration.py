"""The harness's side of a process that measures how fast the cores of a run are."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Sequence

from pytest_autoresearch.errors import ProtocolError, ScorerUnavailable
from pytest_autoresearch.scoring.client import ATTEMPTS, MARGIN, Scorer
from pytest_autoresearch.system.channel import Channel

PROBING = 1.0  # seconds of wall time that a probe may take on a machine that is busy with other things


class Calibration:
    """A fork of the scorer that does a fixed piece of work on request; it ends with the scorer.

    There is one for each run that is measured at a time. It starts with the first request.
    """

    def __init__(self, scorer: Scorer, cores: Sequence[int] = ()) -> None:
        """Remember which *cores* to measure, by number; without any, those that the scorer may use."""
        self._scorer = scorer
        self._cores = tuple(cores)
        self._channel: Channel | None = None
        self.quickest = math.inf
        """Seconds that the work took at the cores' best, as the mean of one call."""

    def probe(self, count: int) -> list[float]:
        """Do the work *count* times; return the processor seconds of each.

        Raises:
            ScorerUnavailable: the process does not start, or does not survive it.
        """
        for _ in range(ATTEMPTS):
            channel = self._connected()
            try:
                channel.send({"probe": count})
                answer = channel.receive(MARGIN + PROBING * count).content
                probes = [float(seconds) for seconds in answer["probe"]]
            except (OSError, EOFError, ProtocolError):
                self.close()
            except BaseException:
                self.close()  # or the next request would be given the answer to this one
                raise
            else:
                self.quickest = min(self.quickest, statistics.fmean(probes))
                return probes
        raise ScorerUnavailable("the scorer does not survive a probe of the machine's speed")

    def close(self) -> None:
        """End the process."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _connected(self) -> Channel:
        """Return the channel of the process, started if need be."""
        for _ in range(ATTEMPTS):
            try:
                return self._channel or self._started()
            except (OSError, EOFError, ProtocolError):
                self.close()
                self._scorer.close()
        raise ScorerUnavailable("the scorer starts no process that measures the machine's speed")

    def _started(self) -> Channel:
        ours, theirs = Channel.pair()
        try:
            with contextlib.closing(theirs):
                self._scorer.calibrate(theirs, self._cores, self.close)
            ours.receive(MARGIN)  # that it is ready
        except BaseException:
            ours.close()
            raise
        self._channel = ours
        return ours
