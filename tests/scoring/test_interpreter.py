"""Files that no honest run writes: each is refused in one line, and the scorer lives to score the next."""

from __future__ import annotations

import copy
import functools
import json
import re
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pytest_autoresearch.scoring.arguments import DTYPES
from pytest_autoresearch.scoring.export import KEY, digest
from pytest_autoresearch.scoring.operators import ATEN, OPERATORS, RULES, operator_named
from tests.sealed_models import (
    LENGTH,
    VOCABULARY,
    WIDTH,
    Alibi,
    Attention,
    DenseExperts,
    Graph,
    LongConvolution,
    Mixer,
    RaggedExperts,
    Recurrent,
    Server,
    put_together,
    sealed,
    server,
    taken_apart,
)

__all__ = ["server"]  # a fixture


def made(kind: type[Mixer]) -> tuple[bytes, str]:
    torch.manual_seed(0)
    return sealed(kind().eval())


class Honest(NamedTuple):
    """What a run that cheats in nothing hands in."""

    content: bytes
    announced: str
    graph: Graph
    weights: dict[str, torch.Tensor]

    @property
    def header(self) -> int:
        """How many bytes its header has."""
        return int.from_bytes(self.content[:8], "little")


@functools.cache  # and not when the module is imported, by every worker
def honest() -> Honest:
    content, announced = made(Attention)
    return Honest(content, announced, *taken_apart(content))


def node(number: int) -> dict[str, int]:
    return {"node": number}


def computing(*calls: list[Any]) -> bytes:
    """A model that says the same of all, a sum of what is computed from 0, the tokens, and 1, a (3, 4)."""
    made = [["tokens"], ["aten.ones.default", [[3, 4]], {}], *calls]
    last = len(made) - 1
    made += [
        ["aten.to.dtype", [node(last), {"dtype": "float32"}], {}],
        ["aten.sum.default", [node(last + 1)], {}],
        ["aten.sym_size.int", [node(0), 0], {}],
        ["aten.zeros.default", [[node(last + 3), LENGTH, VOCABULARY]], {}],
        ["aten.add.Tensor", [node(last + 4), node(last + 2)], {}],
    ]
    return put_together(made, {})


def test_the_way_these_files_are_made_is_right(server: Server) -> None:
    expected = server.score(honest().content, honest().announced)["score"]
    assert server.score(put_together(honest().graph, honest().weights))["score"] == expected
    assert "score" in server.score(computing(["aten.mul.Tensor", [node(1), 0], {}]))


# ---------------------------------------------------------------------------
# Files


def with_header(change: Callable[[dict[str, Any]], object]) -> bytes:
    header = json.loads(honest().content[8 : 8 + honest().header])
    text = json.dumps(change(header) or header)
    return struct.pack("<Q", len(text)) + text.encode() + honest().content[8 + honest().header :]


