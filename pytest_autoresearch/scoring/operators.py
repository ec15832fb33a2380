"""What a sealed graph may compute with: operators, and the form in which their arguments are written.

Every operator here is pure, deterministic and memory-safe: it changes none of its arguments, draws no
random number, checks indices and shapes itself, and writes all of the memory that it returns. So what a
graph computes depends on its weights and its tokens alone. Whoever adds one has to see to all three: raw
kernels, whose arguments the public function would have checked (``_fft_c2r``,
``_native_batch_norm_legit_no_training``), are no candidates, nor is what reads memory that nobody wrote.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from pytest_autoresearch.errors import OperatorForbidden

LARGEST = 1 << 32  # elements of a tensor that is made from a size alone
DEEPEST = 3  # lists within lists, in one argument
LONGEST_TEXT = 256  # characters, say of an einsum's equation


def _named(namespace: str, names: str) -> frozenset[str]:
    return frozenset(f"{namespace}.{name}" for name in names.split())


ELEMENTWISE = _named(
    "aten",
    """
    abs.default acos.default acosh.default angle.default asin.default asinh.default atan.default
    atan2.default atanh.default bitwise_not.default ceil.default celu.default clamp.default clamp.Tensor
    clamp_max.default clamp_max.Tensor clamp_min.default clamp_min.Tensor copysign.Tensor cos.default
    cosh.default deg2rad.default elu.default erf.default erfc.default erfinv.default exp.default
    exp2.default expm1.default floor.default frac.default gelu.default glu.default hardsigmoid.default
    hardswish.default hardtanh.default isfinite.default isinf.default isnan.default leaky_relu.default
    lgamma.default log.default log10.default log1p.default log2.default log_sigmoid.default
    logical_not.default logit.default mish.default nan_to_num.default neg.default prelu.default
    reciprocal.default relu.default relu6.default round.default round.decimals rsqrt.default selu.default
    sgn.default sigmoid.default sign.default signbit.default silu.default sin.default sinc.default
    sinh.default softplus.default sqrt.default square.default tan.default tanh.default threshold.default
    trunc.default

    __and__.Scalar __and__.Tensor __lshift__.Scalar __lshift__.Tensor __or__.Scalar __or__.Tensor
    __rshift__.Scalar __rshift__.Tensor __xor__.Scalar __xor__.Tensor add.Scalar add.Tensor addcdiv.default
    addcmul.default bitwise_and.Scalar bitwise_and.Tensor bitwise_left_shift.Tensor
    bitwise_left_shift.Tensor_Scalar bitwise_or.Scalar bitwise_or.Tensor bitwise_right_shift.Tensor
    bitwise_right_shift.Tensor_Scalar bitwise_xor.Scalar bitwise_xor.Tensor div.Scalar div.Scalar_mode
    div.Tensor div.Tensor_mode eq.Scalar eq.Tensor float_power.Scalar float_power.Tensor_Scalar
    float_power.Tensor_Tensor floor_divide.Scalar floor_divide.default fmax.default fmin.default fmod.Scalar
    fmod.Tensor ge.Scalar ge.Tensor gt.Scalar gt.Tensor heaviside.default hypot.default le.Scalar le.Tensor
    lerp.Scalar lerp.Tensor logaddexp.default logaddexp2.default logical_and.default logical_or.default
    logical_xor.default lt.Scalar lt.Tensor masked_fill.Scalar masked_fill.Tensor max.other maximum.default
    min.other minimum.default mul.Scalar mul.Tensor ne.Scalar ne.Tensor pow.Scalar pow.Tensor_Scalar
    pow.Tensor_Tensor remainder.Scalar remainder.Scalar_Tensor remainder.Tensor rsub.Scalar rsub.Tensor
    sub.Scalar sub.Tensor where.Scalar where.ScalarOther where.ScalarSelf where.self xlogy.Tensor

    complex.default conj.default _conj.default imag.default polar.default real.default resolve_conj.default
    view_as_complex.default view_as_real.default
    """,
)
REDUCTIONS = _named(
    "aten",
    """
    all.default all.dim all.dims amax.default amin.default any.default any.dim any.dims argmax.default
    argmin.default argsort.default argsort.stable count_nonzero.default count_nonzero.dim_IntList
    cummax.default cummin.default cumprod.default cumsum.default diff.default linalg_vector_norm.default
    log_softmax.int _log_softmax.default logcumsumexp.default logsumexp.default max.default max.dim
    mean.default mean.dim min.default min.dim norm.Scalar norm.ScalarOpt_dim norm.ScalarOpt_dim_dtype
    prod.default prod.dim_int softmax.int _softmax.default sort.default sort.stable std.correction
    std.default std.dim std_mean.correction std_mean.default std_mean.dim sum.default sum.dim_IntList
    topk.default var.correction var.default var.dim var_mean.correction var_mean.default var_mean.dim
    """,
)
PRODUCTS = _named(
    "aten",
    """
    addbmm.default addmm.default addmv.default baddbmm.default bmm.default conv1d.default conv1d.padding
    conv2d.default conv2d.padding cosine_similarity.default cross.default dot.default
    einsum.default fft_fft.default fft_ifft.default fft_irfft.default fft_rfft.default gru_cell.default
    linalg_solve_triangular.default linear.default lstm_cell.default matmul.default mm.default mv.default
    outer.default scaled_dot_product_attention.default tensordot.default
    """,
)
NORMS = _named("aten", "group_norm.default layer_norm.default rms_norm.default")
SHAPES = _named(
    "aten",
    """
    alias.default broadcast_to.default cat.default chunk.default clone.default concat.default
    constant_pad_nd.default contiguous.default detach.default diag_embed.default diagonal.default
    expand.default expand_as.default flatten.using_ints flip.default hstack.default mT.default
    movedim.int movedim.intlist narrow.default numpy_T.default pad.default permute.default repeat.default
    repeat_interleave.self_int reshape.default roll.default select.int slice.Tensor split.Tensor split.sizes
    split_with_sizes.default squeeze.default squeeze.dim squeeze.dims stack.default swapaxes.default
    swapdims.default t.default tile.default transpose.int
    tril.default triu.default unbind.int unflatten.int unfold.default unsqueeze.default view.default
    view.dtype view_as.default
    """,
)
CASTS = _named("aten", "_to_copy.default to.device to.dtype to.dtype_layout to.other type_as.default")
CREATION = _named(
    "aten",
    """
    arange.default arange.start arange.start_step copy.default eye.default eye.m fill.Scalar fill.Tensor
    full.default full_like.default linspace.default new_full.default new_ones.default new_zeros.default
    ones.default ones_like.default scalar_tensor.default zeros.default zeros_like.default
    """,
)
INDEXING = _named(
    "aten",
    """
    bucketize.Tensor embedding.default gather.default index.Tensor index_add.default index_copy.default
    index_fill.int_Scalar index_fill.int_Tensor index_put.default index_select.default isin.Tensor_Tensor
    masked_scatter.default masked_select.default nonzero.default one_hot.default scatter.src scatter.value
    scatter_add.default scatter_reduce.two select_scatter.default slice_scatter.default
    take_along_dim.default
    """,
)
SIZES = _named("aten", "sym_numel.default sym_size.int")
ATEN = ELEMENTWISE | REDUCTIONS | PRODUCTS | NORMS | SHAPES | CASTS | CREATION | INDEXING | SIZES

DTYPES: Mapping[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.complex64, torch.complex128),
    )
}
MEMORY_FORMATS: Mapping[str, torch.memory_format] = {
    str(form).removeprefix("torch."): form for form in (torch.contiguous_format, torch.preserve_format)
}


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    """An argument that is the value of an earlier node."""

    node: int


# ---------------------------------------------------------------------------
# Operators on the sizes of tensors, which are Python's own numbers


def _number(value: object) -> int | float:
    if not isinstance(value, int | float):
        raise OperatorForbidden(f"a {type(value).__name__} is no size")
    return value


def _on_sizes(function: Callable[..., int | float]) -> Callable[..., int | float]:
    """Return *function* for numbers alone, in the range of int64: no list is repeated, no number explodes."""

    @functools.wraps(function)
    def bounded(*values: object) -> int | float:
        result = function(*map(_number, values))
        if not -(2**63) <= result < 2**63:
            raise OperatorForbidden("a size is out of range")
        return result

    return bounded


def _item(values: object, index: object) -> object:
    """Return one of the several tensors that an operator returned."""
    if not isinstance(values, list | tuple) or not isinstance(index, int):
        raise OperatorForbidden("only several values have items")
    return values[index]


PYTHON: Mapping[str, Callable[..., Any]] = {
    "operator.getitem": _item,
    **{
        f"operator.{function.__name__}": _on_sizes(function)
        for function in (
            *(operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.neg),
            *(operator.truediv, operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge),
        )
    },
    "torch.sym_max": _on_sizes(max),
    "torch.sym_min": _on_sizes(min),
}
OPERATORS = ATEN | PYTHON.keys()


def operator_named(name: str) -> Callable[..., Any]:
    """Return the operator of that *name*, ``aten.mul.Tensor`` say, to be called with values.

    Raises:
        Forbidden: a sealed graph has no such operator.
    """
    if name in PYTHON:
        return PYTHON[name]
    if name not in ATEN:
        raise OperatorForbidden(f"{name} is not among the operators of sealed models")
    _, packet, overload = name.split(".")
    found = getattr(getattr(torch.ops.aten, packet, None), overload, None)
    if not isinstance(found, OpOverload):
        raise OperatorForbidden(f"{name} is unknown to torch {torch.__version__}")
    return found


def called(name: str) -> Callable[..., Any]:
    """Return what to call for an operator: itself, or what first looks at shapes that its kernel trusts.

    Raises:
        Forbidden: a sealed graph has no such operator.
    """
    return CAUTIOUS.get(name) or operator_named(name)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    *further: Any,
    **options: Any,
) -> Any:
    """Attend, if the shapes fit: the CPU's kernel takes the number of keys from the values, and reads on."""
    one, other = query.shape, key.shape
    fits = (
        query.ndim == key.ndim == value.ndim >= 2 and other[:-1] == value.shape[:-1] and one[-1] == other[-1]
    )
    if fits and options.get("enable_gqa"):
        fits = query.ndim == 4 and one[0] == other[0] and other[1] > 0 and one[1] % other[1] == 0
    elif fits:
        fits = one[:-2] == other[:-2]
    if fits and attn_mask is not None:
        whole = (*one[:-1], other[-2])
        mask = (1,) * (len(whole) - attn_mask.ndim) + tuple(attn_mask.shape)
        fits = len(mask) == len(whole) and all(
            have in (1, want) for have, want in zip(mask, whole, strict=True)
        )
    if not fits or 0 in (*one, *other):
        raise OperatorForbidden(
            f"queries {tuple(one)}, keys {tuple(other)} and values {tuple(value.shape)} do not fit"
        )
    attend = torch.ops.aten.scaled_dot_product_attention.default
    return attend(query, key, value, attn_mask, *further, **options)


