"""The speed of a core: how long a fixed piece of work takes now, in a process of its own.

The process says ``{"ready": true}``, and then answers ``{"probe": 4}`` with ``{"probe": [0.0104, ...]}``, the
processor seconds of each time. It is a fork of the scorer, where torch is imported already. It stays: a fork
for each request would begin with cold caches each time.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from typing import NoReturn

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it

from pytest_autoresearch.system.channel import Channel

ROWS, LENGTH, WIDTH, HEADS, VOCABULARY = 2, 256, 64, 2, 2048


def norm(stream: torch.Tensor) -> torch.Tensor:
    """Normalise (…, WIDTH) as the experiment does."""
    return F.rms_norm(stream, (WIDTH,))


class SpeedProbe:
    """A layer of a small transformer and its loss, forward and backward, in one thread.

    It is the same kind of work as the embedded experiment's: a neighbour in the caches, or on the other half
    of a core, slows both by about as much. An empty loop would notice neither.
    """

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._inputs = torch.randn(ROWS, LENGTH, WIDTH, generator=generator)
        self._targets = torch.randint(VOCABULARY, (ROWS * LENGTH,), generator=generator)
        shapes = (WIDTH, 3 * WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH), (WIDTH, VOCABULARY)
        self._weights = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]

    def seconds(self, count: int) -> list[float]:
        """Do the work once to fill the caches, then *count* times; return the processor seconds of each."""
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


def serve(scorer: Channel, descriptor: int, cores: Sequence[int]) -> NoReturn:
    """Measure the speed of *cores*, or of any core if there are none, until the socket is closed.

    Args:
        scorer: the channel of the process that this one is a fork of, to be closed here.
        descriptor: of the socket to serve.
        cores: their numbers; this process is pinned to them.

    Raises:
        EOFError: the other end of the socket is closed.
        OSError: there are no such cores.
    """
    scorer.close()
    if cores:
        os.sched_setaffinity(0, cores)
    channel = Channel(socket.socket(fileno=descriptor))
    probe = SpeedProbe()
    channel.send({"ready": True})
    while True:
        channel.send({"probe": probe.seconds(int(channel.receive().content["probe"]))})
