"""The UPPER_CASE constants of a script: found, evaluated and replaced without running it."""

from __future__ import annotations

import ast
import collections
import dataclasses
import io
import math
import operator
import re
import tokenize
import warnings
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_autoresearch.records.trial import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Known: TypeAlias = Value | tuple[Value, ...]
"""What an expression can be known to be. Tuples are flat: comparing nested ones can take for ever."""


class NotConstant(Exception):
    """What an expression gives cannot be told without running it."""


Names: TypeAlias = "Mapping[str, Known | type[NotConstant]]"
"""What names stand for; :class:`NotConstant` itself marks a name that is bound to something unknown."""


@dataclasses.dataclass(frozen=True, slots=True)
class Constant:
    """A constant as a script writes it, on one device."""

    name: str
    """``NAME``, or ``NAME[0]`` for an element of a tuple."""
    value: Value
    start: int
    """Where its value begins in the UTF-8 bytes of the script."""
    end: int
    """Where its value ends, exclusive."""
    text: str
    """Its value as written: ``2**12``, ``4e-2``."""
    comment: str
    """The comment behind it without the ``#``, empty if there is none."""


def find(source: str, device: str) -> list[Constant]:
    """Return the constants that *source* holds on *device* (``cuda`` or ``cpu``), in its order.

    A constant is a name in UPPER_CASE that the module binds exactly once, to literals or arithmetic
    of literals. Elements of a tuple are constants of their own, not those of a table, and of
    ``per_device(cuda=..., cpu=...)`` only the part for *device* counts. A value that mentions other
    names or calls anything else is derived, not a constant. A script that cannot be parsed has none.
    """
    tree = _parse(source)
    written = source.encode(errors="replace")
    offsets = _line_offsets(written)
    comments = _comments(source) if tree.body else {}
    rebound = _rebound(tree)
    constants = []
    for statement in tree.body:
        name, assigned = _assignment(statement)
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name) or name in rebound:
            continue
        for element, node in _elements(name, assigned, device):
            # Written anew, `2 * per_device(...)` would lose what the other device has.
            if any(isinstance(inner, ast.Call) for inner in ast.walk(node)):
                continue
            try:
                value = evaluate(node, {}, device)
            except (NotConstant, ZeroDivisionError):
                continue
            if isinstance(value, tuple):
                continue
            start = offsets[node.lineno - 1] + node.col_offset
            end = offsets[_last_line(node) - 1] + (node.end_col_offset or 0)
            comment = comments.get(_last_line(node)) or comments.get(_last_line(statement), "")
            constants.append(Constant(element, value, start, end, written[start:end].decode(), comment))
    return constants


def values(source: str, device: str) -> dict[str, Value]:
    """Return name and value of every constant of *source* on *device*; see :func:`find`."""
    return {constant.name: constant.value for constant in find(source, device)}


def replace(source: str, texts: Mapping[str, str], device: str) -> str:
    """Return *source* with the constants named in *texts* written anew; every other byte stays.

    *texts* maps a constant's name to Python source of its new value. Of ``per_device(...)`` only
    the part for *device* changes. Raises :class:`KeyError` for a name that is no constant.
    """
    constants = {constant.name: constant for constant in find(source, device)}
    return splice(source, {constants[name]: text for name, text in texts.items()})


def splice(source: str, texts: Mapping[Constant, str]) -> str:
    """Return *source* with constants that :func:`find` found in it written anew, as :func:`replace`."""
    written = source.encode()
    for constant in sorted(texts, key=lambda constant: constant.start, reverse=True):
        written = written[: constant.start] + texts[constant].encode() + written[constant.end :]
    return written.decode()


def broken_assert(source: str, device: str, fixed: str = "") -> str | None:
    """Return the text of the first module-level assert that certainly fails, None if there is none.

    Assignments at module level are followed in order, derived names too. ``from prepare import X``
    takes what *fixed*, the text of ``prepare.py``, gives ``X`` on *device*. A name is unknown once
    anything else may have bound it: a loop, a ``with``, an ``if``, a function that declares it
    ``global``. An assert that divides by zero fails.
    """
    prepare = _Module(fixed, device, {})
    for statement in prepare.body:
        prepare.follow(statement)
    script = _Module(source, device, prepare.names)
    for statement in script.body:
        if isinstance(statement, ast.Assert) and _fails(statement.test, script.names, device):
            return " ".join((ast.get_source_segment(script.source, statement.test) or "").split())
        script.follow(statement)
    return None


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
    except ZeroDivisionError:
        raise
    except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise NotConstant from error