CAUTIOUS: Mapping[str, Callable[..., Any]] = {"aten.scaled_dot_product_attention.default": _attention}

# ---------------------------------------------------------------------------
# Arguments


def check_arguments(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Compare arguments, references among them, with what an operator declares, and with its own rule.

    torch checks types too, but takes an integer for a dtype, any dtype: here it has to be one of DTYPES.

    Raises:
        Forbidden: there is no such operator, or it is not to be called like that.
    """
    function = operator_named(name)
    if not isinstance(function, OpOverload):
        if kwargs or not all(isinstance(value, Reference | int | float) for value in args):
            raise OperatorForbidden(f"{name} with arguments that it does not take")
        return
    schema = function._schema  # noqa: SLF001 - there is no other way to ask
    declared = {argument.name: str(argument.real_type) for argument in schema.arguments}
    if len(args) > len(declared) or kwargs.keys() - list(declared)[len(args) :]:
        raise OperatorForbidden(f"{name} with arguments that it does not take")
    given = {**dict(zip(declared, args, strict=False)), **kwargs}
    for argument, value in given.items():
        if not _fits(value, declared[argument]):
            raise OperatorForbidden(f"{name} with another type of {argument}")
    if rule := RULES.get(name.split(".")[1]):
        rule(given)


def _no_dropout(given: Mapping[str, Any]) -> None:
    if given.get("dropout_p", 0) != 0:  # a reference is as bad
        raise OperatorForbidden("attention drops out at random: pass dropout_p=0 in eval mode")


def _affordable(given: Mapping[str, Any]) -> None:
    """Refuse sizes that are absurd as they stand; of what is computed, the memory limit takes care."""
    counts: list[object] = []
    for name in ("size", "repeats", "dims", "steps", "n", "m", "num_classes"):
        value = given.get(name)
        counts.extend(value if isinstance(value, list) else [value])
    if math.prod(count for count in counts if isinstance(count, int) and count > 0) > LARGEST:
        raise OperatorForbidden(f"a tensor of more than {LARGEST:,} elements")


def _affordable_range(given: Mapping[str, Any]) -> None:
    bounds = given.get("start", 0), given.get("end", 0), given.get("step", 1)
    start, end, step = (0 if isinstance(bound, Reference) else bound for bound in bounds)
    if abs(end - start) > LARGEST * abs(step):
        raise OperatorForbidden(f"a range of more than {LARGEST:,} elements")


def _no_hole(given: Mapping[str, Any]) -> None:
    """Refuse what torch's own padding copies before it has written it: a negative pad of a circle."""
    pads = given.get("pad")
    if given.get("mode") == "circular" and not (isinstance(pads, list) and all(map(_is_pad, pads))):
        raise OperatorForbidden("circular padding by a negative number reads memory that nobody wrote")


def _is_pad(value: object) -> bool:
    return isinstance(value, int) and value >= 0  # a reference may turn out to be negative


RULES: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    "arange": _affordable_range,
    "pad": _no_hole,
    "scaled_dot_product_attention": _no_dropout,
    **dict.fromkeys(("eye", "full", "linspace", "one_hot", "ones", "zeros"), _affordable),
    **dict.fromkeys(("new_full", "new_ones", "new_zeros"), _affordable),
    **dict.fromkeys(("repeat", "repeat_interleave", "tile"), _affordable),
}
SCALARS: Mapping[str, tuple[type, ...]] = {
    "Tensor": (Reference, bool, int, float),  # torch makes tensors of numbers
    "number": (Reference, bool, int, float),
    "float": (Reference, int, float),
    "int": (Reference, int),
    "bool": (bool,),
    "str": (str,),
    "ScalarType": (torch.dtype,),
    "Device": (torch.device,),
    "MemoryFormat": (torch.memory_format,),
}


