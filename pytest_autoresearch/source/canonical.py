"""The canonical form of a script: what it does, apart from how it is written and which seeds it draws.

Two scripts of one form do the same. Two of different forms may do the same as well: wherever a script could
notice a difference, the form keeps it.
"""

from __future__ import annotations

import ast
import builtins
import collections
import contextlib
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from pytest_autoresearch.source import arithmetic, seeds
from pytest_autoresearch.source.parse import NAMING, bindings, parsed
from pytest_autoresearch.source.size import lexemes
from pytest_autoresearch.source.survey import Survey

LARGEST = 12_000  # lexemes; a longer script is its own form, because comparing it would take too long


def digest(source: str) -> str:
    """Return the SHA-256 of the canonical form of a script, in hex.

    The form forgets layout, comments, docstrings, the spelling of numbers, consistent renaming of what the
    script itself binds, and seeds: integers that go to nothing but a generator of torch, numpy or random.
    Names in tracebacks and of printed classes do not count, and that two generators share a seed is a choice
    of seeds. A script that cannot be parsed, that may read its own text, or that is larger than
    :data:`LARGEST` is its own form. Never raises.
    """
    form, _ = _form(source)
    return hashlib.sha256(form.encode(errors="surrogatepass")).hexdigest()


def equivalent_up_to(old: str, new: str) -> str | None:
    """Return in words all that differs between two scripts of one form: ``only names and seeds``.

    None if they differ in more: then *new* is an experiment.
    """
    if old == new:
        return "nothing"
    (form, before), (other, after) = _form(old), _form(new)
    if form != other:
        return None
    *most, last = [what for what in before if before[what] != after[what]] or ["layout and comments"]
    return f"only {', '.join(most)} and {last}" if most else f"only {last}"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ENCODING = re.compile(r"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")

# A script that mentions one of these may read its own text, or count its lines.
_TEXT = _words(
    "__file__ argv orig_argv __loader__ __spec__ __code__ __traceback__ _getframe currentframe f_lineno "
    "tb_lineno linecache tokenize inspect traceback runpy jit triton numba"
)
# These run code that is made at run time, which may do anything: functions of Python, packages.
_RUNNING = _words("eval exec compile __import__")
_LOADING = _words("builtins code ctypes importlib runpy")
# These may look names up at run time, or hand them on: functions of Python, attributes, packages.
_LOOKING = _words("globals locals vars dir breakpoint help")
_SHOWING = _words(
    "__builtins__ __globals__ __closure__ __dict__ __annotations__ __defaults__ __kwdefaults__ __getattr__ "
    "__subclasses__ __reduce__ get_type_hints get_objects get_referrers get_referents f_locals f_globals "
    "f_back tb_frame attrgetter methodcaller"
)
_PACKAGES = _words(
    "__main__ argparse ast click cloudpickle dill dis doctest fire hydra marshal numexpr pandas pdb pickle "
    "pydoc symtable"
)
_BY_NAME = _words("getattr setattr delattr hasattr")
# These may show the name of a function or a class: attributes, functions of Python.
_SHOWING_TITLES = _words("__name__ __qualname__ __module__ __class__ _get_name format")
_PRINTING = _words("repr ascii str format type")
_BUILTINS = frozenset(dir(builtins))


def _form(source: str) -> tuple[str, Mapping[str, object]]:
    """Return the canonical form of a script, and what it has forgotten."""
    tree = parsed(source) if lexemes(source) <= LARGEST and not _is_encoded(source) else None
    if tree is not None:
        survey = Survey(tree, documented="__doc__" in source)
        if not survey.is_too_deep and not _reads_itself(survey):
            rewriter = _Rewriter(survey)
            with contextlib.suppress(ValueError):  # Python writes no number of thousands of digits
                return f"tree {_dump(rewriter.visit(tree))}", rewriter.forgotten()
    return f"text {source}", {}


def _dump(tree: ast.AST) -> str:
    """Return the dump of a tree without empty lists: which there are depends on the version of Python."""
    for node in ast.walk(tree):
        for name, value in list(ast.iter_fields(node)):
            if value == []:
                delattr(node, name)
    return ast.dump(tree)


def _is_encoded(source: str) -> bool:
    """Tell whether a comment makes Python read the file as something else than UTF-8."""
    matches = filter(None, map(_ENCODING.match, re.split(r"\r\n|\r|\n", source, maxsplit=2)[:2]))
    return any(match[1].lower() not in {"utf-8", "utf8"} for match in matches)


def _reads_itself(survey: Survey) -> bool:
    """Tell whether a script may see more of itself than what its statements do."""
    if survey.mentions_a_script or not _TEXT.isdisjoint(survey.mentioned | survey.texts):
        return True
    return bool(survey.loaded & _RUNNING or survey.packages & _LOADING)


