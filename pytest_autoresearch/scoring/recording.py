"""CUDA graphs: the kernels of one row are recorded once, and launched together for every row.

One row is so little work for a GPU that launching its kernels takes longer than running them. Rows are not
computed together, because a model could learn from the others: it sees them in a batch, and under
``torch.func.vmap`` an out-of-range index in an embedding reads the values of the next row.

Not run on a GPU so far: only the path without one is tested.
"""

from __future__ import annotations

import torch

from pytest_autoresearch.scoring.export import Model


def one_by_one(model: Model, device: torch.device) -> Model:
    """Return *model*, to be called with one row at a time, in the quickest way on *device*."""
    return Recorded(model) if device.type == "cuda" else model


class Recorded:
    """A model that is called with one row at a time, of always the same length."""

    def __init__(self, model: Model) -> None:
        """Record nothing yet."""
        self._model = model
        self._is_new = True
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits (1, T, vocabulary) of tokens (1, T); the errors are the model's."""
        if self._is_new:
            self._is_new = False
            self._model(tokens)  # fails here if at all, and computes what is computed once
            self._try_to_record(tokens)
        if self._graph is None or tokens.shape != self._tokens.shape:
            return self._model(tokens)
        self._tokens.copy_(tokens)
        self._graph.replay()
        return self._logits.clone()

    def _try_to_record(self, tokens: torch.Tensor) -> None:
        """Record the model, unless it makes Python wait for the GPU, for example for the size of a tensor."""
        self._tokens = tokens.clone()
        graph = None
        try:
            self._try_without_waiting()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._logits = self._model(self._tokens)
        except Exception:  # noqa: BLE001 - slower then, and the same
            if graph is not None:
                torch.cuda.set_stream(torch.cuda.default_stream())  # a recording that fails leaves its own
        else:
            self._graph = graph

    def _try_without_waiting(self) -> None:
        """Call the model on another stream, as a recording demands, and fail if it waits for the GPU.

        A failure in the middle of a recording would leave torch's allocator in the middle of it.
        """
        other = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        other.wait_stream(torch.cuda.current_stream())
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.cuda.stream(other):
                self._model(self._tokens)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
