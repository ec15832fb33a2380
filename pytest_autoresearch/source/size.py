"""The size of a script, by its syntax tree."""

from __future__ import annotations

import ast
import re

from pytest_autoresearch.source.parse import is_comment, parsed

_LEXEME = re.compile(r"\w+|[^\w\s]")
# Nodes that are not written, or only as the name that is counted with them.
_SILENT = (
    *(ast.Module, ast.Expr, ast.expr_context, ast.arguments, ast.Name, ast.Attribute, ast.arg, ast.alias),
    *(ast.keyword, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare),
)


def lexemes(source: str) -> int:
    """Return how many words and signs *source* has, be it Python or not."""
    return len(_LEXEME.findall(source))


def code_size(source: str) -> int:
    """Return how many names, keywords, operators, literals, calls and displays a script has.

    They are counted in the syntax tree, so that formatting and Python's version do not matter: brackets,
    commas, quotes, comments and docstrings count nothing. A string or number counts 1, and 1 more for every
    8 characters or bytes: moving code into a string does not make it shorter. Of a script that cannot be
    parsed the lexemes are counted.
    """
    tree = parsed(source)
    if tree is None:
        return lexemes(source)
    nodes = list(ast.walk(tree))
    comments = set()
    if "__doc__" not in source:
        comments = {node.value for node in nodes if isinstance(node, ast.Expr) and is_comment(node)}
    return sum(_size(node) for node in nodes if node not in comments)


def _size(node: ast.AST) -> int:
    """Return what *node* counts without its children."""
    match node:
        case ast.Constant(value=str() | bytes() as held):
            return 1 + len(held) // 8
        case ast.Constant(value=int() as number):
            return 1 + number.bit_length() // 64
        case ast.Constant():
            return 1
    count = 0 if isinstance(node, _SILENT) else 1
    for _, value in ast.iter_fields(node):
        parts = value if isinstance(value, list) else [value]
        count += sum(part.count(".") + 1 for part in parts if isinstance(part, str))
    return count
