"""Bits per byte, the metric of a language model, for the ``prepare.py`` of a sealed experiment to call."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it

Watch = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], object]
"""Called with each batch, (B, T) each: inputs, targets, which of them count, and the surprises in nats."""


@torch.no_grad()
def bits_per_byte(
    model: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterable[Sequence[torch.Tensor]],
    token_bytes: torch.Tensor,
    rows: int,
    watch: Watch | None = None,
) -> float:
    """Return the mean surprise of *model* at the targets, in bits per byte of their text.

    Surprise and bytes are each summed over all targets, so unlike the loss the quotient does not depend on
    the vocabulary. Special tokens stand for no text and count in neither.

    Args:
        model: maps tokens (B, T) to logits (B, T, vocabulary).
        batches: of inputs and targets, int64 (B, T) each; further items of a batch are ignored.
        token_bytes: int64 (vocabulary,), on the device of the batches: the bytes of each token's text, 0 for
            a special token.
        rows: the number of rows to score, whatever the batch size.
        watch: the scorer's, as ``evaluate_bpb`` is given it.
    """
    device = token_bytes.device
    exact = device if device.type == "cuda" else torch.device("cpu")  # Apple's GPUs have no float64
    nats = torch.zeros((), dtype=torch.float64, device=exact)
    size = torch.zeros((), dtype=torch.int64, device=device)
    done = 0
    for batch in batches:
        inputs, targets = (part[: rows - done] for part in batch[:2])
        target_bytes = token_bytes[targets]
        surprises = surprise(model(inputs), targets)
        nats += torch.where(target_bytes > 0, surprises, 0).to(exact).sum(dtype=torch.float64)
        size += target_bytes.sum()
        if watch is not None:
            watch(inputs, targets, target_bytes > 0, surprises)
        done += len(inputs)
        if done >= rows:
            break
    return nats.item() / math.log(2) / size.item()


def surprise(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the nats (B, T) of each target (B, T) under logits (B, T, vocabulary).

    The softmax here makes probabilities of the logits, whatever they are.
    """
    rows = zip(logits, targets, strict=True)  # float32 one row at a time: all at once may be gigabytes
    return torch.stack([F.cross_entropy(row.float(), target, reduction="none") for row, target in rows])