def first(header: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(value for key, value in header.items() if key != "__metadata__")
    return found


def duplicated() -> bytes:
    """Two tensors of one name, the second of other bytes."""
    text = honest().content[8 : 8 + honest().header].decode().rstrip()
    name = min(honest().weights, key=lambda name: json.loads(text)[name]["data_offsets"])
    start, end = json.loads(text)[name]["data_offsets"]
    entry = {
        **json.loads(text)[name],
        "data_offsets": [len(honest().content) - 8 - honest().header - (end - start)] * 2,
    }
    entry["data_offsets"][1] += end - start
    text = text[:-1] + f", {json.dumps(name)}: {json.dumps(entry)}}}"
    return struct.pack("<Q", len(text)) + text.encode() + honest().content[8 + honest().header :]


FILES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "seven bytes": lambda: honest().content[:7],
    "no header": lambda: honest().content[:8],
    "half a header": lambda: honest().content[: 8 + honest().header // 2],
    "half its weights": lambda: honest().content[: (len(honest().content) + honest().header) // 2],
    "a byte too many": lambda: honest().content + b"\0",
    "a huge header": lambda: struct.pack("<Q", 1 << 62) + honest().content[8:],
    "a header of 90 MB": lambda: struct.pack("<Q", 90_000_000) + b" " * 90_000_000,
    "a pickle": lambda: b"\x80\x04cposix\nsystem\n(S'true'\ntR.",
    "a zip": lambda: b"PK\x03\x04" + bytes(100),
    "another dtype": lambda: with_header(lambda header: first(header).update(dtype="F64")),
    "unknown dtype": lambda: with_header(lambda header: first(header).update(dtype="Q7")),
    "another shape": lambda: with_header(lambda header: first(header).update(shape=[1, 2, 3])),
    "negative shape": lambda: with_header(lambda header: first(header).update(shape=[-1, 4])),
    "overlapping weights": lambda: with_header(lambda header: first(header).update(data_offsets=[0, 8])),
    "offsets beyond": lambda: with_header(
        lambda header: first(header).update(data_offsets=[1 << 40, 1 << 41])
    ),
    "no metadata": lambda: with_header(
        lambda header: {k: v for k, v in header.items() if k != "__metadata__"}
    ),
    "no graph": lambda: with_header(lambda header: {**header, "__metadata__": {"other": "[]"}}),
    "metadata of numbers": lambda: with_header(lambda header: {**header, "__metadata__": {KEY: 1}}),
    "duplicate names": duplicated,
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES.keys())
def test_a_file_that_is_no_sealed_model_is_refused(server: Server, content: Callable[[], bytes]) -> None:
    server.refusal(content())


def with_tensors(*tensors: torch.Tensor) -> bytes:
    return put_together(
        honest().graph, {**honest().weights, **{digest(tensor): tensor for tensor in tensors}}
    )


def swapped() -> bytes:
    """The embedding and the head, which are of one shape, under each other's name."""
    one, other = (name for name, weight in honest().weights.items() if weight.shape == (VOCABULARY, WIDTH))
    return put_together(
        honest().graph, {**honest().weights, one: honest().weights[other], other: honest().weights[one]}
    )


HELD: dict[str, tuple[Callable[[], bytes], str]] = {
    "not a number": (lambda: with_tensors(torch.tensor([1.0, torch.nan])), "a weight is NaN"),
    "eight bit floats": (
        lambda: with_tensors(torch.ones(3).to(torch.float8_e4m3fn)),
        "a weight is of torch.float8_e4m3fn",
    ),
    "another's name": (swapped, "a weight is not what its digest says"),
}


@pytest.mark.parametrize(("content", "reason"), HELD.values(), ids=HELD.keys())
def test_a_file_with_other_weights_is_refused(
    server: Server, content: Callable[[], bytes], reason: str
) -> None:
    assert server.refusal(content()) == reason


def test_what_no_node_names_is_no_part_of_the_model(server: Server) -> None:
    small = torch.ones(1024)
    content = put_together(honest().graph, {**honest().weights, digest(small): small})
    assert server.score(content)["score"] == server.score(honest().content)["score"]


# ---------------------------------------------------------------------------
# Graphs

TOKENS = ["tokens"]
GRAPHS: dict[str, tuple[Any, str]] = {
    "no JSON": ("[[", "no JSON"),
    "deep": ("[" * 100_000 + "]" * 100_000, "no JSON"),
    "no list": ({"nodes": []}, "no list"),
    "nothing": ([], "no list"),
    "endless": ([TOKENS] + [["aten.neg.default", [node(0)], {}]] * 20_001, "no list of 1 to 20,000 nodes"),
    "16 MiB and more": ("[" + " " * (16 << 20) + "]", "larger than"),
    "no tokens": ([["aten.ones.default", [[4, LENGTH, VOCABULARY]], {}]], "no tokens"),
    "tokens twice": ([TOKENS, TOKENS], "tokens twice"),
    "tokens alone": ([TOKENS], "no floating tensor"),
    "no weight of that name": ([TOKENS, ["weight", "0" * 64]], "node 1 of its graph is neither"),
    "a node of another kind": ([TOKENS, {"call": "aten.neg.default"}], "neither"),
    "a node with more": ([TOKENS, ["aten.neg.default", [node(0)], {}, 1]], "neither"),
    "itself": ([TOKENS, ["aten.neg.default", [node(1)], {}]], "refers to a later one"),
    "a cycle": (
        [TOKENS, ["aten.neg.default", [node(2)], {}], ["aten.neg.default", [node(1)], {}]],
        "a later one",
    ),
    "no such node": ([TOKENS, ["aten.neg.default", [node(-1)], {}]], "a later one"),
    "reference by name": ([TOKENS, ["aten.neg.default", [{"node": "0"}], {}]], "no known kind"),
    "reference by truth": ([TOKENS, ["aten.neg.default", [{"node": True}], {}]], "no known kind"),
    "nested arguments": ([TOKENS, ["aten.cat.default", [[[[[node(0)]]]]], {}]], "no known kind"),
    "deeply nested": (f'[["tokens"], ["aten.cat.default", [{"[" * 800}{"]" * 800}], {{}}]]', "no known kind"),
    "no operator": ([TOKENS, ["builtins.eval", ["1"], {}]], "not among the operators"),
    "a module": ([TOKENS, ["operator.attrgetter", ["x"], {}]], "not among the operators"),
    "an integer for a dtype": ([TOKENS, ["aten.to.dtype", [node(0), 13], {}]], "another type of dtype"),
    "a computed dtype": (
        [TOKENS, ["aten.sym_size.int", [node(0), 0], {}], ["aten.to.dtype", [node(0), node(1)], {}]],
        "another type of dtype",
    ),
    "quantized": ([TOKENS, ["aten.to.dtype", [node(0), {"dtype": "qint8"}], {}]], "no known kind"),
    "another device": (
        [TOKENS, ["aten.to.device", [node(0), {"device": "meta"}, None], {}]],
        "no known kind",
    ),
    "an unknown argument": ([TOKENS, ["aten.neg.default", [node(0)], {"out": node(0)}]], "does not take"),
    "too many arguments": ([TOKENS, ["aten.neg.default", [node(0), 1], {}]], "does not take"),
    "an argument twice": ([TOKENS, ["aten.neg.default", [node(0)], {"self": node(0)}]], "does not take"),
    "a missing argument": ([TOKENS, ["aten.add.Tensor", [node(0)], {}]], "cannot be applied"),
    "a text for a tensor": ([TOKENS, ["aten.neg.default", ["x"], {}]], "another type of self"),
    "a long text": ([TOKENS, ["aten.einsum.default", ["a" * 300, [node(0)]], {}]], "long text"),
    "a number out of range": ([TOKENS, ["aten.add.Tensor", [node(0), 1 << 63], {}]], "out of range"),
    "a number of 5000 digits": (f'[["tokens"], ["aten.add.Tensor", [{"9" * 5000}], {{}}]]', "no JSON"),
    "integers for logits": (
        [TOKENS, ["aten.one_hot.default", [node(0), VOCABULARY], {}]],
        "no floating tensor",
    ),
    "logits of two kinds": (
        [
            TOKENS,
            ["aten.sym_size.int", [node(0), 0], {}],
            ["aten.ones.default", [[node(1), LENGTH, 61, 61]], {}],
        ],
        "of shape",
    ),
    "logits of one row": ([TOKENS, ["aten.ones.default", [[LENGTH, VOCABULARY]], {}]], "of shape"),
}


@pytest.mark.parametrize(("graph", "reason"), GRAPHS.values(), ids=GRAPHS.keys())
def test_a_graph_that_is_none_is_refused(server: Server, graph: Any, reason: str) -> None:
    assert reason in server.refusal(put_together(graph, {}))


FORBIDDEN = [
    *(
        "aten.add_.Tensor",
        "aten.copy_.default",
        "aten.index_put_.default",
        "aten.fill_.Scalar",
        "aten.set_.source_Tensor",
    ),
    *(
        "aten.empty.memory_format",
        "aten.empty_like.default",
        "aten.empty_strided.default",
        "aten.new_empty.default",
    ),
    *("aten.as_strided.default", "aten.resize.default", "aten.resize_.default", "aten.from_file.default"),
    *("aten.rand.default", "aten.randn_like.default", "aten.bernoulli.default", "aten.dropout.default"),
    *("aten.add.out", "aten.cat.out", "aten._unsafe_index.Tensor", "aten._unsafe_view.default"),
    *(
        "aten._fft_c2r.default",
        "aten._embedding_bag.default",
        "aten._local_scalar_dense.default",
        "aten.item.default",
    ),
    *("aten._native_batch_norm_legit_no_training.default", "aten.embedding_dense_backward.default"),
    *(
        "aten.__class__.__init__",
        "aten.op.overload",
        "aten",
        "prims.mul.default",
        "inductor.accumulate_grad_.default",
    ),
]


@pytest.mark.parametrize("name", FORBIDDEN)
def test_no_operator_outside_the_list_can_be_called(server: Server, name: str) -> None:
    assert f"{name} is not among the operators of sealed models" in server.refusal(
        computing([name, [node(1)], {}])
    )


UNDOABLE: dict[str, tuple[list[list[Any]], str]] = {
    "a full of 1e12": ([["aten.full.default", [[10**6, 10**6], 1], {}]], "more than 4,294,967,296 elements"),
    "an eye of 1e12": ([["aten.eye.default", [10**12], {}]], "more than"),
    "a range of 1e12": ([["aten.arange.default", [10**12], {}]], "a range of more than"),
    "a range of small steps": ([["aten.arange.start_step", [0, 1.0, 1e-12], {}]], "a range of more than"),
    "a range without step": ([["aten.arange.start_step", [0, 1, 0], {}]], "a range of more than"),
    "a one-hot of 1e12": ([["aten.one_hot.default", [node(0), 10**12], {}]], "more than"),
    "repeated 1e12 times": ([["aten.repeat.default", [node(1), [10**6, 10**6]], {}]], "more than"),
    "a computed size": (
        [["aten.sym_size.int", [node(0), 1], {}]]
        + [["operator.mul", [node(2 + i), node(2 + i)], {}] for i in range(3)]
        + [["aten.ones.default", [[node(5)]], {}]],
        "cannot be applied",
    ),
    "an exploding size": (
        [["aten.sym_size.int", [node(0), 1], {}]]
        + [["operator.mul", [node(2 + i), node(2 + i)], {}] for i in range(100)],
        "a size is out of range",
    ),
    "a list as a size": (
        [["aten.unbind.int", [node(0)], {}], ["operator.mul", [node(2), 10**9], {}]],
        "no size",
    ),
    "a tensor as a size": ([["operator.mul", [node(1), node(1)], {}]], "no size"),
    "an item of a tensor": ([["operator.getitem", [node(1), 0], {}]], "only several values have items"),
    "an expanded copy": (
        [["aten.expand.default", [node(1), [1 << 40, 3, 4]], {}], ["aten.clone.default", [node(2)], {}]],
        "cannot be applied",
    ),
    "an index beyond": (
        [["aten.embedding.default", [node(1), node(0)], {}]],
        "aten.embedding.default cannot be applied: IndexError",
    ),
    "shapes that do not fit": ([["aten.mm.default", [node(1), node(1)], {}]], "cannot be applied"),
    "a transform that is too short": ([["aten.fft_irfft.default", [node(1), 0], {}]], "cannot be applied"),
    "dropout in attention": (
        [["aten.scaled_dot_product_attention.default", [node(1), node(1), node(1), None, 0.5], {}]],
        "drops out at random",
    ),
    "dropout that is computed": (
        [
            ["operator.truediv", [1, 2], {}],
            ["aten.scaled_dot_product_attention.default", [node(1)] * 3, {"dropout_p": node(2)}],
        ],
        "drops out at random",
    ),
}


@pytest.mark.parametrize(("calls", "reason"), UNDOABLE.values(), ids=UNDOABLE.keys())
def test_what_cannot_be_done_is_refused(server: Server, calls: list[list[Any]], reason: str) -> None:
    assert reason in server.refusal(computing(*calls), seconds=20)


def test_an_operator_that_raises_a_signal_ends_its_own_scoring_alone(server: Server) -> None:
    lowest = [["aten.full.default", [[64], -(2**63)], {"dtype": {"dtype": "int64"}}]]
    answer = server.score(computing(*lowest, ["aten.floor_divide.Scalar", [node(2), -1], {}]))
    assert answer == {"refused": "scoring was killed by SIGFPE"} or "score" in answer  # by processor
    assert "score" in server.score(honest().content, honest().announced)


# ---------------------------------------------------------------------------
# Whatever else


@functools.cache
def seeds() -> list[tuple[Graph, dict[str, torch.Tensor]]]:
    kinds = (Mixer, Attention, Alibi, DenseExperts, RaggedExperts, LongConvolution, Recurrent)
    return [taken_apart(made(kind)[0]) for kind in kinds]


HOSTILE = [
    0,
    1,
    -1,
    2,
    1 << 31,
    1 << 40,
    -(1 << 63),
    (1 << 63) - 1,
    0.5,
    1e308,
    float("nan"),
    float("-inf"),
    True,
    None,
]
values = st.recursive(
    st.sampled_from(HOSTILE)
    | st.builds(node, st.integers(-1, 60))
    | st.sampled_from(
        [{"dtype": "int8"}, {"dtype": "float16"}, {"device": "tokens"}, {"dtype": "x"}, {}, "", "sum"]
    ),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
known = sorted(OPERATORS)
others = [
    f"aten.{packet}.{overload}" for packet in dir(torch.ops.aten) for overload in ("default", "out", "Tensor")
]
names = st.sampled_from(known) | st.sampled_from(FORBIDDEN) | st.sampled_from(others)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, dict[str, torch.Tensor]]:
    """A real graph with a few of its nodes changed."""
    graph, weights = copy.deepcopy(draw(st.sampled_from(seeds())))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(graph) - 1))
        match draw(st.sampled_from(["name", "argument", "argument", "argument", "drop", "swap"])):
            case "name":
                graph[at][0] = draw(names)
            case "argument" if len(graph[at]) == 3 and graph[at][1]:
                graph[at][1][draw(st.integers(0, len(graph[at][1]) - 1))] = draw(values)
            case "drop" if len(graph) > 1:
                del graph[at]
            case _:
                other = draw(st.integers(0, len(graph) - 1))
                graph[at], graph[other] = graph[other], graph[at]
    return graph, weights


