"""Sealing: a trained model becomes weights and a plain graph, which can be scored without its code.

The graph is traced by torch.export, in functional ATen operators, and written as JSON into the metadata of
one safetensors file. It holds no pickle and no code, unlike torch.export's own files. All this happens inside
the trial and is not trusted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, BinaryIO

import torch
from safetensors.torch import save
from torch import nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import Dim, ExportedProgram, default_decompositions, export
from torch.export.graph_signature import InputKind
from torch.fx import Node

from pytest_autoresearch.errors import ExportError, OperatorForbidden
from pytest_autoresearch.scoring.arguments import Reference, encode
from pytest_autoresearch.scoring.operators import ATEN, OPERATORS, check_arguments

KEY = "sealed"  # of the graph in the file's metadata
ASSERTIONS = ("aten._assert", "aten.sym_constrain")  # the tracer's own; nothing depends on them

Model = Callable[[torch.Tensor], torch.Tensor]
"""Maps tokens, int64 (B, T), to logits, (B, T, vocabulary), for any B."""

# What to do about an operator that a sealed model may not use; the first that matches its name counts.
RELIEFS = (
    (r"empty|resize|as_strided", "reads memory that nobody wrote: use zeros_like, and views"),
    (r"rand|normal|bernoulli|multinomial|dropout|exponential|rrelu", "is random: leave it out in eval mode"),
    (r"item|_local_scalar_dense", "branches on data: use torch.where"),
    (
        r"flex_attention|scaled_dot_product",
        "cannot be sealed: use scaled_dot_product_attention in the evaluation path",
    ),
    (r"scan|while_loop|cond|map_impl", "cannot be sealed: write the loop in Python, or in closed form"),
    (r"batch_norm|instance_norm", "takes statistics of all positions: use rms_norm"),
    (r"backward", "computes a gradient: a sealed model only predicts"),
    (r"", "cannot be sealed: use torch's own operators in the evaluation path"),
)
# And about what torch.export itself does not follow, by its message.
TROUBLES = (
    (r"data-dependent|vmap.*\.item\(\)", "the forward pass branches on data: use torch.where"),
    (r"\.numpy\(\)", "the forward pass leaves torch for numpy: use torch's own operators"),
    (r"assigned during export|registered as buffers", "the forward pass keeps a tensor for later: return it"),
    (r"marked .*dynamic but|[Cc]onstraints violated|specialized", "the forward pass has a fixed batch size"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class SealedModel:
    """A graph that names each of its weights by digest, and those weights."""

    graph: str
    """JSON, a list of nodes."""
    weights: Mapping[str, torch.Tensor]
    """By digest, contiguous and on the CPU; tied ones are there once."""

    @property
    def digest(self) -> str:
        """The SHA-256 of the graph, which covers the weights too. The clock stops when a run announces it."""
        return text_digest(self.graph)

    def write(self, file: BinaryIO) -> None:
        """Write the model as one safetensors file."""
        file.write(save(dict(self.weights), {KEY: self.graph}))


class Trace:
    """A model's graph, to be sealed with the weights that the model has then."""

    def __init__(self, model: Model, tokens: torch.Tensor) -> None:
        """Trace a model; ambient autocast is traced with it.

        Args:
            model: a module in eval mode, compiled or not, or a function of tokens.
            tokens: int64 (B, T) in the model's range, on its device; B is an example and greater than 1.

        Raises:
            ExportError: the model does something that a sealed model cannot do.
        """
        program = _exported(model, tokens)
        self._held: dict[str, Any] = {**program.state_dict, **program.constants}
        self._nodes = _graph(program)

    def seal(self, model: Model) -> SealedModel:
        """Return the graph with the weights of *model*: the traced one, or another of the same structure.

        Raises:
            ExportError: a weight is not a plain tensor.
        """
        weights: dict[str, torch.Tensor] = {}
        nodes = list(self._nodes)
        for number, node in enumerate(nodes):
            if node[0] == "weight":
                weight = _copied(self._weight(node[1], model))
                weights[name := digest(weight)] = weight
                nodes[number] = ["weight", name]
        return SealedModel(json.dumps(nodes, separators=(",", ":")), weights)

    def _weight(self, name: str, model: Model) -> torch.Tensor:
        """Return a weight of *model* by its name, or a constant that only the trace knows."""
        found: Any = model
        for part in name.removeprefix("model.").split("."):
            found = getattr(found, part, None)
        held = found if isinstance(found, torch.Tensor) else self._held.get(name)
        if not isinstance(held, torch.Tensor):
            raise ExportError(f"{name} is no tensor")
        return held


def seal(model: Model, tokens: torch.Tensor) -> SealedModel:
    """Trace and seal a model; the arguments and errors are those of :class:`Trace`."""
    return Trace(model, tokens).seal(model)


