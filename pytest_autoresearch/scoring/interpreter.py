"""A sealed model in the scorer: a hostile file, checked and then interpreted operator by operator."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from safetensors.torch import load

from pytest_autoresearch.errors import ModelRefused, OperatorForbidden
from pytest_autoresearch.scoring.arguments import DTYPES, Reference, decode, references
from pytest_autoresearch.scoring.export import KEY, digest, text_digest
from pytest_autoresearch.scoring.operators import CASTS, CREATION, SHAPES, called, check_arguments
from pytest_autoresearch.text import quoted

LARGEST_GRAPH = 16 << 20  # bytes of JSON
MOST_NODES = 20_000
COMPARISONS = ["eq", "ge", "gt", "le", "lt", "ne"]
# Computed once and not for every row, unless it depends on the tokens: casts of weights, and masks. Products
# and sums of many numbers are computed for every row: the time that a model may predict for is meant for many
# rows, and with all of it for one computation a model could go on training.
COMPUTED_ONCE = (
    SHAPES
    | CASTS
    | CREATION
    | {
        *(f"aten.{name}.{kind}" for name in COMPARISONS for kind in ("Scalar", "Tensor")),
        *("aten.__and__.Tensor", "aten.bitwise_and.Tensor", "aten.logical_and.default", "aten.sub.Tensor"),
    }
)
# Matched at the beginning only: later parts may quote the model, which could thus choose its verdict.
ACCELERATOR_FULL = re.compile(r"(CUDA|HIP|MPS) .*out of memory|\w+ error: \w+_STATUS_ALLOC_FAILED")
M_PERTURB, FILLING = -6, 0xA5  # an option of glibc's malloc, and the complement of what it fills with
COARSE = (torch.float16, torch.bfloat16)  # of 11 and 8 significant bits


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One node: an operator on constants and on the values of earlier nodes."""

    name: str
    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    dead: list[int] = dataclasses.field(default_factory=list)
    """Nodes whose values are not needed after this one."""

    @property
    def references(self) -> Iterator[int]:
        """The numbers of the nodes whose values it takes."""
        return (reference.node for reference in references([*self.args, *self.kwargs.values()]))

    def widened(self) -> Self:
        """Return the same call with float32 in place of 16-bit types."""
        kwargs = {key: _widened(value) for key, value in self.kwargs.items()}
        return dataclasses.replace(self, args=[_widened(value) for value in self.args], kwargs=kwargs)

    def __call__(self, values: Mapping[int, Any]) -> Any:
        """Return its value, given the values of earlier nodes.

        Raises:
            ModelRefused: the operator cannot be applied to them.
            Exception: the accelerator is out of memory; see :func:`is_out_of_memory`.
        """
        try:
            kwargs = {key: _filled(value, values) for key, value in self.kwargs.items()}
            return self.function(*_filled(self.args, values), **kwargs)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise ModelRefused(f"{self.name} cannot be applied: {first_line(error)}") from None