PALETTE: list[list[Any]] = [  # of tensors to begin with; their numbers begin at 2
    ["aten.arange.default", [12], {"dtype": {"dtype": "float32"}}],
    ["aten.view.default", [node(2), [1, 3, 4]], {}],
    ["aten.view.default", [node(2), [1, 1, 3, 4]], {}],
    ["aten.zeros.default", [[0, 4]], {}],
    ["aten.arange.default", [4], {}],
    ["aten.full.default", [[3, 4], 1 << 40], {"dtype": {"dtype": "int64"}}],
    ["aten.full.default", [[3, 4], -(1 << 63)], {"dtype": {"dtype": "int64"}}],
    ["aten.gt.Scalar", [node(2), 5], {}],
    ["aten.full.default", [[3, 4], float("nan")], {"dtype": {"dtype": "bfloat16"}}],
    ["aten.fft_rfft.default", [node(1)], {}],
    ["aten.sym_size.int", [node(0), 1], {}],
]
small = st.integers(-3, 5)
OF_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "int": small | small | st.sampled_from([1 << 20, 1 << 40, (1 << 63) - 1, -(1 << 63)]),
    "float": st.floats(-2, 2) | st.sampled_from([float("nan"), float("inf"), 1e308]),
    "number": small | st.floats(-2, 2) | st.sampled_from([1 << 62, float("nan"), True]),
    "bool": st.booleans(),
    "str": st.sampled_from(
        ["", "sum", "amax", "floor", "reflect", "none", "same", "tanh", "ab,bc->ac", "...a->a"]
    ),
    "ScalarType": st.sampled_from([{"dtype": name} for name in DTYPES]),
    "Device": st.just({"device": "tokens"}),
    "MemoryFormat": st.just({"memory_format": "contiguous_format"}),
    "Layout": st.none(),
}


