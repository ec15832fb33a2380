"""The protocols between the scorer and an experiment.

The server, the interpreter and the client know a :class:`Task` and nothing of language models. The one kind
of task so far is :class:`~pytest_autoresearch.scoring.evaluation.LanguageModel`, for a ``prepare.py`` that is
a :class:`LanguageModelExperiment`. Another kind brings a class of its own, and ``server.main`` chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    import torch

    from pytest_autoresearch.records.measurement import Scored
    from pytest_autoresearch.scoring.export import Model
    from pytest_autoresearch.scoring.interpreter import Interpreter
    from pytest_autoresearch.scoring.metrics import Watch


class Task(Protocol):
    """Turns sealed models into scores. It is made once, in the scorer, and used in a fork for each model."""

    @property
    def device(self) -> torch.device:
        """The device to compute on."""

    def evaluate(self, model: Interpreter, split: str, predicting: float) -> Evaluated:
        """Evaluate a model.

        Args:
            model: checked, and not trusted: what it returns may be anything.
            split: of the validation data: ``val``, or ``claim``, which no verdict is made on.
            predicting: seconds that the model may predict for in one pass over that data.

        Raises:
            ModelRefused: the model gets no score.
        """


class Evaluated(Protocol):
    """A model that is evaluated, and can be probed as often as it is asked for."""

    def probed(self, share: float) -> Scored:
        """Return the score, made worse by what forbidden knowledge has brought, as probes drawn now find it.

        Args:
            share: of the examples to probe; 1 is for all of them, as a score that is kept is probed.

        Raises:
            ModelRefused: the model gets no score.
        """


class LanguageModelExperiment(Protocol):
    """The ``prepare.py`` of a sealed experiment with a language model, as far as the scorer uses it."""

    DEVICE: torch.device
    Tokenizer: type[TextTokenizer]

    def evaluate_bpb(
        self, model: Model, tokenizer: TextTokenizer, batch_size: int, watch: Watch | None, split: str
    ) -> float:
        """Return a loss on *split*, lower is better; each batch is shown to *watch*."""

    def surprise(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the surprise (B, T), in nats, of targets (B, T) under logits (B, T, vocabulary)."""


class TextTokenizer(Protocol):
    """The tokenizer of a :class:`LanguageModelExperiment`; the bytes of a special token are 0."""

    vocab_size: int
    token_bytes: Sequence[int]

    @classmethod
    def load(cls) -> Self:
        """Return the prepared tokenizer; called once, before the first model is scored."""
