"""The score of a language model: bits per byte of held-out text, plus the gain from looking ahead.

This code is trusted and the model is hostile. ``evaluate_bpb`` of the committed ``prepare.py`` evaluates it.
"""

from __future__ import annotations

import math
import secrets
import time

import torch

from pytest_autoresearch.errors import ModelRefused
from pytest_autoresearch.records.measurement import Scored
from pytest_autoresearch.scoring.causality import CausalityProbes
from pytest_autoresearch.scoring.export import Model
from pytest_autoresearch.scoring.interpreter import Interpreter
from pytest_autoresearch.scoring.recording import one_by_one
from pytest_autoresearch.scoring.task import LanguageModelExperiment

BATCH_SIZE = 32  # rows of a batch; the model sees them one at a time
# Nats by which replacing the future may change a surprise. Attention and matrix products give exactly 0; an
# FFT, or a dispatch whose groups change their sizes, rounds in float32 by about 1e-5.
TOLERANCE = 1e-3
SLOWER = 4.0  # times that an accelerator may take in float32 for what it does in 16 bits
# Causality probes before a score is kept, stored or claimed. Looking ahead at one position in 1,024 pays most
# then: it is missed in 37 % of all cases, and gains a part in 2,800 of the score on the mean. See
# benchmarks/probes.py.
THOROUGH = 1_024


class LanguageModel:
    """The :class:`~pytest_autoresearch.scoring.task.Task` of a language-model experiment."""

    def __init__(self, prepare: LanguageModelExperiment) -> None:
        """Load the tokenizer, which verifies and reads all prepared data."""
        self.prepare = prepare
        self.tokenizer = prepare.Tokenizer.load()

    @property
    def device(self) -> torch.device:
        """The device to compute on."""
        return self.prepare.DEVICE

    def evaluate(self, model: Interpreter, split: str = "val", predicting: float = math.inf) -> Scoring:
        """Evaluate a model; see :class:`~pytest_autoresearch.scoring.task.Task`."""
        return Scoring(self, model, split, predicting)


class Scoring:
    """A sealed language model, evaluated once, and probed as often as it is asked for."""

    def __init__(self, task: LanguageModel, model: Interpreter, split: str, predicting: float) -> None:
        self._task = task
        self._model = model
        self._split = split
        self._predicting = predicting
        self._evaluation = Evaluation(task, model, split, predicting)
        self._took = self._evaluation.took

    def probed(self, share: float) -> Scored:
        """Return the score plus the gain from looking ahead, as causality probes drawn now estimate it.

        Args:
            share: of the rows to probe; 1 is for all of them, with at least :data:`THOROUGH` probes.

        Raises:
            ModelRefused: it looks ahead, or gets no score.
        """
        seed = secrets.randbits(63)
        probes = self._evaluation.probed(share, seed)
        if probes.caught(TOLERANCE) and self._model.coarse:
            # 16 bits may round by more than the tolerance, in a dispatch whose groups change their sizes, and
            # tip a router between two experts. float32 does not: a model that changes there too looks ahead.
            # The probes are the same ones: new ones would be a second chance to be missed.
            self._widen()
            probes = self._evaluation.probed(share, seed)
        if caught := probes.caught(TOLERANCE):
            what = "changed with the tokens that come later"
            raise ModelRefused(f"it is not causal: {caught} of {len(probes.changes)} probes {what}")
        return Scored(self._evaluation.score * probes.factor, self._took, self._model.nodes)

    def _widen(self) -> None:
        """Evaluate the model in float32."""
        self._model.widen()
        times = 1 if self._task.device.type == "cpu" else SLOWER
        try:
            self._evaluation = Evaluation(self._task, self._model, self._split, times * self._predicting)
        except ModelRefused as error:
            raise ModelRefused(
                f"it is not causal in 16 bits, and without a score in float32: {error}"
            ) from None


class Evaluation:
    """One pass of ``evaluate_bpb``. The model sees each row alone: from other rows it could learn."""

    def __init__(
        self, task: LanguageModel, model: Model, split: str = "val", predicting: float = math.inf
    ) -> None:
        """Evaluate a model; the arguments are those of :meth:`LanguageModel.evaluate`.

        Raises:
            ModelRefused: the model gets no score.
        """
        self._model = one_by_one(_checked(model, task.tokenizer.vocab_size), task.device)
        self._surprise = task.prepare.surprise
        self._is_queued = task.device.type != "cpu"  # an accelerator computes after the call has returned
        self._now = time.monotonic if self._is_queued else time.process_time
        self._predicting = predicting
        self.took = 0.0
        """Seconds that the model predicted for."""
        self._seen = CausalityProbes(task.tokenizer.token_bytes, 0.0)
        evaluate = task.prepare.evaluate_bpb
        self.score = float(evaluate(self._timed, task.tokenizer, BATCH_SIZE, self._seen, split))
        """The loss, finite, before anything is added."""
        if not math.isfinite(self.score):
            raise ModelRefused(f"its score is {self.score}")

    def probed(self, share: float, seed: int) -> CausalityProbes:
        """Return the results of probing *share* of the rows, at places drawn by *seed*.

        Raises:
            ModelRefused: an operator cannot be applied.
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
        return torch.cat(rows)

    def _charge(self, began: float) -> None:
        self.took = self._now() - began
        if self.took > self._predicting:
            allowed = f"{self._predicting:.1f} s, what a model may take here"
            raise ModelRefused(f"its predictions take more than {allowed}")

    def _alone(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._model(row[None]) for row in tokens])


def _checked(model: Model, vocabulary: int) -> Model:
    """Return *model*, refused if its result is not logits (B, T, V), floating, with V >= *vocabulary*."""

    def checked(tokens: torch.Tensor) -> torch.Tensor:
        logits = model(tokens)
        if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
            raise ModelRefused("its output is no floating tensor")
        if logits.ndim != 3 or logits.shape[:2] != tokens.shape:
            raise ModelRefused(f"its output is of shape {tuple(logits.shape)}, not (B, T, vocabulary)")
        if logits.shape[2] < vocabulary:
            raise ModelRefused(f"its vocabulary is {logits.shape[2]}, not {vocabulary}")
        return logits

    return checked
