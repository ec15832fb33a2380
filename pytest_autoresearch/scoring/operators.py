"""The operators that a sealed graph may use.

Every operator here is pure, deterministic and memory-safe: it changes none of its arguments, draws no random
number, checks indices and shapes itself, and writes all of the memory that it returns. So the result of a
graph depends on its weights and its input alone. A new entry needs all of these properties. Raw kernels,
whose arguments the public function would have checked (``_fft_c2r``,
``_native_batch_norm_legit_no_training``), do not, nor do operators that return uninitialised memory.
"""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from pytest_autoresearch.errors import OperatorForbidden
from pytest_autoresearch.scoring.arguments import Reference

LARGEST = 1 << 32  # elements of a tensor that is made from a size alone


def _aten(names: str) -> frozenset[str]:
    """Return full names: ``add.Scalar,Tensor`` stands for two overloads, ``abs`` for the default one."""
    packets = (name.partition(".") for name in names.split())
    return frozenset(
        f"aten.{name}.{overload}"
        for name, _, listed in packets
        for overload in (listed or "default").split(",")
    )


ELEMENTWISE = _aten(
    """
    abs acos acosh angle asin asinh atan atan2 atanh bitwise_not ceil celu clamp.default,Tensor
    clamp_max.default,Tensor clamp_min.default,Tensor copysign.Tensor cos cosh deg2rad elu erf erfc erfinv
    exp exp2 expm1 floor frac gelu glu hardsigmoid hardswish hardtanh isfinite isinf isnan leaky_relu
    lgamma log log10 log1p log2 log_sigmoid logical_not logit mish nan_to_num neg prelu reciprocal relu
    relu6 round.default,decimals rsqrt selu sgn sigmoid sign signbit silu sin sinc sinh softplus sqrt
    square tan tanh threshold trunc

    __and__.Scalar,Tensor __lshift__.Scalar,Tensor __or__.Scalar,Tensor __rshift__.Scalar,Tensor
    __xor__.Scalar,Tensor add.Scalar,Tensor addcdiv addcmul bitwise_and.Scalar,Tensor
    bitwise_left_shift.Tensor,Tensor_Scalar bitwise_or.Scalar,Tensor
    bitwise_right_shift.Tensor,Tensor_Scalar bitwise_xor.Scalar,Tensor
    div.Scalar,Scalar_mode,Tensor,Tensor_mode eq.Scalar,Tensor
    float_power.Scalar,Tensor_Scalar,Tensor_Tensor floor_divide.Scalar,default fmax fmin
    fmod.Scalar,Tensor ge.Scalar,Tensor gt.Scalar,Tensor heaviside hypot le.Scalar,Tensor
    lerp.Scalar,Tensor logaddexp logaddexp2 logical_and logical_or logical_xor lt.Scalar,Tensor
    masked_fill.Scalar,Tensor max.other maximum min.other minimum mul.Scalar,Tensor ne.Scalar,Tensor
    pow.Scalar,Tensor_Scalar,Tensor_Tensor remainder.Scalar,Scalar_Tensor,Tensor rsub.Scalar,Tensor
    sub.Scalar,Tensor where.Scalar,ScalarOther,ScalarSelf,self xlogy.Tensor

    complex conj _conj imag polar real resolve_conj view_as_complex view_as_real
    """
)
REDUCTIONS = _aten(
    """
    all.default,dim,dims amax amin any.default,dim,dims argmax argmin argsort.default,stable
    count_nonzero.default,dim_IntList cummax cummin cumprod cumsum diff linalg_vector_norm log_softmax.int
    _log_softmax logcumsumexp logsumexp max.default,dim mean.default,dim min.default,dim
    norm.Scalar,ScalarOpt_dim,ScalarOpt_dim_dtype prod.default,dim_int softmax.int _softmax
    sort.default,stable std.correction,default,dim std_mean.correction,default,dim sum.default,dim_IntList
    topk var.correction,default,dim var_mean.correction,default,dim
    """
)
PRODUCTS = _aten(
    """
    addbmm addmm addmv baddbmm bmm conv1d.default,padding conv2d.default,padding cosine_similarity cross
    dot einsum fft_fft fft_ifft fft_irfft fft_rfft gru_cell linalg_solve_triangular linear lstm_cell
    matmul mm mv outer scaled_dot_product_attention tensordot
    """
)
NORMS = _aten("group_norm layer_norm rms_norm")
SHAPES = _aten(
    """
    alias broadcast_to cat chunk clone concat constant_pad_nd contiguous detach diag_embed diagonal expand
    expand_as flatten.using_ints flip hstack mT movedim.int,intlist narrow numpy_T pad permute repeat
    repeat_interleave.self_int reshape roll select.int slice.Tensor split.Tensor,sizes split_with_sizes
    squeeze.default,dim,dims stack swapaxes swapdims t tile transpose.int tril triu unbind.int
    unflatten.int unfold unsqueeze view.default,dtype view_as
    """
)
CASTS = _aten("_to_copy to.device,dtype,dtype_layout,other type_as")
CREATION = _aten(
    """
    arange.default,start,start_step copy eye.default,m fill.Scalar,Tensor full full_like linspace new_full
    new_ones new_zeros ones ones_like scalar_tensor zeros zeros_like
    """
)
INDEXING = _aten(
    """
    bucketize.Tensor embedding gather index.Tensor index_add index_copy index_fill.int_Scalar,int_Tensor
    index_put index_select isin.Tensor_Tensor masked_scatter masked_select nonzero one_hot
    scatter.src,value scatter_add scatter_reduce.two select_scatter slice_scatter take_along_dim
    """
)
SIZES = _aten("sym_numel sym_size.int")
ATEN = ELEMENTWISE | REDUCTIONS | PRODUCTS | NORMS | SHAPES | CASTS | CREATION | INDEXING | SIZES

