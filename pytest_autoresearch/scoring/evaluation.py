"""Scoring: what a sealed model comes to, less what looking ahead brings it.

The code here is trusted and what it reads is hostile. A sealed model is interpreted, operator by operator
from the list in operators.py, by the committed ``prepare.py``. Whatever is short of a score is Refused, and
its message is one line.
"""

from __future__ import annotations

import ctypes
import functools
import math
import secrets
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch

from pytest_autoresearch.errors import ModelRefused
from pytest_autoresearch.records.measurement import Scored
from pytest_autoresearch.scoring.causality import CausalityProbes
from pytest_autoresearch.scoring.export import Model
from pytest_autoresearch.scoring.interpreter import MOST_NODES, Interpreter
from pytest_autoresearch.scoring.recording import one_by_one

BATCH_SIZE = 32  # rows of a batch; the model sees them one at a time
M_PERTURB, FILLING = -6, 0xA5  # an option of glibc's malloc, and the complement of what it fills with
# Nats by which replacing the future may change a surprise. Attention and matrix products give exactly 0; an
# FFT, or a dispatch whose groups change their sizes, rounds in float32 by about 1e-5.
TOLERANCE = 1e-3
SLOWER = 4.0  # times that an accelerator may take in float32 for what it does in 16 bits
# Probes before a score is kept, stored or claimed. Looking ahead at one position in 1,024 is then worth most:
# it is missed in 37 % of all cases, and gains a part in 2,800 of the score on the mean. benchmarks/probes.py
THOROUGH = 1_024


class Scoring:
    """A sealed model that is scored: evaluated once, and probed as often as it is asked for."""

    def __init__(
        self,
        prepare: ModuleType,
        content: bytes,
        announced: str,
        *,
        split: str = "val",
        predicting: float = math.inf,
        nodes: int = MOST_NODES,
    ) -> None:
        """Evaluate a model.

        Args:
            prepare: the committed prepare.py, imported.
            content: of the sealed model's file.
            announced: the digest of the model as it was when the clock stopped.
            split: of the validation data: ``val``, or ``claim``, which no verdict is made on.
            predicting: seconds that the model may predict for, in one pass over the validation data.
            nodes: that its graph may have.

        Raises:
            Refused: the model gets no score.
        """
        self._prepare = prepare
        self._split = split
        self._predicting = predicting
        self._model = Interpreter(content, announced, prepare.DEVICE, nodes)
        self._evaluation = Evaluation(prepare, self._model, split, predicting)
        self._took = self._evaluation.took

    def probed(self, share: float) -> Scored:
        """Return what evaluate_bpb finds, less what looking ahead brings by probes that are drawn now.

        Args:
            share: of the rows to probe; 1 is for all of them, with at least THOROUGH probes.

        Raises:
            Refused: the model gets no score.
        """
        seed = secrets.randbits(63)
        probes = self._evaluation.probed(share, seed)
        if probes.caught(TOLERANCE) and self._model.coarse:
            # 16 bits may round as far as that, in a dispatch whose groups change their sizes, and tip a
            # router between two experts. float32 does not, so a model that changes there too looks ahead.
            # The probes are the same ones: others would be a second chance to be missed.
            self._widen()
            probes = self._evaluation.probed(share, seed)
        if caught := probes.caught(TOLERANCE):
            what = "changed with the tokens that come later"
            raise ModelRefused(f"it is not causal: {caught} of {len(probes.changes)} probes {what}")
        return Scored(self._evaluation.claimed * probes.factor, self._took, self._model.nodes)

    def _widen(self) -> None:
        """Evaluate the model in float32."""
        self._model.widen()
        times = 1 if self._prepare.DEVICE.type == "cpu" else SLOWER
        try:
            self._evaluation = Evaluation(self._prepare, self._model, self._split, times * self._predicting)
        except ModelRefused as error:
            raise ModelRefused(
                f"it is not causal in 16 bits, and without a score in float32: {error}"
            ) from None


class Evaluation:
    """What evaluate_bpb finds for a model that sees each row alone: it could learn from the others."""

    def __init__(
        self, prepare: ModuleType, model: Model, split: str = "val", predicting: float = math.inf
    ) -> None:
        """Evaluate; the arguments are as for :class:`Scoring`.

        Raises:
            Refused: the model gets no score.
        """
        self._model = one_by_one(model, prepare.DEVICE)
        self._surprise = prepare.surprise
        self._is_queued = prepare.DEVICE.type != "cpu"  # an accelerator computes behind the back of Python
        self._now = time.monotonic if self._is_queued else time.process_time
        self._predicting = predicting
        self.took = 0.0
        """Seconds that the model predicted for."""
        tokenizer = ready(prepare)
        self._vocabulary = tokenizer.vocab_size
        self._seen = CausalityProbes(tokenizer.token_bytes, 0.0)
        self.claimed = float(prepare.evaluate_bpb(self._timed, tokenizer, BATCH_SIZE, self._seen, split))
        if not math.isfinite(self.claimed):
            raise ModelRefused(f"its score is {self.claimed}")

    def probed(self, share: float, seed: int) -> CausalityProbes:
        """Return probes of *share* of the rows, drawn by *seed*, and run.

        Raises:
            Refused: an operator cannot be applied.
        """
        probes = self._seen.again(share, THOROUGH if share >= 1 else 1, seed)
        probes.run(self._alone, self._surprise)
        return probes

    def _timed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits of rows, within the time that the model may take."""
        began = self._now() - self.took
        rows = []
        for row in tokens:
            rows.append(self._model(row[None]))
            self._charge(began)
        if self._is_queued:
            torch.accelerator.synchronize()
            self._charge(began)
        return self._together(rows)

    def _charge(self, began: float) -> None:
        self.took = self._now() - began
        if self.took > self._predicting:
            allowed = f"{self._predicting:.1f} s, what a model may take here"
            raise ModelRefused(f"its predictions take more than {allowed}")

    def _alone(self, tokens: torch.Tensor) -> torch.Tensor:
        return self._together([self._model(row[None]) for row in tokens])

    def _together(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        found = torch.cat(list(rows))
        if found.shape[2] < self._vocabulary:
            raise ModelRefused(f"its vocabulary is {found.shape[2]}, not {self._vocabulary}")
        return found


def fill_memory() -> None:
    """Have memory that nobody wrote hold a constant, in this process from now on.

    An operator that returns such memory would else return what an earlier row has left there: the list of
    operators had one. torch fills what its operators ask for as empty, and the C library what it hands out.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_PERTURB, FILLING)


@functools.cache
def ready(prepare: ModuleType) -> Any:
    """Return the tokenizer, which is loaded once: that verifies all prepared data, and has it read."""
    return prepare.Tokenizer.load()
