"""Stands in for the package ``kernels`` on a machine without a network, for upstream's train.py.

FlashAttention 3 is too large to carry. ``get_kernel`` gives torch's own FlashAttention 2 with FlashAttention
3's signature, as far as that script uses it. The project's train.py takes the same operator where it finds no
FlashAttention 3, so the two are compared with the same attention.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch


def flash_attn_func(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool, window_size: tuple[int, int]
) -> torch.Tensor:
    """Attend: (B, T, heads, channels) each; the windows are the tokens before and after."""
    length = q.size(1)
    left = window_size[0] if 0 <= window_size[0] < length - 1 else -1
    q, k, v = (x.to(torch.bfloat16) for x in (q, k, v))
    return torch.ops.aten._flash_attention_forward(  # noqa: SLF001 - what train.py calls
        q, k, v, None, None, length, length, 0.0, causal, False, window_size_left=left, window_size_right=0
    )[0]


def get_kernel(_repository: str) -> SimpleNamespace:
    """Return what upstream's train.py takes from it."""
    return SimpleNamespace(flash_attn_interface=SimpleNamespace(flash_attn_func=flash_attn_func))