def digest(weight: torch.Tensor) -> str:
    """Return the SHA-256 of the dtype, the shape and the bytes of a weight, contiguous and on the CPU."""
    found = hashlib.sha256(f"{weight.dtype}{list(weight.shape)}".encode())
    found.update(weight.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def text_digest(graph: str) -> str:
    """Return the SHA-256 of a graph's JSON text."""
    return hashlib.sha256(graph.encode(errors="surrogatepass")).hexdigest()


def _copied(weight: torch.Tensor) -> torch.Tensor:
    """Return a copy of a weight, contiguous and on the CPU."""
    try:
        plain = weight.detach().resolve_conj().resolve_neg()
        plain = plain.to("cpu", copy=True, memory_format=torch.contiguous_format)
        plain.reshape(-1).view(torch.uint8).numpy()
    except (RuntimeError, NotImplementedError, TypeError) as error:  # sparse, quantised, of a subclass
        raise ExportError(f"a weight, a {type(weight).__name__}, is no plain tensor: {error}") from None
    return plain


# ---------------------------------------------------------------------------
# Tracing


class _Evaluation(nn.Module):
    """The module to trace: the model, or the function, under the autocast that surrounds it."""

    def __init__(self, model: Model, device: str) -> None:
        super().__init__()
        self.training = False  # and each module of the model as it is
        self.model = model
        self.device = device
        self.dtype = torch.get_autocast_dtype(device)
        self.casts = torch.is_autocast_enabled(device)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if not self.casts:
            return self.model(tokens)
        with torch.autocast(self.device, dtype=self.dtype):
            return self.model(tokens)


def _exported(model: Model, tokens: torch.Tensor) -> ExportedProgram:
    """Trace the model; decompose its graph only where needed, because that takes as long again."""
    device = tokens.device.type
    evaluation = _Evaluation(model, device)
    try:
        with _quietly(), torch.no_grad():
            program = export(evaluation, (tokens,), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False)
            called = {_name(node) for node in program.graph.nodes if node.op == "call_function"}
            if not all(name in OPERATORS or name.startswith(ASSERTIONS) for name in called):
                program = program.run_decompositions(_table())
    except Exception as error:  # any: export runs the model's own code
        raise ExportError(_trouble(error)) from error
    signature = program.graph_signature
    if changed := [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]:
        names = ", ".join(name.removeprefix("model.") for name in changed)
        raise ExportError(f"the forward pass changes a buffer: {names}")
    return program


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Suppress the tracer's log, and the graphs that it prints when it fails."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _table() -> dict[OpOverload[..., Any], Callable[..., Any]]:
    """Return torch's decompositions, except of operators that a sealed graph may hold."""
    table: dict[OpOverload[..., Any], Callable[..., Any]] = dict(default_decompositions())
    return {function: how for function, how in table.items() if str(function) not in ATEN}


def _trouble(error: Exception) -> str:
    text = str(error)
    for pattern, relief in TROUBLES:
        if re.search(pattern, f"{type(error).__name__} {text}"):
            return relief
    first = text.partition("\n")[0]
    return f"torch.export cannot follow the forward pass: {type(error).__name__}: {first}"


# ---------------------------------------------------------------------------
# The graph


def _graph(program: ExportedProgram) -> list[list[Any]]:
    """Return nodes, ``["tokens"]``, ``["weight", name]`` or ``[operator, args, kwargs]``, logits last."""
    placed = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    numbers: dict[Node, int] = {}
    graph: list[list[Any]] = []
    for node in _needed(program):
        numbers[node] = len(graph)
        if node.op == "call_function":
            graph.append(_call(node, numbers))
        elif node.op != "placeholder":  # a nested graph, for a higher-order operator
            raise ExportError(f"{_relief(next(iter(node.users)))}{_place(node)}")
        elif placed[node.name].kind is InputKind.USER_INPUT:
            graph.append(["tokens"])
        else:
            graph.append(["weight", str(placed[node.name].target)])
    return graph


def _needed(program: ExportedProgram) -> list[Node]:
    """Return the tokens and the nodes that the logits depend on, in order, without assertions."""
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    (results,) = output.args
    if not isinstance(results, tuple) or len(results) != 1 or not isinstance(results[0], Node):
        raise ExportError("forward has to return the logits alone, one tensor")
    needed = {node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs}
    waiting = [results[0]]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting.extend(node.all_input_nodes)
    return [node for node in program.graph.nodes if node in needed]


def _call(node: Node, numbers: dict[Node, int]) -> list[Any]:
    name = _name(node)
    # Layout and pinning concern memory alone; the scorer has its own.
    kwargs = {key: value for key, value in node.kwargs.items() if key not in {"layout", "pin_memory"}}
    try:
        if name not in OPERATORS:
            raise OperatorForbidden(_relief(node))  # noqa: TRY301 - the place is added to both
        args, kwargs = _argument(list(node.args), numbers), _argument(kwargs, numbers)
        check_arguments(name, args, kwargs)
        return [name, encode(args), {key: encode(value) for key, value in kwargs.items()}]
    except OperatorForbidden as error:
        raise ExportError(f"{error}{_place(node)}") from None


def _argument(value: Any, numbers: dict[Node, int]) -> Any:
    """Return an argument with references in place of nodes."""
    match value:
        case Node():
            return Reference(numbers[value])
        case list() | tuple():
            return [_argument(item, numbers) for item in value]
        case dict():
            return {key: _argument(item, numbers) for key, item in value.items()}
    return value


def _name(node: Node) -> str:
    """Return the name of a node's function in a sealed graph: ``aten.mul.Tensor``, ``operator.add``."""
    function: Any = node.target
    if isinstance(function, OpOverload | HigherOrderOperator):
        return str(function)
    return f"{function.__module__.removeprefix('_')}.{function.__name__}"


def _relief(node: Node) -> str:
    """Return the name of the operator that the author wrote, and what to do about it."""
    origins = node.meta.get("from_node")
    name = str(origins[0].target) if origins else _name(node)
    short = re.sub(r"^(aten\..+)\.\w+$", r"\1", name)
    return f"{short} {next(relief for pattern, relief in RELIEFS if re.search(pattern, name))}"


def _place(node: Node) -> str:
    """Return the last line of the author's code that led to a node, in brackets, if it is known."""
    lines = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [(file, line) for file, line in lines if file != __file__ and "torch" not in PurePath(file).parts]
    return f" ({PurePath(own[-1][0]).name}:{own[-1][1]})" if own else ""