@st.composite
def of_type(draw: st.DrawFn, declared: str, latest: int) -> Any:
    """An argument of a type that a schema declares."""
    if inner := re.fullmatch(r"Optional\[(.*)\]", declared):
        return draw(st.none() | of_type(inner[1], latest))
    if inner := re.fullmatch(r"List\[(.*)\]", declared):
        return draw(st.lists(of_type(inner[1], latest), max_size=4))
    if declared == "Tensor":
        return node(draw(st.integers(0, latest)))
    return draw(OF_TYPE[declared])


@st.composite
def calls(draw: st.DrawFn) -> list[list[Any]]:
    """Calls of any operators of the list, with arguments of the right types and of all values."""
    made = list(PALETTE)
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(sorted(ATEN)))
        function: Any = operator_named(name)
        declared = [argument for argument in function._schema.arguments if not argument.kwarg_only]
        needed = sum(not argument.has_default_value() for argument in declared)
        given = declared[: draw(st.integers(needed, len(declared)))]
        made.append([name, [draw(of_type(str(one.real_type), 1 + len(made))) for one in given], {}])
    return made


fuzzed = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def check(server: Server, content: bytes) -> dict[str, Any]:
    """It is scored, or refused in one line, and nothing else happens."""
    answer = server.score(content, seconds=10, memory=1 << 30)
    assert "score" in answer or list(answer) == ["refused"]
    if "refused" in answer:
        assert 0 < len(answer["refused"]) <= 200
        assert answer["refused"].isprintable()
        assert "scoring failed" not in answer["refused"]  # an error that nobody foresaw
    return answer


