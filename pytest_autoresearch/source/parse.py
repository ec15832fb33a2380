"""Python source as a syntax tree, without warnings and without running it."""

from __future__ import annotations

import ast
import contextlib
import warnings
from collections.abc import Iterator

NAMING: dict[type[ast.AST], str] = {
    **dict.fromkeys((ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler), "name"),
    **dict.fromkeys((ast.MatchAs, ast.MatchStar), "name"),
    **dict.fromkeys((ast.Global, ast.Nonlocal), "names"),
    ast.Name: "id",
    ast.arg: "arg",
    ast.MatchMapping: "rest",
}
"""The field of a node, other than of imports, that holds a name that the script may bind."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress Python's warnings about a script: whoever runs pytest did not write it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def parsed(source: str) -> ast.Module | None:
    """Return the syntax tree of *source*, None if it cannot be parsed."""
    try:
        with quiet():
            return ast.parse(source.removeprefix("\ufeff"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def is_comment(node: ast.AST) -> bool:
    """Tell whether *node* is a statement that is only a string: a docstring, or a comment written as one."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def bindings(node: ast.AST) -> Iterator[str]:
    """Yield the names that running *node* may bind, with repeats; functions and classes keep their own."""
    stack = [node]
    while stack:
        node = stack.pop()
        if name := bound_name(node):
            yield name
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            stack.extend(ast.iter_child_nodes(node))


def bound_name(node: ast.AST) -> str:
    """Return the name that *node* itself binds or deletes, empty if none; ``*`` imports everything."""
    match node:
        case ast.alias(name=name, asname=alias):
            return alias or name.partition(".")[0]
        case ast.Name(ctx=ast.Load()) | ast.Global() | ast.Nonlocal():
            return ""
    return getattr(node, NAMING.get(type(node), ""), None) or ""