class Interpreter:
    """A sealed model; a call interprets its graph."""

    def __init__(
        self, content: bytes, announced: str, device: torch.device, most_nodes: int = MOST_NODES
    ) -> None:
        """Load a model and check everything that can be checked without running it.

        Args:
            content: the file, in memory that its author cannot reach.
            announced: the digest that the run announced when its clock stopped.
            device: the device to compute on.
            most_nodes: the number of nodes that the graph may have.

        Raises:
            ModelRefused: the file is malformed, or holds another model.
        """
        weights, text = _parsed(content)
        if text_digest(text) != announced:  # and it names each of its weights by digest
            raise ModelRefused("it is not the model that was announced when the clock stopped")
        _check_weights(weights)
        self._device = device
        self._fixed: dict[int, torch.Tensor] = {}  # values that no call computes
        self._calls: dict[int, Call] = {}
        self._settled: tuple[Mapping[int, Any], Mapping[int, Call]] | None = None
        self._tokens = -1
        try:
            nodes = json.loads(text)
        except (ValueError, RecursionError):
            raise ModelRefused("its graph is no JSON") from None
        if not isinstance(nodes, list) or not 0 < len(nodes) <= most_nodes:
            raise ModelRefused(f"its graph is no list of 1 to {most_nodes:,} nodes")
        for number, node in enumerate(nodes):
            try:
                self._add(number, node, weights)
            except (OperatorForbidden, RecursionError) as error:
                raise ModelRefused(f"node {number} of its graph: {error}") from None
        if self._tokens < 0:
            raise ModelRefused("its graph has no tokens")
        self.nodes = len(nodes)
        """The number of nodes of its graph."""
        self._output = len(nodes) - 1
        self._drop_the_unused()
        self._drop_values_early()

    @property
    def coarse(self) -> bool:
        """Whether a weight or a cast of the graph has a 16-bit type."""
        held = (weight.dtype for weight in self._fixed.values())
        given = (value for call in self._calls.values() for value in (*call.args, *call.kwargs.values()))
        return any(isinstance(value, torch.dtype) and value in COARSE for value in (*held, *given))

    def widen(self) -> None:
        """Compute in float32 from now on, in place of every 16-bit type."""
        for number, weight in self._fixed.items():
            self._fixed[number] = weight.float() if weight.dtype in COARSE else weight
        self._calls = {number: call.widened() for number, call in self._calls.items()}
        self._settled = None

    @torch.no_grad()
    def __call__(self, tokens: torch.Tensor) -> Any:
        """Return the value of the last node for *tokens*: of an honest model logits, of another one anything.

        Raises:
            ModelRefused: an operator cannot be applied.
        """
        if self._settled is None:
            self._settled = self._folded()
        fixed, calls = self._settled
        values: dict[int, Any] = {**fixed, self._tokens: tokens}
        for number, call in calls.items():
            values[number] = call(values)
            for other in call.dead:
                del values[other]
        return values[self._output]

    def _add(self, number: int, node: object, weights: Mapping[str, torch.Tensor]) -> None:
        match node:
            case ["tokens"]:
                if self._tokens >= 0:
                    raise ModelRefused("its graph has tokens twice")
                self._tokens = number
            case ["weight", str(name)] if name in weights:
                self._fixed[number] = weights[name].to(self._device)
            case [str(name), list(args), dict(kwargs)] if re.fullmatch(r"[\w.]{1,80}", name):
                values = [decode(value, self._device) for value in args]
                named = {key: decode(value, self._device) for key, value in kwargs.items()}
                check_arguments(name, values, named)
                call = Call(name, called(name), values, named)
                if not all(0 <= other < number for other in call.references):
                    raise ModelRefused(f"node {number} of its graph refers to a later one")
                self._calls[number] = call
            case _:
                raise ModelRefused(f"node {number} of its graph is neither tokens, a weight nor a call")

    def _drop_the_unused(self) -> None:
        """Remove the nodes that the output does not depend on."""
        used, waiting = {self._output}, [self._output]
        while waiting:
            if call := self._calls.get(waiting.pop()):
                new = set(call.references) - used
                used |= new
                waiting += new
        self._calls = {number: call for number, call in self._calls.items() if number in used}
        self._fixed = {number: weight for number, weight in self._fixed.items() if number in used}

    def _folded(self) -> tuple[Mapping[int, Any], Mapping[int, Call]]:
        """Return the values that are the same for all tokens, and the calls that compute the rest.

        Raises:
            ModelRefused: an operator cannot be applied.
        """
        fixed: dict[int, Any] = dict(self._fixed)
        left: dict[int, Call] = {}
        for number, call in self._calls.items():
            if call.name in COMPUTED_ONCE and all(other in fixed for other in call.references):
                fixed[number] = call(fixed)
            else:
                left[number] = call
        read = {self._output}.union(*(call.references for call in left.values()))
        return {number: value for number, value in fixed.items() if number in read}, left

    def _drop_values_early(self) -> None:
        """Have each value dropped after its last reader: a pass takes no more memory than eager mode."""
        last: dict[int, int] = {}
        for number, call in self._calls.items():
            last.update({number: number, **dict.fromkeys(call.references, number)})
        for number, reader in last.items():
            if number != self._output:
                self._calls[reader].dead.append(number)


def _parsed(content: bytes) -> tuple[dict[str, torch.Tensor], str]:
    """Return the tensors of a safetensors file, and the graph in its metadata."""
    if len(content) < 8 or int.from_bytes(content[:8], "little") > 2 * LARGEST_GRAPH:
        raise ModelRefused("it is no safetensors file")
    try:
        weights = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        text = header["__metadata__"][KEY]
    except Exception as error:  # noqa: BLE001 - parsers of hostile bytes raise what they like
        raise ModelRefused(f"it is no sealed model: {first_line(error)}") from None
    if len(text) > LARGEST_GRAPH:
        raise ModelRefused(f"its graph is larger than {LARGEST_GRAPH:,} bytes")
    return weights, text


def _check_weights(weights: Mapping[str, torch.Tensor]) -> None:
    for name, weight in weights.items():
        if weight.dtype not in DTYPES.values():
            raise ModelRefused(f"a weight is of {weight.dtype}")
        if weight.isnan().any():
            raise ModelRefused("a weight is NaN")
        if name != digest(weight):
            raise ModelRefused("a weight is not what its digest says")


def _widened(value: Any) -> Any:
    return torch.float32 if isinstance(value, torch.dtype) and value in COARSE else value


def _filled(value: Any, values: Mapping[int, Any]) -> Any:
    """Return an argument with values in place of references."""
    if isinstance(value, Reference):
        return values[value.node]
    return [_filled(item, values) for item in value] if isinstance(value, list) else value


def fill_memory() -> None:
    """Fill uninitialised memory with a constant, in this process from now on.

    An operator that returns such memory would otherwise return what an earlier row has left there: the list
    of operators had one. torch fills what its operators ask for, and the C library what it hands out.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_PERTURB, FILLING)


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message, which may quote the model."""
    return f"{type(error).__name__}: {quoted(str(error).strip().partition(chr(10))[0], 120)}"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an accelerator, which other processes use too, has no memory left for the scorer.

    This is not about the host's memory, for which each model has a limit.
    """
    return isinstance(error, torch.OutOfMemoryError) or ACCELERATOR_FULL.match(str(error)) is not None