def _fits(value: object, declared: str) -> bool:
    """Tell whether a value may be given for a type of a schema, such as ``Optional[List[int]]``."""
    if optional := re.fullmatch(r"Optional\[(.*)\]", declared):
        return value is None or _fits(value, optional[1])
    if several := re.fullmatch(r"List\[(.*)\]", declared):
        if isinstance(value, list):
            return all(_fits(item, several[1]) for item in value)
        return isinstance(value, Reference | int) and several[1] != "Optional[Tensor]"
    return isinstance(value, SCALARS.get(declared, ()))


def encode(value: object) -> Any:
    """Return an argument as a JSON value.

    Raises:
        Forbidden: no argument of a sealed graph is like it.
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Reference(node):
            return {"node": node}
        case list() | tuple():
            return [encode(item) for item in value]
        case torch.dtype() | torch.memory_format():
            return {type(value).__name__: str(value).removeprefix("torch.")}
        case torch.device():
            return {"device": "tokens"}  # wherever those are
    raise OperatorForbidden(f"an argument is a {type(value).__name__}")


def decode(value: Any, device: torch.device, depth: int = 0) -> Any:
    """Return the argument that a JSON value stands for; whatever is on a device is on that one.

    Raises:
        Forbidden: it stands for none.
    """
    match value:
        case str() if len(value) > LONGEST_TEXT:
            raise OperatorForbidden("an argument is a long text")
        case int() if not -(2**63) <= value < 2**63:
            raise OperatorForbidden("a number is out of range")
        case None | bool() | int() | float() | str():
            return value
        case list() if depth < DEEPEST:
            return [decode(item, device, depth + 1) for item in value]
        case {"node": int(node)} if len(value) == 1 and not isinstance(node, bool):
            return Reference(node)
        case {"dtype": str(name)} if len(value) == 1 and name in DTYPES:
            return DTYPES[name]
        case {"memory_format": str(name)} if len(value) == 1 and name in MEMORY_FORMATS:
            return MEMORY_FORMATS[name]
        case {"device": "tokens"} if len(value) == 1:
            return device
    raise OperatorForbidden("an argument of no known kind")


def references(value: object) -> Iterable[Reference]:
    """Yield the references in an argument, or in a list of arguments."""
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)
