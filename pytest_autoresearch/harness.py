"""What a script calls while it is measured: the run's side of the wire.

A ``prepare.py`` imports it when the environment names a wire. Nothing here is trusted, for it runs inside
the trial, which may replace any of it: whatever is said over the wire is checked at the other end.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from pytest_autoresearch.runs.clock import ClockReader
from pytest_autoresearch.system.channel import Channel, Message

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from pytest_autoresearch.scoring.export import Trace

CHANGED = (
    "what the model computes has changed since it was traced: trace it after that, or not before it is scored"
)

_traced: list[Trace] = []
_charged = 0.0


def open_data(name: str) -> BinaryIO:
    """Return one of the files that the experiment gives its runs, open for reading.

    The first file of training data starts the clock.

    Raises:
        PermissionError: there is no file of that *name* for a run.
    """
    answer = _ask({"open": name})
    if not answer.descriptors:
        raise PermissionError(answer.content.get("refused", name))
    global _charged  # noqa: PLW0603 - a run has one clock
    _charged = float(answer.content.get("charged", _charged))
    return os.fdopen(answer.descriptors[0], "rb")


def clock() -> float:
    """Return the seconds of its budget that this run has used, 0 until its training starts.

    Raises:
        PermissionError: the experiment's clock is one that a run can read by itself.
    """
    return _sight().seconds()


def charged() -> float:
    """Return the seconds of its budget that this run had used when its training started.

    A start-up that takes longer than the committed script's is charged. :func:`clock` counts it in; a
    script that reads another clock, of the processor or of wall time, has to add it.
    """
    return _charged


def trace(model: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor) -> None:
    """Trace the model that will be handed in, before the clock starts; :func:`score` then need not, on it.

    A model whose graph changes later, but for its weights, is refused in the end. One that cannot be
    traced is refused then too, and not here.

    Args:
        model: as for :func:`score`; another one of the same structure may be handed in.
        tokens: as for :func:`score`.
    """
    from pytest_autoresearch.errors import ExportError
    from pytest_autoresearch.scoring.export import Trace

    with contextlib.suppress(ExportError):  # which is said when it is handed in
        _traced[:] = [Trace(model, tokens)]


def score(model: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor) -> float:
    """Hand in a trained model and return its score, as the scorer computes it.

    The clock stops at the digest of the model: of its graph and its weights. A run hands in one model.

    Args:
        model: maps tokens to logits, (B, T) to (B, T, vocabulary), for any B.
        tokens: int64 (B, T) in the model's range, on its device; an example of the input.

    Raises:
        SystemExit: the model cannot be sealed, or is refused; the message says why.
    """
    answer = _handed_in(model, tokens).content
    if "score" not in answer:
        raise SystemExit(f"no score: {answer.get('refused')}")
    return float(answer["score"])


def _handed_in(model: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor) -> Message:
    from pytest_autoresearch.errors import ExportError
    from pytest_autoresearch.scoring.export import seal

    try:
        sealed = _traced[0].seal(model) if _traced else seal(model, tokens)
        _wire().send({"trained": sealed.digest})
        has_changed = bool(_traced) and seal(model, tokens).digest != sealed.digest
    except ExportError as error:
        return _ask({"unsealable": str(error)})
    if has_changed:
        return _ask({"unsealable": CHANGED})
    with tempfile.TemporaryFile() as file:
        sealed.write(file)
        file.flush()
        _give_memory_back()
        return _ask({"model": True}, file.fileno())


def _give_memory_back() -> None:
    """Give back the GPU's memory that torch holds and does not use: the scorer computes there too."""
    import torch

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()


def _ask(question: Mapping[str, Any], *descriptors: int) -> Message:
    _wire().send(question, *descriptors)
    return _wire().receive()


@functools.cache
def _sight() -> ClockReader:
    answer = _ask({"clock": True})
    if not answer.descriptors:
        raise PermissionError(answer.content.get("refused", "clock"))
    [descriptor] = answer.descriptors
    try:
        return ClockReader(descriptor, answer.content["at"])
    finally:
        os.close(descriptor)


@functools.cache
def _wire() -> Channel:
    return Channel.inherited()