@fuzzed
@given(made=graphs())
def test_any_graph_is_scored_or_refused(server: Server, made: tuple[Graph, dict[str, torch.Tensor]]) -> None:
    graph, weights = made
    answer = check(server, put_together(graph, weights))
    called = {str(part[0]) for part in graph} - {"tokens", "weight"}
    if called - OPERATORS:
        assert "refused" in answer


@fuzzed
@given(made=calls())
def test_any_arguments_are_computed_with_or_refused(server: Server, made: list[list[Any]]) -> None:
    check(server, computing(*made))


anywhere = st.deferred(lambda: st.integers(0, len(honest().content) - 1))
in_the_header = st.deferred(lambda: st.integers(8, 8 + honest().header - 1))


@fuzzed
@given(
    changes=st.lists(st.tuples(anywhere, st.integers(0, 255)), max_size=8),
    length=st.none() | anywhere,
)
@example(changes=[], length=None)
def test_any_bytes_are_scored_or_refused(
    server: Server, changes: list[tuple[int, int]], length: int | None
) -> None:
    content = bytearray(honest().content)
    for at, byte in changes:
        content[at] = byte
    answer = check(server, bytes(content[:length]))
    if bytes(content[:length]) == honest().content:
        assert "score" in answer


@fuzzed
@given(changes=st.lists(st.tuples(in_the_header, st.integers(32, 126)), min_size=1, max_size=3))
def test_any_header_is_scored_or_refused(server: Server, changes: list[tuple[int, int]]) -> None:
    content = bytearray(honest().content)
    for at, byte in changes:
        content[at] = byte
    check(server, bytes(content))


