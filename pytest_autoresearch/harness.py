"""What a script calls while it is measured: the run's side of the wire.

A ``prepare.py`` imports it when the environment names a wire. Nothing here is trusted, for it runs inside
the trial, which may replace any of it: whatever is said over the wire is checked at the other end.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from pytest_autoresearch.measuring.clock import Sight
from pytest_autoresearch.measuring.wire import Message, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


def open_data(name: str) -> BinaryIO:
    """Return one of the files that the experiment gives its runs, open for reading.

    The first file of training data starts the clock.

    Raises:
        PermissionError: there is no file of that *name* for a run.
    """
    answer = _ask({"open": name})
    if not answer.descriptors:
        raise PermissionError(answer.content.get("refused", name))
    return os.fdopen(answer.descriptors[0], "rb")


def clock() -> float:
    """Return the seconds of its budget that this run has used, 0 until its training starts.

    Raises:
        PermissionError: the experiment's clock is one that a run can read by itself.
    """
    return _sight().seconds()


def score(model: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor) -> float:
    """Hand in a trained model and return its score, as the scorer computes it.

    Its weights are fixed, and the clock stops, before it is sealed. A run hands in one model.

    Args:
        model: maps tokens to logits, (B, T) to (B, T, vocabulary), for any B.
        tokens: int64 (B, T) in the model's range, on its device; an example of the input.

    Raises:
        SystemExit: the model cannot be sealed, or is refused; the message says why.
    """
    from pytest_autoresearch.measuring.sealing import Unsealable, digests, seal

    _wire().send({"trained": digests(model)})
    with tempfile.TemporaryFile() as file:
        try:
            seal(model, tokens, file)
        except Unsealable as error:
            answer = _ask({"unsealable": str(error)})
        else:
            file.flush()
            answer = _ask({"model": True}, file.fileno())
    if "score" not in answer.content:
        raise SystemExit(f"no score: {answer.content.get('refused')}")
    return float(answer.content["score"])


def _ask(question: Mapping[str, Any], *descriptors: int) -> Message:
    _wire().send(question, *descriptors)
    return _wire().receive()


@functools.cache
def _sight() -> Sight:
    answer = _ask({"clock": True})
    if not answer.descriptors:
        raise PermissionError(answer.content.get("refused", "clock"))
    [descriptor] = answer.descriptors
    try:
        return Sight(descriptor, answer.content["at"])
    finally:
        os.close(descriptor)


@functools.cache
def _wire() -> Wire:
    return Wire.inherited()
