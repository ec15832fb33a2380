"""The canonical form of a script: what it does, apart from how it is written and which seeds it draws.

Two scripts of one form do the same. Two of different forms may do the same as well: wherever a script could
notice a difference, the form keeps it.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import re
from typing import Final, Literal

from pytest_autoresearch.source import arithmetic
from pytest_autoresearch.source.parse import bindings, parsed
from pytest_autoresearch.source.seeds import LIBRARIES, Seeds
from pytest_autoresearch.source.size import lexemes
from pytest_autoresearch.source.survey import Survey

Aspect = Literal["docstrings", "names", "seeds"]
"""What may differ between two scripts of one form, beside layout and comments."""

ASPECTS: Final[tuple[Aspect, ...]] = ("docstrings", "names", "seeds")
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_ARITHMETIC = (ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop)
# The fields of nodes, other than names and imports, that hold a name of a binding.
_BINDING: dict[type[ast.AST], str] = {
    **dict.fromkeys((ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler), "name"),
    **dict.fromkeys((ast.MatchAs, ast.MatchStar), "name"),
    **dict.fromkeys((ast.Global, ast.Nonlocal), "names"),
    ast.arg: "arg",
    ast.MatchMapping: "rest",
}
LARGEST = 12_000  # lexemes; a longer script is its own form, because comparing it would take too long


def digest(source: str) -> str:
    """Return the SHA-256 of the canonical form of a script, in hex.

    The form forgets layout, comments, docstrings, the spelling of numbers, consistent renaming of what the
    script itself binds, and seeds: integers that go to nothing but a generator of torch, numpy or random.
    Names in tracebacks and of printed classes do not count, and that two generators share a seed is a choice
    of seeds. A script that cannot be parsed, that may read its own text, or that is larger than
    :data:`LARGEST` is its own form. Never raises.
    """
    return _digest(source, _surveyed(source), frozenset())


def equivalent_up_to(old: str, new: str) -> str | None:
    """Return in words all that differs between two scripts of one form: ``only names and seeds``.

    None if they differ in more: then *new* is an experiment.
    """
    if old == new:
        return "nothing"
    surveys = _surveyed(old), _surveyed(new)

    def agree(*kept: Aspect) -> bool:
        return len({_digest(*pair, frozenset(kept)) for pair in zip((old, new), surveys, strict=True)}) == 1

    if not agree():
        return None
    differing: list[str] = [aspect for aspect in ASPECTS if not agree(aspect)]
    *most, last = differing or ["layout and comments"]
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


def _surveyed(source: str) -> Survey | None:
    """Return the survey of a script, None if the script has to be its own form."""
    tree = parsed(source) if lexemes(source) <= LARGEST and not _is_encoded(source) else None
    survey = None if tree is None else Survey(tree, documented="__doc__" in source)
    return None if survey is None or survey.is_too_deep or _reads_itself(survey) else survey


def _digest(source: str, survey: Survey | None, kept: frozenset[Aspect]) -> str:
    """Return the digest of the form that remembers the aspects *kept* as well."""
    form = f"text {source}" if survey is None else f"tree {_Form(survey, kept).of(survey.tree, {})}"
    return hashlib.sha256(form.encode(errors="surrogatepass")).hexdigest()


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
            return survey.root(module) in LIBRARIES
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


class _Form:
    """The syntax tree as text, without what does not count; equal texts are equal trees.

    A name that the script binds, and whose spelling nothing can notice, is written as a number in order of
    appearance. So scripts share a form if one is the other with names exchanged one for one, everywhere.
    The variables of a comprehension are told apart from names outside of it.
    """

    def __init__(self, survey: Survey, kept: frozenset[Aspect]) -> None:
        seeds = Seeds() if "seeds" in kept else Seeds.of(survey)
        self._seeds = seeds.expressions
        self._dropped = set(seeds.statements.union(() if "docstrings" in kept else survey.comments))
        self._free = frozenset[str]() if "names" in kept else _free_names(survey)
        self._names: dict[str, str] = {}
        self._variables = 0  # of comprehensions so far

    def of(self, node: ast.AST, names: dict[str, str]) -> str:
        """Return the text of *node*, where *names* stand for names."""
        if node in self._seeds:
            return "<seed>"
        match node:
            case ast.Name(id=name):
                return self._name(name, names)
            case ast.Constant(value=value):
                return _literal(value)
            case ast.BinOp() | ast.UnaryOp() if (number := _folded(node)) is not None:
                return _literal(number)
        return self._branch(node, names)

    def _branch(self, node: ast.AST, names: dict[str, str]) -> str:
        parts = [type(node).__name__]
        if isinstance(node, _COMPREHENSIONS):
            iterated = node.generators[0].iter  # in the scope around it
            parts.append(self.of(iterated, names))
            self._dropped.add(iterated)
            targets = dict.fromkeys(name for part in node.generators for name in bindings(part.target))
            names = names | {name: self._number() for name in targets if name in self._free}
        for field in node._fields:
            value = getattr(node, field, None)
            binds = field == _BINDING.get(type(node))
            parts.append("[")
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.AST):
                    # The context of an expression follows from where it stands.
                    if part not in self._dropped and not isinstance(part, ast.expr_context):
                        parts.append(self.of(part, names))
                else:  # None, a number, or an attribute, keyword or module
                    parts.append(self._name(part, names) if binds and part else f"={part!r}")
            parts.append("]")
        return f"({' '.join(parts)})"

    def _name(self, name: str, names: dict[str, str]) -> str:
        if name in self._free and name not in names:
            return self._names.setdefault(name, f"#{len(self._names)}")
        return names.get(name, name)

    def _number(self) -> str:
        self._variables += 1
        return f"#for {self._variables}"


def _folded(node: ast.expr) -> int | float | None:
    """Return the value of arithmetic on number literals alone, None of anything else."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and type(inner.value) in {int, float}:
            continue
        if isinstance(inner, ast.Not) or not isinstance(inner, _ARITHMETIC):
            return None
    try:
        value = arithmetic.evaluate(node, {}, "cpu")
    except (arithmetic.NotConstant, ZeroDivisionError):
        return None
    return value if isinstance(value, int | float) else None


def _literal(value: object) -> str:
    # Python refuses to write a number of thousands of digits in decimal.
    text = hex(value) if type(value) is int else ascii(value)
    return f"{type(value).__name__}:{text}"