def _looks_names_up(survey: Survey) -> bool:
    """Tell whether a script may find by its name what it binds, so that no name can be exchanged."""
    if survey.is_modern or "*" in survey.roots or survey.loaded & _LOOKING or survey.packages & _PACKAGES:
        return True
    if survey.mentioned & _SHOWING or {"sys", "modules"} <= survey.mentioned:
        return True
    # Python puts the class's name before these.
    names = survey.loaded | survey.attributes | survey.keywords | survey.bindings.keys()
    if any(name.startswith("__") and not name.endswith("__") for name in names):
        return True
    return bool(survey.passed & _BY_NAME) or any(
        isinstance(call.func, ast.Name) and call.func.id in _BY_NAME and not _is_plain(call, survey)
        for call in survey.calls
    )


def _is_plain(call: ast.Call, survey: Survey) -> bool:
    """Tell whether ``getattr`` or the like is given a literal name, or looks into a library."""
    match call.args:
        case [_, ast.Constant(value=str()), *_]:
            return True
        case [ast.Name() as module, *_]:
            return survey.root(module) in seeds.LIBRARIES
    return False


def _free_names(survey: Survey) -> frozenset[str]:
    """Return the names that the script binds and whose spelling nothing can notice."""
    if _looks_names_up(survey):
        return frozenset()
    shown = survey.attributes & _SHOWING_TITLES or survey.loaded & _PRINTING
    fixed = _BUILTINS.union(
        *(survey.roots, survey.annotated, survey.texts, survey.attributes, survey.members),
        *(survey.public_parameters, survey.titles if shown else survey.fixed_titles),
    )
    return frozenset(name for name in survey.bindings if name not in fixed and not name.startswith("__"))


class _Rewriter(ast.NodeTransformer):
    """Brings a syntax tree into its canonical form, and notes what is forgotten.

    A name that the script binds, and whose spelling nothing can notice, becomes a number in order of
    appearance. So scripts share a form if one is the other with names exchanged one for one, everywhere.
    The variables of a comprehension are told apart from names outside of it.
    """

    def __init__(self, survey: Survey) -> None:
        self._comments, self._seeds = survey.comments, seeds.find(survey)
        self._free = _free_names(survey)
        self._numbers = collections.ChainMap[str, str]()  # of names; the innermost comprehension comes first
        self._statements = 0  # so far
        self._docstrings: list[object] = []
        self._names: list[str] = []
        self._dropped: list[tuple[int, ast.AST]] = []  # seeds, each with the statements before it

    def forgotten(self) -> Mapping[str, object]:
        """Return what may differ between two scripts of one form, beside layout and comments."""
        names, dropped, self._seeds = [*self._names], self._dropped, set[ast.AST]()
        drawn = [(at, _dump(self.visit(node))) for at, node in dropped]
        return {"docstrings": self._docstrings, "names": names, "seeds": drawn}

    def visit(self, node: ast.AST) -> Any:
        """Return the canonical form of *node*, None to drop it."""
        if node in self._comments:
            self._docstrings.append((self._statements, _dump(node)))
            return None
        if node in self._seeds:
            self._dropped.append((self._statements, node))
            return ast.Name("<seed>") if isinstance(node, ast.expr) else None
        self._statements += isinstance(node, ast.stmt)
        if field := NAMING.get(type(node)):
            held = getattr(node, field)
            names = [self._name(name) for name in held] if isinstance(held, list) else self._name(held)
            setattr(node, field, names)
        match node:
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                return self._comprehension(node)
            case ast.BinOp() | ast.UnaryOp():
                return _folded(self.generic_visit(node))
            case ast.Constant():
                return ast.Constant(node.value)  # u"a" is "a"
        return self.generic_visit(node)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> ast.AST:
        first = node.generators[0]
        # What it goes over is in the scope around it.
        iterated, first.iter = self.visit(first.iter), ast.Constant(None)
        targets = dict.fromkeys(name for part in node.generators for name in bindings(part.target))
        own = {name: self._number(name) for name in targets if name in self._free}
        self._numbers = self._numbers.new_child(own)
        self.generic_visit(node)
        self._numbers = self._numbers.parents
        first.iter = iterated
        return node

    def _name(self, name: str | None) -> str | None:
        if name in self._free and name not in self._numbers:
            self._numbers.maps[-1][name] = self._number(name)
        return self._numbers.get(name, name) if name else None

    def _number(self, name: str) -> str:
        self._names.append(name)
        return f"#{len(self._names)}"


def _folded(node: ast.AST) -> ast.AST:
    """Return arithmetic on number literals as its value, and anything else as it is."""
    match node:
        case ast.BinOp(left=ast.Constant(value=left), right=ast.Constant(value=right)):
            operands = {type(left), type(right)}
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=operand)):
            operands = {type(operand)}
        case _:
            return node
    if operands <= {int, float}:
        with contextlib.suppress(arithmetic.NotConstant, ZeroDivisionError):
            value: Any = arithmetic.evaluate(node, {}, "cpu")
            return ast.Constant(value)
    return node
