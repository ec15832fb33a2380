"""Python source as a syntax tree, without warnings and without running it."""

from __future__ import annotations

import ast
import contextlib
import warnings
from collections.abc import Iterator


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
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
    return False


def bindings(node: ast.AST) -> Iterator[str]:
    """Yield the names that running *node* may bind, with repeats; functions and classes keep their own."""
    stack = [node]
    while stack:
        node = stack.pop()
        yield from bound_names(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            stack.extend(ast.iter_child_nodes(node))


def bound_names(node: ast.AST) -> list[str]:
    """Return the names that *node* itself binds or deletes; ``*`` for an import of everything."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.alias(name=name, asname=alias):
            return [alias or name.partition(".")[0]]
        case ast.ExceptHandler(name=str() as name) | ast.MatchAs(name=str() as name):
            return [name]
        case ast.MatchStar(name=str() as name) | ast.MatchMapping(rest=str() as name):
            return [name]
    return []
