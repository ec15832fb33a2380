"""Milliseconds, forward and backward, of the ways to attend to a window of half the length.

    attention.py DEVICE ROWS LENGTH

Four heads of 128 channels, as in the experiment's CUDA profile.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from torch.nn.attention import SDPBackend, sdpa_kernel

REPEATS = 20
device, rows, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
window = length // 2
shape = (rows, length, 4, 128)
q, k, v = (torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
back = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
mask = (back >= 0) & (back <= window)

Way = Callable[[], torch.Tensor]


def sdpa(backend: SDPBackend | None = None, **options: Any) -> Way:
    """Return torch's own attention, by one of its backends."""

    def attend() -> torch.Tensor:
        heads = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(*heads, **options).transpose(1, 2)

    def by_backend() -> torch.Tensor:
        with sdpa_kernel(backend):
            return attend()

    return attend if backend is None else by_backend


def flash(left: int) -> Way:
    """Return torch's FlashAttention 2 with a window of *left* tokens before, -1 for all."""
    return lambda: torch.ops.aten._flash_attention_forward(  # noqa: SLF001 - what train.py calls
        q, k, v, None, None, length, length, 0.0, True, False, window_size_left=left, window_size_right=0
    )[0]


def flex() -> torch.Tensor:
    """Attend by a kernel that is compiled for the window."""
    heads = (x.transpose(1, 2) for x in (q, k, v))
    return compiled_flex(*heads, block_mask=blocks).transpose(1, 2)


def milliseconds(way: Way) -> float:
    """Return the time of one forward and backward pass, the mean of REPEATS."""
    began = 0.0
    for repeat in range(-3, REPEATS):  # three to warm up
        if repeat == 0:
            synchronize()
            began = time.perf_counter()
        way().backward(v.detach())
    synchronize()
    return round(1000 * (time.perf_counter() - began) / REPEATS, 3)


def synchronize() -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


ways = {
    "sdpa causal": sdpa(is_causal=True),
    "sdpa mask": sdpa(attn_mask=mask),  # what is sealed, and what cards without FlashAttention train with
    "flash 2 causal": flash(-1),
    "flash 2 window": flash(window),
    "cudnn causal": sdpa(SDPBackend.CUDNN_ATTENTION, is_causal=True),
    "cudnn mask": sdpa(SDPBackend.CUDNN_ATTENTION, attn_mask=mask),
}
if device == "cuda":
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    compiled_flex = torch.compile(flex_attention, dynamic=False)
    blocks = create_block_mask(
        lambda _b, _h, i, j: (i >= j) & (i - j <= window), None, None, length, length, device=device
    )
    ways["flex window"] = flex
truth = ways["sdpa mask"]().float()
found: dict[str, Any] = {}
for name, way in ways.items():
    try:
        found[name] = milliseconds(way)
        if "causal" not in name:
            found[f"{name}, difference"] = (way().float() - truth).abs().max().item()
    except Exception as error:  # noqa: BLE001 - not every way is there on every device
        found[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:120]}"
print("FOUND", json.dumps(found))