# ---------------------------------------------------------------------------
# Operators on the sizes of tensors, which are Python numbers


def _on_sizes(function: Callable[..., int | float]) -> Callable[..., int | float]:
    """Return *function*, limited to numbers and to results in the range of int64."""

    @functools.wraps(function)
    def bounded(*values: Any) -> int | float:
        for value in values:
            if not isinstance(value, int | float):
                raise OperatorForbidden(f"a {type(value).__name__} is no size")
        result = function(*values)
        if not -(2**63) <= result < 2**63:
            raise OperatorForbidden("a size is out of range")
        return result

    return bounded


def _item(values: object, index: object) -> object:
    """Return one of several tensors that an operator returned."""
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
    """Return the operator with that *name*, for example ``aten.mul.Tensor``.

    Raises:
        OperatorForbidden: it is not on the list.
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
    """Return what to call for an operator: itself, or a function that checks shapes which the kernel trusts.

    Raises:
        OperatorForbidden: it is not on the list.
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
    """Attend if the shapes fit: the CPU kernel takes the number of keys from the values and reads on."""
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
    """Check arguments, which may be references, against the operator's schema and against its rule.

    torch checks types too, but accepts an integer for any dtype. Here a dtype has to be one of
    :data:`~pytest_autoresearch.scoring.arguments.DTYPES`.

    Raises:
        OperatorForbidden: it is not on the list, or not with these arguments.
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
    """Refuse constant sizes that are absurd; the memory limit covers computed ones."""
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
    """Refuse circular padding by a negative number: torch copies memory there before it writes it."""
    pads = given.get("pad")
    if given.get("mode") == "circular" and not (
        isinstance(pads, list)
        and all(isinstance(pad, int) and pad >= 0 for pad in pads)  # a reference may be < 0
    ):
        raise OperatorForbidden("circular padding by a negative number reads memory that nobody wrote")


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
    """Tell whether *value* may be given for a type of a schema, such as ``Optional[List[int]]``."""
    if optional := re.fullmatch(r"Optional\[(.*)\]", declared):
        return value is None or _fits(value, optional[1])
    if several := re.fullmatch(r"List\[(.*)\]", declared):
        if isinstance(value, list):
            return all(_fits(item, several[1]) for item in value)
        return isinstance(value, Reference | int) and several[1] != "Optional[Tensor]"
    return isinstance(value, SCALARS.get(declared, ()))
