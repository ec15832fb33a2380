"""The UPPER_CASE constants of a script: found and replaced without running it."""

from __future__ import annotations

import ast
import collections
import contextlib
import dataclasses
import io
import itertools
import re
import tokenize
from typing import TYPE_CHECKING

from pytest_autoresearch.records.trial import Value
from pytest_autoresearch.source.arithmetic import FUNCTIONS, NotConstant, evaluate, per_device
from pytest_autoresearch.source.parse import bindings, parsed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_autoresearch.source.arithmetic import Known, Names


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
    tree = parsed(source)
    if tree is None or not tree.body:
        return []
    written = source.encode(errors="replace")
    offsets = _line_offsets(written)
    comments = _comments(source)
    rebound = {name for name, count in collections.Counter(bindings(tree)).items() if count > 1}
    rebound |= _globals(tree)
    constants = []
    for statement in tree.body:
        name, assigned = assignment(statement)
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
    prepare: dict[str, Known | type[NotConstant]] = {}
    names: dict[str, Known | type[NotConstant]] = {}
    for _ in _followed(fixed, device, {}, prepare):
        pass
    for statement in _followed(source, device, prepare, names):
        if isinstance(statement, ast.Assert) and _fails(statement.test, names, device):
            text = ast.get_source_segment(source.removeprefix("\ufeff"), statement.test) or ""
            return " ".join(text.split())
    return None


def _fails(test: ast.expr, names: Names, device: str) -> bool:
    try:
        return not evaluate(test, names, device)
    except ZeroDivisionError:
        return True
    except NotConstant:
        return False


def _followed(
    source: str, device: str, prepare: Names, names: dict[str, Known | type[NotConstant]]
) -> Iterator[ast.stmt]:
    """Yield each statement of a module; *names* is what names stand for before it."""
    tree = parsed(source) or ast.Module([], [])
    changeable = _globals(tree)
    for statement in tree.body:
        yield statement
        bound = dict.fromkeys(bindings(statement), NotConstant)
        known: Names = {}
        match statement:
            case ast.ImportFrom(module="prepare", level=0, names=aliases):
                known = {each.asname or each.name: prepare.get(each.name, NotConstant) for each in aliases}
            case _:
                name, value = assignment(statement)
                with contextlib.suppress(NotConstant, ZeroDivisionError):
                    known = {name: evaluate(value, names, device)}
        if "*" in bound:
            names.clear()
            names |= dict.fromkeys(FUNCTIONS, NotConstant)
        names |= bound
        names |= {name: known[name] for name in known.keys() - changeable}


def assignment(statement: ast.stmt) -> tuple[str, ast.expr]:
    """Return name and value of ``NAME = ...`` or ``NAME: type = ...``; an empty name for all else."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name, value
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            return name, value
    return "", ast.Constant(None)


def _globals(tree: ast.Module) -> frozenset[str]:
    """Return the names that some function declares ``global``."""
    return frozenset(name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names)


def _elements(name: str, node: ast.expr, device: str) -> Iterator[tuple[str, ast.expr]]:
    if (chosen := per_device(node, device)) is not None:
        yield from _elements(name, chosen, device)
    elif isinstance(node, ast.Tuple):
        for index, element in enumerate(node.elts):
            yield f"{name}[{index}]", per_device(element, device) or element
    else:
        yield name, node


def _line_offsets(written: bytes) -> list[int]:
    """Return where each line begins, in bytes, for the columns of :mod:`ast`."""
    offsets = list(itertools.accumulate(map(len, written.splitlines(keepends=True)), initial=0))
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
