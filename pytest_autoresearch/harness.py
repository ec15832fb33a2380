"""The functions that a script calls while it is measured: the run's side of the channel.

A ``prepare.py`` imports this module when the environment names a channel. It runs inside the trial, which may
replace any of it, so nothing here is trusted: the other end checks every message.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from pytest_autoresearch.runs.clock import ClockReader
from pytest_autoresearch.system.channel import Channel, Message

if TYPE_CHECKING:
    import torch

    from pytest_autoresearch.scoring.export import Trace

CHANGED = (
    "what the model computes has changed since it was traced: trace it after that, or not before it is scored"
)

_traced: list[Trace] = []
_charged = 0.0


def open_data(name: str) -> BinaryIO:
    """Open a file that the experiment gives to its runs; the first one of training data starts the clock.

    Raises:
        PermissionError: a run may read no file of that *name*.
    """
    answer = _granted({"open": name})
    global _charged  # noqa: PLW0603 - a run has one clock
    _charged = float(answer.content.get("charged", _charged))
    return os.fdopen(answer.descriptors[0], "rb")


def clock() -> float:
    """Return the seconds of the budget that this run has used; 0 until its training starts.

    Raises:
        PermissionError: the experiment's clock is not ``calibrated``, so a run can read it by itself.
    """
    return _clock_reader().seconds()


def charged() -> float:
    """Return the seconds of the budget that this run had used when its training started.

    A start-up longer than the committed script's is charged. :func:`clock` includes it; a script that reads
    another clock has to add it.
    """
    return _charged


def trace(model: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor) -> None:
    """Trace a model before the clock starts, so that :func:`score` need not while it runs.

    The arguments are those of :func:`score`; another model of the same structure may be handed in. One whose
    graph has changed then, other than in its weights, is refused. So is a model that cannot be traced.
    """
    from pytest_autoresearch.errors import ExportError
    from pytest_autoresearch.scoring.export import Trace

    with contextlib.suppress(ExportError):  # reported when it is handed in
        _traced[:] = [Trace(model, tokens)]


def score(model: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor) -> float:
    """Hand in the trained model and return its score from the scorer; a run hands in one model.

    The clock stops when the digest of the model, of its graph and its weights, is announced.

    Args:
        model: maps tokens (B, T) to logits (B, T, vocabulary), for any B.
        tokens: int64 (B, T) in the model's range, on its device: an example of the input.

    Raises:
        SystemExit: the model cannot be sealed, or is refused; the message says why.
    """
    answer = _handed_in(model, tokens).content
    if "score" not in answer:
        raise SystemExit(f"no score: {answer.get('refused')}")
    return float(answer["score"])


def _handed_in(model: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor) -> Message:
    import torch

    from pytest_autoresearch.errors import ExportError
    from pytest_autoresearch.scoring.export import seal

    try:
        sealed = _traced[0].seal(model) if _traced else seal(model, tokens)
        _channel().send({"trained": sealed.digest})
        has_changed = bool(_traced) and seal(model, tokens).digest != sealed.digest
    except ExportError as error:
        return _ask({"unsealable": str(error)})
    if has_changed:
        return _ask({"unsealable": CHANGED})
    with tempfile.TemporaryFile() as file:
        sealed.write(file)
        file.flush()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            # The scorer computes on the same GPU: release what torch holds and does not use.
            gc.collect()
            torch.cuda.empty_cache()
        return _ask({"model": True}, file.fileno())


def _granted(question: Mapping[str, Any]) -> Message:
    answer = _ask(question)
    if not answer.descriptors:
        raise PermissionError(answer.content.get("refused"))
    return answer


def _ask(question: Mapping[str, Any], *descriptors: int) -> Message:
    _channel().send(question, *descriptors)
    return _channel().receive()


@functools.cache
def _clock_reader() -> ClockReader:
    answer = _granted({"clock": True})
    with os.fdopen(answer.descriptors[0], "rb") as page:
        return ClockReader(page.fileno(), answer.content["at"])


@functools.cache
def _channel() -> Channel:
    return Channel.inherited()
