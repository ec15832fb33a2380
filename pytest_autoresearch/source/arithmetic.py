"""Arithmetic in a script, evaluated without running it."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from pytest_autoresearch.records.trial import Value
from pytest_autoresearch.source.parse import parsed

Known: TypeAlias = Value | tuple[Value, ...]
"""What an expression can be known to be. Tuples are flat: comparing nested ones can take for ever."""


class NotConstant(Exception):
    """What an expression gives cannot be told without running it."""


Names: TypeAlias = "Mapping[str, Known | type[NotConstant]]"
"""What names stand for; :class:`NotConstant` itself marks a name that is bound to something unknown."""

FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (min, max, len, int, float, round, abs)
}
_BITS = 1024
_LENGTH = 4096
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


def evaluate(node: ast.expr, names: Names, device: str) -> Known:
    """Return what *node* gives on *device*, without running anything.

    Known are numbers, strings and bools, tuples of them, ``+ - * / // % **`` and unary signs,
    comparisons, ``and``/``or``/``not``, ``min max len int float round abs``, ``per_device(...)``,
    and what *names* holds. Raises :class:`NotConstant` for all else, for whatever Python would refuse,
    and for numbers beyond 1024 bits, so it always ends at once; raises :class:`ZeroDivisionError`
    where Python would.
    """
    try:
        return _bounded(_evaluate(node, names, device))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NotConstant from error


def literal(text: str, device: str) -> Known:
    """Return what the expression *text* gives by itself; raises as :func:`evaluate` does."""
    match parsed(text.strip()):
        case ast.Module(body=[ast.Expr(value=node)]):
            return evaluate(node, {}, device)
    raise NotConstant


def per_device(node: ast.expr, device: str) -> ast.expr | None:
    """Return the argument of ``per_device(cuda=..., cpu=...)`` for *device*, None if *node* is none."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "per_device":
        return next((keyword.value for keyword in node.keywords if keyword.arg == device), None)
    return None


def _evaluate(node: ast.expr, names: Names, device: str) -> Any:  # noqa: PLR0911 - one for each kind
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return names[name]
        case ast.Tuple(elts=elements):
            values = tuple(evaluate(element, names, device) for element in elements)
            if not any(isinstance(value, tuple) for value in values):
                return values
        case ast.UnaryOp(op=sign, operand=operand):
            return _OPERATORS[type(sign)](evaluate(operand, names, device))
        case ast.BinOp(left=left, op=operation, right=right):
            return _calculated(operation, evaluate(left, names, device), evaluate(right, names, device))
        case ast.BoolOp(op=junction, values=operands):
            return _joined(operands, names, device, until=isinstance(junction, ast.Or))
        case ast.Compare():
            return _compared(node, names, device)
        case ast.Call():
            return _called(node, names, device)
    raise NotConstant


def _joined(operands: list[ast.expr], names: Names, device: str, *, until: bool) -> Known:
    value: Known = not until
    for operand in operands:
        value = evaluate(operand, names, device)
        if bool(value) is until:
            break
    return value


def _compared(node: ast.Compare, names: Names, device: str) -> bool:
    left = evaluate(node.left, names, device)
    for sign, comparator in zip(node.ops, node.comparators, strict=True):
        right = evaluate(comparator, names, device)
        if not _OPERATORS[type(sign)](left, right):
            return False
        left = right
    return True


def _calculated(operation: ast.operator, left: Known, right: Known) -> Any:
    # Strings and tuples are left out: `"a" * 10**9` and `"%9999999d" % 1` are cheap to write only.
    left, right = _number(left), _number(right)
    if isinstance(operation, ast.Pow) and isinstance(left, int) and left.bit_length() * right > 2 * _BITS:
        raise NotConstant
    return _OPERATORS[type(operation)](left, right)


def _called(node: ast.Call, names: Names, device: str) -> Any:
    if (chosen := per_device(node, device)) is not None:
        return evaluate(chosen, names, device)
    # A name that the script binds is no longer Python's own function.
    if not isinstance(node.func, ast.Name) or node.func.id in names or node.keywords:
        raise NotConstant
    arguments = [evaluate(argument, names, device) for argument in node.args]
    function = FUNCTIONS[node.func.id]
    # round(1, -10**9) would never end.
    if function is round and not all(abs(_number(digits)) < _BITS for digits in arguments[1:]):
        raise NotConstant
    return function(*arguments)


def _number(value: Known) -> int | float:
    if isinstance(value, str | tuple):
        raise NotConstant
    return value


def _bounded(value: Any) -> Known:
    match value:
        case bool():
            return value
        case int() if value.bit_length() <= _BITS:
            return value
        case float() if math.isfinite(value):
            return value
        case str() | tuple() if len(value) <= _LENGTH:
            return value
    raise NotConstant