def literal(text: str, device: str) -> Known:
    """Return what the expression *text* gives by itself; raises as :func:`evaluate` does."""
    match _parse(text.strip()).body:
        case [ast.Expr(value=node)]:
            return evaluate(node, {}, device)
    raise NotConstant


_BITS = 1024
_LENGTH = 4096

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_SIGNS: dict[type[ast.unaryop], Callable[[Known], Known]] = {
    ast.Not: operator.not_,
    ast.USub: lambda value: -_number(value),
    ast.UAdd: lambda value: +_number(value),
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (min, max, len, int, float, round, abs)
}


def _evaluate(node: ast.expr, names: Names, device: str) -> Known:  # noqa: PLR0911 - one for each kind
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return value
        case ast.Name(id=name):
            known = names.get(name, NotConstant)
            if not isinstance(known, type):
                return known
        case ast.Tuple(elts=elements):
            return tuple(_scalar(evaluate(element, names, device)) for element in elements)
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _SIGNS:
            return _SIGNS[type(sign)](evaluate(operand, names, device))
        case ast.BinOp(left=left, op=operation, right=right):
            return _calculate(operation, evaluate(left, names, device), evaluate(right, names, device))
        case ast.BoolOp(op=junction, values=operands):
            return _joined(operands, names, device, until=isinstance(junction, ast.Or))
        case ast.Compare():
            return _compare(node, names, device)
        case ast.Call():
            return _call(node, names, device)
    raise NotConstant


def _calculate(operation: ast.operator, left: Known, right: Known) -> Known:
    # Strings and tuples are left out: `"a" * 10**9` and `"%9999999d" % 1` are cheap to write only.
    left, right = _number(left), _number(right)
    if type(operation) not in _ARITHMETIC:
        raise NotConstant
    if isinstance(operation, ast.Pow) and isinstance(left, int) and left.bit_length() * right > 2 * _BITS:
        raise NotConstant
    result: Known = _ARITHMETIC[type(operation)](left, right)
    return result


def _joined(operands: list[ast.expr], names: Names, device: str, *, until: bool) -> Known:
    value: Known = not until
    for operand in operands:
        value = evaluate(operand, names, device)
        if bool(value) is until:
            break
    return value


def _compare(node: ast.Compare, names: Names, device: str) -> bool:
    left = evaluate(node.left, names, device)
    for sign, comparator in zip(node.ops, node.comparators, strict=True):
        right = evaluate(comparator, names, device)
        if type(sign) not in _COMPARISONS:
            raise NotConstant
        if not _COMPARISONS[type(sign)](left, right):
            return False
        left = right
    return True


def _call(node: ast.Call, names: Names, device: str) -> Known:
    if (chosen := _per_device(node, device)) is not None:
        return evaluate(chosen, names, device)
    # A name that the script binds is no longer Python's own function.
    if not isinstance(node.func, ast.Name) or node.func.id in names or node.keywords:
        raise NotConstant
    function = _FUNCTIONS.get(node.func.id)
    arguments = [evaluate(argument, names, device) for argument in node.args]
    # round(1, -10**9) would never end.
    if function is None or (function is round and not all(abs(_number(n)) < _BITS for n in arguments[1:])):
        raise NotConstant
    result: Known = function(*arguments)
    return result