def test_every_rule_is_about_an_operator() -> None:
    assert {name.split(".")[1] for name in OPERATORS} >= RULES.keys()


def test_the_scorer_has_lived_through_all_of_this(server: Server) -> None:
    assert server.process.poll() is None
    assert "score" in server.score(honest().content, honest().announced)


def floats(number: int, *shape: int) -> list[Any]:
    return ["aten.full.default", [list(shape), number], {"dtype": {"dtype": "float32"}}]


ATTEND = "aten.scaled_dot_product_attention.default"


@pytest.mark.parametrize(
    ("query", "key", "value", "mask"),
    [
        ((1, 1, 4, 8), (1, 1, 1, 8), (1, 1, 4096, 8), None),
        ((1, 1, 4, 8), (1, 1, 20, 8), (1, 1, 40, 8), None),
        ((1, 4, 8, 8), (1, 1, 8, 8), (1, 4, 8, 8), None),
        ((4, 1, 8, 8), (1, 1, 8, 8), (4, 1, 8, 8), None),
        ((1, 1, 8, 8), (2, 1, 8, 8), (2, 1, 8, 8), None),
        ((1, 1, 8, 8), (1, 1, 8, 4), (1, 1, 8, 8), None),
        ((1, 1, 8, 8), (1, 1, 0, 8), (1, 1, 0, 8), None),
        ((1, 8, 8), (1, 1, 8, 8), (1, 1, 8, 8), None),
        ((1, 1, 8, 8), (1, 1, 8, 8), (1, 1, 8, 8), (8, 4)),
        ((1, 1, 8, 8), (1, 1, 8, 8), (1, 1, 8, 8), (3, 1, 1, 8, 8)),
    ],
)
def test_attention_reads_nothing_behind_its_keys(
    server: Server,
    query: tuple[int, ...],
    key: tuple[int, ...],
    value: tuple[int, ...],
    mask: tuple[int, ...] | None,
) -> None:
    """The kernel that torch has for the CPU takes the number of keys from the values, and trusts it."""
    made = [floats(1, *query), floats(1, *key), floats(1, *value), floats(0, *(mask or (1, 1)))]
    attend = [ATTEND, [node(2), node(3), node(4), node(5) if mask else None], {}]
    assert "do not fit" in server.refusal(computing(*made, attend))


