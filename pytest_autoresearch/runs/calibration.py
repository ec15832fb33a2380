"""The pace of a processor: how long a fixed piece of work takes it now."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it

ROWS, LENGTH, WIDTH, HEADS, VOCABULARY = 2, 256, 64, 2, 2048


def norm(stream: torch.Tensor) -> torch.Tensor:
    """Normalise (…, WIDTH) as the experiment does."""
    return F.rms_norm(stream, (WIDTH,))


class SpeedProbe:
    """A layer of a small transformer and its loss, forward and backward; the scorer has one thread.

    The work is the embedded experiment's own in kind: what slows that, a neighbour in the caches or on the
    other half of a core, slows this by about as much. An empty loop would notice neither.
    """

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._inputs = torch.randn(ROWS, LENGTH, WIDTH, generator=generator)
        self._targets = torch.randint(VOCABULARY, (ROWS * LENGTH,), generator=generator)
        shapes = (WIDTH, 3 * WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH), (WIDTH, VOCABULARY)
        self._weights = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]

    def seconds(self, count: int) -> list[float]:
        """Do the work *count* times, and once before to fill the caches; return the processor's seconds."""
        found = []
        for _ in range(count + 1):
            began = time.process_time()
            self._work()
            found.append(time.process_time() - began)
        return found[1:]

    def _work(self) -> None:
        mixing, up, down, head = self._weights
        with torch.enable_grad():
            heads = (norm(self._inputs) @ mixing).view(ROWS, LENGTH, HEADS, -1).transpose(1, 2)
            query, key, value = heads.chunk(3, dim=-1)
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            stream = self._inputs + mixed.transpose(1, 2).flatten(2)
            stream = stream + F.relu(norm(stream) @ up).square() @ down
            logits = norm(stream) @ head
            torch.autograd.grad(F.cross_entropy(logits.flatten(0, 1), self._targets), self._weights)
