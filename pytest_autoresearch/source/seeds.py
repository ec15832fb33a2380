"""The seeds of a script: which of its expressions only choose the random numbers that it draws."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from pytest_autoresearch.source import arithmetic, constants
from pytest_autoresearch.source.survey import Survey

LIBRARIES = frozenset({"torch", "numpy", "random"})  # whose generators are known
_GLOBAL_SEEDING = frozenset({"manual_seed", "manual_seed_all", "seed"})
_SEEDING = _GLOBAL_SEEDING | {"default_rng", "RandomState", "Random"}
_SEED_KEYWORDS = frozenset({"seed", "random_state"})
# These tell what a generator was seeded with, and a script could take a rate from it.
_TELLING = frozenset({"initial_seed", "getstate", "get_state", "get_rng_state", "get_rng_state_all"})
_TELLING |= {"bit_generator", "seed_seq", "entropy"}
_SEED = re.compile(r"(?:[A-Z0-9_]*_)?SEEDS?(?:_[A-Z0-9_]*)?")
_RANGE = range(2**32)  # numpy refuses other seeds
_ANY_SEED = (0, 2**31 - 1)  # the ends of what an imported seed may be
_MOST = 32  # constants that hold a seed; in a script with more of them none is looked for
_ARITHMETIC = (ast.Constant, ast.Name, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.expr_context)


def find(survey: Survey) -> set[ast.AST]:
    """Return the nodes that choose random numbers and do nothing else, none if a script may ask for a seed.

    They are expressions, and statements of the module that only seed a library's own generator.
    """
    if survey.mentioned & _TELLING:
        return set()
    imported = {name for name in survey.roots if _SEED.fullmatch(name) and name not in survey.bindings}
    arguments = list(_arguments(survey))
    held = _constants(survey, arguments, imported)
    found: set[ast.AST] = {node for node in arguments if _is_seed(node, imported | held.keys())}
    found.update(node for nodes in held.values() for node in nodes)
    return found.union(
        statement
        for statement in survey.tree.body
        if isinstance(statement, ast.Expr) and _only_seeds(statement.value, survey, found)
    )


def _arguments(survey: Survey) -> Iterator[ast.expr]:
    """Yield the arguments from which a generator is seeded."""
    for call in survey.calls:
        if (seed := _argument(call, survey)) is not None:
            yield seed
        elif survey.root(call.func) in LIBRARIES:
            yield from (keyword.value for keyword in call.keywords if keyword.arg in _SEED_KEYWORDS)


def _argument(call: ast.Call, survey: Survey) -> ast.expr | None:
    """Return the only argument of a *call* that makes or seeds a generator, None of another call."""
    match call:
        case ast.Call(func=ast.Attribute(attr=name), args=[seed], keywords=[]):
            known = name == "manual_seed" or survey.root(call.func) in LIBRARIES
        case ast.Call(func=ast.Name(id=name), args=[seed], keywords=[]):
            known = survey.root(call.func) in LIBRARIES and name not in survey.renamed_imports
        case _:
            return None
    # The script may have put something of its own in the place.
    own = name in survey.stored or name in survey.bindings
    return seed if known and name in _SEEDING and not own else None


def _only_seeds(call: ast.expr, survey: Survey, expressions: set[ast.AST]) -> bool:
    """Tell whether *call* does nothing but seed a library's own generator."""
    match call:
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name) as callee):
            ours = name in _GLOBAL_SEEDING and survey.root(callee) in LIBRARIES
            return ours and _argument(call, survey) in expressions
    return False


def _constants(survey: Survey, arguments: list[ast.expr], imported: set[str]) -> dict[str, list[ast.expr]]:
    """Return the values of the module's constants that hold a seed and go nowhere but into seeds."""
    found: dict[str, list[ast.expr]] = {}
    for statement in survey.tree.body:
        name, value = constants.assignment(statement)
        if _SEED.fullmatch(name):
            found.setdefault(name, []).append(value)
    noticed = survey.texts.union(survey.attributes, survey.keywords, survey.roots)
    misused = {name for name in found if name in noticed or survey.bindings[name] != len(found[name])}
    if len(found.keys() - misused) > _MOST:
        return {}
    while True:
        found = {name: nodes for name, nodes in found.items() if name not in misused}
        values = [node for nodes in found.values() for node in nodes]
        allowed = {leaf for node in (*arguments, *values) if _is_arithmetic(node) for leaf in ast.walk(node)}
        misused = {node.id for node in survey.loads if node not in allowed}
        seeds = imported | found.keys()
        misused |= {name for name, nodes in found.items() if not all(_is_seed(node, seeds) for node in nodes)}
        if misused.isdisjoint(found):
            return found


def _is_arithmetic(node: ast.expr) -> bool:
    return all(isinstance(inner, _ARITHMETIC) for inner in ast.walk(node))


def _is_seed(node: ast.expr, seeds: AbstractSet[str]) -> bool:
    """Tell whether *node* is a valid seed, made of whole numbers and of *seeds* alone."""
    if not _is_arithmetic(node):
        return False
    names = {leaf.id for leaf in ast.walk(node) if isinstance(leaf, ast.Name)}
    literals = [leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)]
    if names - seeds or any(type(value) is not int for value in literals):
        return False
    try:
        values = [arithmetic.evaluate(node, dict.fromkeys(names, given), "cpu") for given in _ANY_SEED]
    except (arithmetic.NotConstant, ZeroDivisionError):
        return False
    return all(type(value) is int and value in _RANGE for value in values)