def test_attention_that_fits_is_computed(server: Server) -> None:
    made = [floats(1, 2, 4, 8, 8), floats(1, 2, 2, 6, 8), floats(0, 8, 6)]
    attend = [ATTEND, [node(2), node(3), node(3), node(4)], {"enable_gqa": True}]
    assert "score" in server.score(computing(*made, attend))


def test_a_graph_that_was_not_announced_is_refused(server: Server) -> None:
    """What was computed after the clock had stopped must not come in as a graph instead of weights."""
    late = put_together(
        [*honest().graph, ["aten.neg.default", [node(len(honest().graph) - 1)], {}]], honest().weights
    )
    reason = "it is not the model that was announced when the clock stopped"
    assert "score" in server.score(late)
    assert server.refusal(late, honest().announced) == reason
    spaced = json.dumps(honest().graph)  # the same graph, in another text: what it says must not vary either
    assert server.refusal(put_together(spaced, honest().weights), honest().announced) == reason


def test_a_graph_has_no_more_nodes_than_is_allowed(server: Server) -> None:
    nodes = len(honest().graph)
    assert "score" in server.score(honest().content, nodes=nodes)
    assert (
        server.refusal(honest().content, nodes=nodes - 1) == f"its graph is no list of 1 to {nodes - 1} nodes"
    )


def test_what_is_not_used_is_not_looked_at(server: Server) -> None:
    unused = ["aten.to.dtype", [node(1), {"dtype": "bfloat16"}], {}]
    plain = server.score(computing(["aten.mul.Tensor", [node(1), 0], {}]))["score"]
    assert server.score(computing(unused, ["aten.mul.Tensor", [node(1), 0], {}]))["score"] == plain
