"""The arguments of a sealed graph's operators, and their JSON form."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from pytest_autoresearch.errors import OperatorForbidden

DEEPEST = 3  # lists within lists, in one argument
LONGEST_TEXT = 256  # characters, for example of an einsum's equation

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
    """An argument that stands for the value of an earlier node."""

    node: int


def encode(value: object) -> Any:
    """Return an argument as a JSON value.

    Raises:
        OperatorForbidden: it is of a type that a sealed graph cannot hold.
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
            return {"device": "tokens"}  # the device of the tokens, wherever the model is scored
    raise OperatorForbidden(f"an argument is a {type(value).__name__}")


def decode(value: Any, device: torch.device, depth: int = 0) -> Any:
    """Return the argument that a JSON value stands for, with *device* for any device.

    Raises:
        OperatorForbidden: it stands for none.
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