def _per_device(node: ast.expr, device: str) -> ast.expr | None:
    """Return the argument of ``per_device(cuda=..., cpu=...)`` for *device*, None if *node* is none."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "per_device":
        for keyword in node.keywords:
            if keyword.arg == device:
                return keyword.value
    return None


def _scalar(value: Known) -> Value:
    if isinstance(value, tuple):
        raise NotConstant
    return value


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


def _fails(test: ast.expr, names: Names, device: str) -> bool:
    try:
        return not evaluate(test, names, device)
    except ZeroDivisionError:
        return True
    except NotConstant:
        return False


class _Module:
    """What the names of a module stand for, as its statements are followed one after the other."""

    def __init__(self, source: str, device: str, prepare: Names) -> None:
        tree = _parse(source)
        self.source = source.removeprefix("\ufeff")
        self.body = tree.body
        self.names: dict[str, Known | type[NotConstant]] = {}
        self._device = device
        self._prepare = prepare
        self._changeable = _globals(tree)

    def follow(self, statement: ast.stmt) -> None:
        bound = dict.fromkeys(_bindings(statement), NotConstant)
        known = self._known(statement)
        if "*" in bound:
            self.names = dict.fromkeys(_FUNCTIONS, NotConstant)
        self.names.update(bound)
        self.names.update((name, known[name]) for name in known.keys() - self._changeable)

    def _known(self, statement: ast.stmt) -> Names:
        """Return the names that *statement* surely binds, and to what."""
        match statement:
            case ast.ImportFrom(module="prepare", level=0, names=aliases):
                return {
                    alias.asname or alias.name: self._prepare.get(alias.name, NotConstant)
                    for alias in aliases
                }
        name, value = _assignment(statement)
        try:
            return {name: evaluate(value, self.names, self._device)}
        except (NotConstant, ZeroDivisionError):
            return {}


def _assignment(statement: ast.stmt) -> tuple[str, ast.expr]:
    """Return name and value of ``NAME = ...`` or ``NAME: type = ...``; an empty name for all else."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name, value
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            return name, value
    return "", ast.Constant(None)


def _bindings(node: ast.AST) -> Iterator[str]:
    """Yield the names that running *node* may bind, ``*`` for an import of everything, with repeats.

    What functions and classes bind inside is their own; see :func:`_globals` for what is not.
    """
    stack: list[ast.AST] = [node]
    while stack:
        node = stack.pop()
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
                continue
            case ast.Lambda():
                continue
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.alias(name=name, asname=alias):
                yield alias or name.partition(".")[0]
            case ast.ExceptHandler(name=str() as name) | ast.MatchAs(name=str() as name):
                yield name
            case ast.MatchStar(name=str() as name) | ast.MatchMapping(rest=str() as name):
                yield name
        stack.extend(ast.iter_child_nodes(node))


def _globals(tree: ast.Module) -> frozenset[str]:
    """Return the names that some function declares ``global``."""
    return frozenset(name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names)


def _rebound(tree: ast.Module) -> set[str]:
    """Return the names that *tree* may bind more than once."""
    counts = collections.Counter(_bindings(tree))
    return {name for name, count in counts.items() if count > 1} | _globals(tree)


def _elements(name: str, node: ast.expr, device: str) -> Iterator[tuple[str, ast.expr]]:
    if (chosen := _per_device(node, device)) is not None:
        yield from _elements(name, chosen, device)
    elif isinstance(node, ast.Tuple):
        for index, element in enumerate(node.elts):
            yield f"{name}[{index}]", _per_device(element, device) or element
    else:
        yield name, node


def _parse(source: str) -> ast.Module:
    """Return the tree of *source*; an empty one if it cannot be parsed."""
    with warnings.catch_warnings():
        # An odd escape in a proposal is no concern of whoever runs pytest.
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source.removeprefix("\ufeff"))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return ast.Module([], [])


def _line_offsets(written: bytes) -> list[int]:
    """Return where each line begins, in bytes, for the columns of :mod:`ast`."""
    offsets = [0]
    for line in written.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    if written.startswith("\ufeff".encode()):
        offsets[0] = 3  # a byte order mark does not count as a column
    return offsets


def _comments(source: str) -> dict[int, str]:
    """Return the comment of each line that has one, by line number from 1."""
    lines = io.StringIO(source.removeprefix("\ufeff"), newline=None)
    tokens = tokenize.generate_tokens(lines.readline)
    return {
        token.start[0]: token.string.lstrip("#").strip() for token in tokens if token.type == tokenize.COMMENT
    }


def _last_line(node: ast.expr | ast.stmt) -> int:
    return node.end_lineno or node.lineno
