"""What a script does, apart from how it is written and from the seeds it draws with."""

from __future__ import annotations

import ast
import builtins
import collections
import dataclasses
import hashlib
import re
import warnings
from typing import TYPE_CHECKING, Final, Literal

from pytest_autoresearch.source import constants

if TYPE_CHECKING:
    from collections.abc import Iterator

Aspect = Literal["docstrings", "names", "seeds"]
"""What may differ between two scripts that do the same, beside layout and comments."""

ASPECTS: Final[tuple[Aspect, ...]] = ("docstrings", "names", "seeds")
LARGEST = 12_000  # lexemes of a script that is looked into; more would take too long


def digest(source: str) -> str:
    """Return a digest that two scripts share only if they do the same but for their seeds.

    It forgets layout, comments, docstrings, how numbers are spelt, consistent renaming of what the
    script itself binds, and seeds: integers that go to nothing but a generator of torch, numpy or
    random. Whatever a script could notice stays as it is written, so two scripts may do the same and
    still differ here. Told apart is what is trained and scored, not what a traceback or the printed
    name of a class looks like; and that two generators share a seed counts as a choice of seeds.

    A script that cannot be parsed, that may read its own text, or that has more than
    :data:`LARGEST` lexemes is its own essence. Nothing is raised.
    """
    return _digest(source, _small(source), frozenset())


def equivalent_up_to(old: str, new: str) -> str | None:
    """Return in a phrase what alone differs between two scripts of one essence, ``only names and seeds``.

    None if they differ in more: then *new* is an experiment.
    """
    if old == new:
        return "nothing"
    trees = _small(old), _small(new)

    def agree(*kept: Aspect) -> bool:
        told = [_digest(text, tree, frozenset(kept)) for text, tree in zip((old, new), trees, strict=True)]
        return told[0] == told[1]

    if not agree():
        return None
    differing: list[str] = [aspect for aspect in ASPECTS if not agree(aspect)]
    *most, last = differing or ["layout and comments"]
    return f"only {', '.join(most)} and {last}" if most else f"only {last}"


def code_size(source: str) -> int:
    """Return how much Python a script is: its names, keywords, operators, literals, calls and displays.

    They are counted in the syntax tree, so that no formatter and no version of Python's tokenizer
    changes the number: brackets, commas, colons, quotes, comments and docstrings count nothing. A text
    or a number counts one and another for each 8 characters or bytes that it holds: code in a string is
    no shorter than code. What cannot be parsed counts its lexemes instead. Nothing is raised.
    """
    tree = _parsed(source)
    if tree is None:
        return len(_LEXEME.findall(source))
    documented = "__doc__" in source
    count = 0
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if not documented and _is_comment(node):
            continue
        count += _written(node)
        stack.extend(ast.iter_child_nodes(node))
    return count


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LEXEME = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"\w+")
_SEED = re.compile(r"(?:[A-Z0-9_]*_)?SEEDS?(?:_[A-Z0-9_]*)?")
_ENCODING = re.compile(r"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")

# A script that mentions one of these may read its own text, or count its lines.
_TEXT = _words(
    "__file__ argv orig_argv __loader__ __spec__ __code__ __traceback__ _getframe currentframe f_lineno "
    "tb_lineno linecache tokenize inspect traceback runpy jit triton numba"
)
# What runs code that is put together first may do anything: functions of Python, packages.
_RUNNING = _words("eval exec compile __import__")
_LOADING = _words("builtins code ctypes importlib runpy")
# One of these may look names up at run time, or hand them on: functions of Python, attributes, packages.
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
_BY_NAME = frozenset({"getattr", "setattr", "delattr", "hasattr"})
# One of these may show what a function or a class is called.
_TELLING_TITLES = _words("__name__ __qualname__ __module__ __class__ _get_name format")
_TITLED = _words("repr ascii str format type")
_BUILTINS = frozenset(dir(builtins))

_LIBRARIES = frozenset({"torch", "numpy", "random"})  # whose generators are known
_GLOBAL_SEEDING = frozenset({"manual_seed", "manual_seed_all", "seed"})
_SEEDING = _GLOBAL_SEEDING | {"default_rng", "RandomState", "Random"}
_SEED_KEYWORDS = frozenset({"seed", "random_state"})
# A generator tells by one of these what it was seeded with, and a script could take a rate from it.
_TELLING = _words(
    "initial_seed getstate get_state get_rng_state get_rng_state_all bit_generator seed_seq entropy"
)
_SEEDS = range(2**32)  # numpy refuses others
_HELD = 32  # constants that hold a seed; a script with more of them is not looked into for any
_ROUNDS = 8  # of looking for seeds that are made of seeds
_ANY_SEED = (0, 2**31 - 1)  # what a seed that the script does not set itself may be

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_SCOPED = (*_FUNCTIONS, *_COMPREHENSIONS, ast.ClassDef, ast.Lambda)
# The fields of nodes, other than names, that bind one.
_BINDING: dict[type[ast.AST], str] = {
    ast.FunctionDef: "name",
    ast.AsyncFunctionDef: "name",
    ast.ClassDef: "name",
    ast.arg: "arg",
    ast.ExceptHandler: "name",
    ast.MatchAs: "name",
    ast.MatchStar: "name",
    ast.MatchMapping: "rest",
    ast.Global: "names",
    ast.Nonlocal: "names",
}
# Nodes that are not written themselves, or only as the name that is counted with them.
_SILENT = (
    *(ast.Module, ast.Expr, ast.expr_context, ast.arguments, ast.Name, ast.Attribute, ast.arg, ast.alias),
    *(ast.keyword, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare),
)


def _small(source: str) -> ast.Module | None:
    """Return the tree of *source*; None if it cannot be had, or not soon."""
    return _parsed(source) if len(_LEXEME.findall(source)) <= LARGEST else None


def _parsed(source: str) -> ast.Module | None:
    with warnings.catch_warnings():
        # An odd escape in a proposal is no concern of whoever runs pytest.
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source.removeprefix("\ufeff"))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _digest(source: str, tree: ast.Module | None, kept: frozenset[Aspect]) -> str:
    """Return the digest of what is left of *source*, of which *kept* is not forgotten."""
    left = None if tree is None or _is_encoded(source) else _canonical(source, tree, kept)
    text = f"text {source}" if left is None else f"tree {left}"
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _is_encoded(source: str) -> bool:
    """Tell whether a comment has Python read the file as something else than UTF-8."""
    matches = filter(None, map(_ENCODING.match, re.split(r"\r\n|\r|\n", source, maxsplit=2)[:2]))
    return any(match[1].lower() not in {"utf-8", "utf8"} for match in matches)


def _canonical(source: str, tree: ast.Module, kept: frozenset[Aspect]) -> str | None:
    survey = _Survey(tree, documented="__doc__" in source)
    if survey.reads_itself():
        return None
    names = _Names(survey, fixed="names" in kept)
    neutral = _Seeds() if "seeds" in kept else _Seeds.of(survey)
    dropped = neutral.seeding.union(() if "docstrings" in kept else survey.comments)
    return _Writer(survey, names, neutral.expressions, dropped).write(tree)


def _is_comment(statement: ast.AST) -> bool:
    """Tell whether *statement* is a text that is only looked at: a docstring, or a string elsewhere."""
    match statement:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
    return False


def _written(node: ast.AST) -> int:
    """Return what *node* counts in :func:`tokens`, without its children."""
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


@dataclasses.dataclass(slots=True, eq=False)
class _Scope:
    """The names that one function, class, comprehension or module binds."""

    node: ast.AST
    outer: _Scope | None
    bound: set[str] = dataclasses.field(default_factory=set)
    not_own: dict[str, Literal["global", "nonlocal"]] = dataclasses.field(default_factory=dict)
    parameters: set[str] = dataclasses.field(default_factory=set)

    def binder(self, name: str) -> _Scope | None:
        """Return the scope whose *name* is meant here, None if the script binds none."""
        scope: _Scope = self
        while scope.outer is not None:
            if scope.not_own.get(name) == "global" and (scope is self or not scope.is_class):
                break
            if name in scope.bound and name not in scope.not_own and (scope is self or not scope.is_class):
                return scope
            scope = scope.outer
        while scope.outer is not None:
            scope = scope.outer
        return scope if name in scope.bound else None

    @property
    def is_class(self) -> bool:
        return isinstance(self.node, ast.ClassDef)


class _Survey:
    """Who binds which name in a script, and what else it mentions."""

    def __init__(self, tree: ast.Module, *, documented: bool) -> None:
        self.comments: set[ast.AST] = set()
        """Texts that are only looked at; none where the script asks for its documentation."""
        self._documented = documented
        self.module = _Scope(tree, None)
        self.opened: dict[ast.AST, _Scope] = {}
        """The scope that a node opens."""
        self.placed: dict[ast.AST, _Scope] = {}
        """The scope of a node that is not that of its neighbours, such as a default value's."""
        self.calls: list[ast.Call] = []
        self.loads: list[ast.Name] = []
        self.statements = tree.body
        self.roots: dict[str, str] = {}
        """The package that an imported name comes from."""
        self.renamed_imports: set[str] = set()
        self.bindings: collections.Counter[str] = collections.Counter()
        """How often anything but an import may bind a name."""
        self.arithmetic: list[ast.BinOp | ast.UnaryOp] = []
        """Every operation, before those that it is made of."""
        self.stored: set[str] = set()
        """Attributes that are set."""
        self.attributes: set[str] = set()
        self.keywords: set[str] = set()
        self.texts: set[str] = set()
        """Words in strings."""
        self.annotated: set[str] = set()
        """Names that annotations mention."""
        self.titles: set[str] = set()
        """Names of functions and classes."""
        self.fixed_titles: set[str] = set()
        """Those that are decorated, or made with keywords: the name may be asked for."""
        self.unpacks = self.modern = self.mentions_a_script = False
        self._look(tree)
        self.names = {node.id for node in self.loads}
        self.packages = set(self.roots.values())
        self.mentioned = self.names | self.attributes | self.roots.keys() | self.packages
        self.scopes = [self.module, *self.opened.values()]
        callees = {call.func for call in self.calls}
        self.passed = {node.id for node in self.loads if node not in callees}
        """Names that are used otherwise than by calling them."""

    def reads_itself(self) -> bool:
        """Tell whether the script may see more of itself than what its statements do."""
        if self.mentions_a_script or not _TEXT.isdisjoint(self.mentioned | self.texts):
            return True
        return bool(self.names & _RUNNING or self.packages & _LOADING)

    def root(self, node: ast.expr) -> str:
        """Return the package that ``numpy.random.seed`` or the like is taken from, empty if none is known."""
        while isinstance(node, ast.Attribute):
            node = node.value
        if isinstance(node, ast.Name) and node.id not in self.bindings:
            return self.roots.get(node.id, "")
        return ""

    def _look(self, tree: ast.Module) -> None:
        stack: list[tuple[ast.AST, _Scope]] = [(tree, self.module)]
        while stack:
            node, scope = stack.pop()
            if not self._documented and _is_comment(node):
                self.comments.add(node)
                continue
            inner = scope
            if isinstance(node, _SCOPED):
                inner = self.opened[node] = _Scope(node, scope)
                for outsider in _outsiders(node):
                    self.placed[outsider] = scope
            self._note(node, scope)
            stack.extend(
                (child, self.placed.get(child, inner))
                for child in ast.iter_child_nodes(node)
                if not isinstance(child, ast.expr_context)
            )

    def _note(self, node: ast.AST, scope: _Scope) -> None:  # noqa: C901, PLR0912 - one for each kind
        match node:
            case ast.Name(ctx=ast.Load()):
                self.loads.append(node)
            case ast.Name(id=name):
                self._bind(name, scope)
            case ast.Attribute(attr=name, ctx=context):
                self.attributes.add(name)
                if not isinstance(context, ast.Load):
                    self.stored.add(name)
            case ast.BinOp() | ast.UnaryOp():
                self.arithmetic.append(node)
            case ast.Constant(value=str() as text):
                self._read(text)
            case ast.Constant(value=bytes() as held):
                self._read(held.decode("latin-1"))
            case ast.Call():
                self.calls.append(node)
            case ast.keyword(arg=None):
                self.unpacks = True
            case ast.keyword(arg=str() as name):
                self.keywords.add(name)
            case ast.NamedExpr(target=target):
                while isinstance(scope.node, _COMPREHENSIONS) and scope.outer is not None:
                    scope = scope.outer
                self.placed[target] = scope
            case ast.arg(arg=name, annotation=annotation):
                self._bind(name, scope)
                scope.parameters.add(name)
                self._annotate(annotation)
            case _:
                self._note_statement(node, scope)

    def _note_statement(self, node: ast.AST, scope: _Scope) -> None:  # noqa: C901 - one for each kind
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self._note_definition(node, scope)
            case ast.Import(names=aliases):
                for alias in aliases:
                    self._import(alias.asname or alias.name.partition(".")[0], alias.name, scope)
            case ast.ImportFrom(module=module, names=aliases):
                for alias in aliases:
                    self.attributes.add(alias.name)
                    self._import(alias.asname or alias.name, module or "", scope)
                self.renamed_imports.update(alias.asname for alias in aliases if alias.asname)
            case ast.Global(names=names):
                scope.not_own |= dict.fromkeys(names, "global")
                for name in names:
                    self._bind(name, self.module)
            case ast.Nonlocal(names=names):
                scope.not_own |= dict.fromkeys(names, "nonlocal")
            case ast.AnnAssign(annotation=annotation):
                self._annotate(annotation)
            case ast.ExceptHandler(name=str() as name) | ast.MatchAs(name=str() as name):
                self._bind(name, scope)
            case ast.MatchStar(name=str() as name) | ast.MatchMapping(rest=str() as name):
                self._bind(name, scope)
            case ast.MatchClass(kwd_attrs=names):
                self.attributes.update(names)
        # Scopes of their own, of a later Python, are not looked into.
        self.modern |= type(node).__name__ in {
            "TypeAlias",
            "TypeVar",
            "ParamSpec",
            "TypeVarTuple",
            "TemplateStr",
        }

    def _note_definition(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, scope: _Scope
    ) -> None:
        self._bind(node.name, scope)
        self.titles.add(node.name)
        if node.decorator_list or (isinstance(node, ast.ClassDef) and node.keywords):
            self.fixed_titles.add(node.name)
        if not isinstance(node, ast.ClassDef):
            self._annotate(node.returns)

    def _import(self, name: str, module: str, scope: _Scope) -> None:
        scope.bound.add(name)
        root = module.partition(".")[0]
        self.attributes.update(module.split("."))
        # One name for two packages is neither's.
        self.roots[name] = root if self.roots.get(name, root) == root else ""

    def _bind(self, name: str, scope: _Scope) -> None:
        scope.bound.add(name)
        self.bindings[name] += 1

    def _annotate(self, annotation: ast.expr | None) -> None:
        if annotation is not None:
            self.annotated.update(node.id for node in ast.walk(annotation) if isinstance(node, ast.Name))

    def _read(self, text: str) -> None:
        self.texts.update(_WORD.findall(text))
        self.mentions_a_script |= ".py" in text


def _outsiders(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the children of *node*, which opens a scope, that are evaluated outside of it."""
    match node:
        case ast.ClassDef(bases=bases, keywords=keywords, decorator_list=decorators):
            yield from (*bases, *keywords, *decorators)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            arguments = node.args
            yield from (*arguments.defaults, *filter(None, arguments.kw_defaults))
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            every += filter(None, [arguments.vararg, arguments.kwarg])
            yield from (argument.annotation for argument in every if argument.annotation is not None)
            if not isinstance(node, ast.Lambda):
                yield from (*node.decorator_list, *filter(None, [node.returns]))
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            yield node.generators[0].iter


class _Names:
    """What stands for each name: the name itself, or the number of what binds it, in order of appearance."""

    def __init__(self, survey: _Survey, *, fixed: bool) -> None:
        self._survey = survey
        self._fixed = _BUILTINS.union(survey.roots, survey.annotated, survey.texts)
        self._fixed = self._fixed.union(*(scope.bound for scope in survey.scopes if scope.is_class))
        self._none = fixed or _looks_names_up(survey)
        self._shows_titles = bool(survey.attributes & _TELLING_TITLES or survey.names & _TITLED)
        self._numbers: dict[tuple[_Scope, str], int] = {}
        self._known: dict[tuple[_Scope, str], str] = {}

    def of(self, name: str, scope: _Scope) -> str:
        """Return what stands for *name*, used or bound in *scope*."""
        if self._none or name in self._fixed:
            return name
        if (scope, name) not in self._known:
            binder = scope.binder(name)
            free = binder is not None and self._is_free(name, binder)
            if binder is not None and free:
                number = self._numbers.setdefault((binder, name), len(self._numbers))
                self._known[scope, name] = f"#{number}"
            else:
                self._known[scope, name] = name
        return self._known[scope, name]

    def _is_free(self, name: str, binder: _Scope) -> bool:
        """Tell whether nothing but the names in *binder* and what it encloses could notice a new name."""
        survey = self._survey
        if name.startswith("__") or (binder is survey.module and name in survey.attributes):
            return False
        if name in survey.titles and (self._shows_titles or name in survey.fixed_titles):
            return False
        return name not in binder.parameters or (
            name not in survey.keywords and not survey.unpacks and self._is_called_here_only(binder)
        )

    def _is_called_here_only(self, scope: _Scope) -> bool:
        """Tell whether every call of a function stands in the script: others may name its parameters."""
        node, survey = scope.node, self._survey
        if not isinstance(node, _FUNCTIONS) or node.decorator_list or scope.outer is None:
            return False
        elsewhere = survey.passed | survey.attributes | survey.texts
        return not scope.outer.is_class and node.name not in elsewhere


def _looks_names_up(survey: _Survey) -> bool:
    """Tell whether a script may find by its name what it binds, so that no name can be exchanged."""
    if survey.modern or "*" in survey.roots or survey.names & _LOOKING or survey.packages & _PACKAGES:
        return True
    if survey.mentioned & _SHOWING or {"sys", "modules"} <= survey.mentioned:
        return True
    # Python puts the class's name before these.
    names = survey.names | survey.attributes | survey.keywords | survey.bindings.keys()
    if any(name.startswith("__") and not name.endswith("__") for name in names):
        return True
    if survey.passed & _BY_NAME:
        return True
    return any(
        isinstance(call.func, ast.Name) and call.func.id in _BY_NAME and not _is_plain(call, survey)
        for call in survey.calls
    )


def _is_plain(call: ast.Call, survey: _Survey) -> bool:
    """Tell whether ``getattr`` or the like is given a literal name, or looks into a library."""
    match call.args:
        case [_, ast.Constant(value=str()), *_]:
            return True
        case [ast.Name() as module, *_]:
            return survey.root(module) in _LIBRARIES
    return False


@dataclasses.dataclass(frozen=True, slots=True)
class _Seeds:
    """Where a script says which random numbers it draws."""

    expressions: frozenset[ast.AST] = frozenset()
    """What is nothing but a seed."""
    seeding: frozenset[ast.AST] = frozenset()
    """Statements of the module that only seed a library's own generator."""

    @classmethod
    def of(cls, survey: _Survey) -> _Seeds:
        """Look for them in a script; there are none in one that may ask a generator for its seed."""
        if survey.mentioned & _TELLING:
            return cls()
        search = _SeedSearch(survey)
        positions = [*search.positions()]
        held = search.constants(positions)
        seeds = search.given | held.keys()
        expressions = {node for node in positions if _is_seed(node, seeds)}
        expressions.update(node for nodes in held.values() for node in nodes)
        seeding = {
            statement
            for statement in survey.statements
            if (seed := search.only_seed(statement)) is not None and seed in expressions
        }
        return cls(frozenset(expressions), frozenset(seeding))


class _SeedSearch:
    """What the seeds of a script are given to, and held by."""

    def __init__(self, survey: _Survey) -> None:
        self._survey = survey
        self.given = {name for name in survey.roots if _SEED.fullmatch(name) and name not in survey.bindings}
        """Seeds that are imported."""

    def positions(self) -> Iterator[ast.expr]:
        """Yield the arguments from which a generator is seeded."""
        for call in self._survey.calls:
            if (seed := self._seed(call)) is not None:
                yield seed
            elif self._survey.root(call.func) in _LIBRARIES:
                yield from (keyword.value for keyword in call.keywords if keyword.arg in _SEED_KEYWORDS)

    def _seed(self, call: ast.Call) -> ast.expr | None:
        """Return the only argument of a *call* that makes or seeds a generator, None of another."""
        survey = self._survey
        match call:
            case ast.Call(func=ast.Attribute(attr=name), args=[seed], keywords=[]):
                known = name == "manual_seed" or survey.root(call.func) in _LIBRARIES
            case ast.Call(func=ast.Name(id=name), args=[seed], keywords=[]):
                known = survey.root(call.func) in _LIBRARIES and name not in survey.renamed_imports
            case _:
                return None
        # The script may have put something of its own in the place.
        own = name in survey.stored or name in survey.bindings
        return seed if known and name in _SEEDING and not own else None

    def constants(self, positions: list[ast.expr]) -> dict[str, list[ast.expr]]:
        """Return the values of the constants that hold a seed and go nowhere but into other seeds."""
        survey = self._survey
        found: dict[str, list[ast.expr]] = {}
        for statement in survey.statements:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    found.setdefault(name, []).append(value)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    found.setdefault(name, []).append(value)
        noticed = survey.texts.union(survey.attributes, survey.keywords, survey.roots)
        found = {
            name: nodes
            for name, nodes in found.items()
            if _SEED.fullmatch(name) and name not in noticed and survey.bindings[name] == len(nodes)
        }
        if len(found) > _HELD:
            return {}
        loads = [node for node in survey.loads if node.id in found]
        for _ in range(_ROUNDS):
            places = positions + [node for nodes in found.values() for node in nodes]
            allowed = {leaf for node in places if _is_arithmetic(node) for leaf in ast.walk(node)}
            misused = {node.id for node in loads if node not in allowed}
            seeds = self.given | found.keys()
            misused.update(
                name for name, nodes in found.items() if not all(_is_seed(n, seeds) for n in nodes)
            )
            if not misused & found.keys():
                return found
            found = {name: nodes for name, nodes in found.items() if name not in misused}
        return {}

    def only_seed(self, statement: ast.stmt) -> ast.expr | None:
        """Return with what *statement* seeds a library's own generator, None if that is not all it does."""
        match statement:
            case ast.Expr(
                value=ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name) as callee) as call
            ):
                if name in _GLOBAL_SEEDING and self._survey.root(callee) in _LIBRARIES:
                    return self._seed(call)
        return None


def _is_arithmetic(node: ast.expr) -> bool:
    kinds = (ast.Constant, ast.Name, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.expr_context)
    return all(isinstance(inner, kinds) for inner in ast.walk(node))


def _is_seed(node: ast.expr, seeds: set[str]) -> bool:
    """Tell whether *node* is a valid seed, made of whole numbers and of *seeds* alone."""
    if not _is_arithmetic(node):
        return False
    leaves = [leaf for leaf in ast.walk(node) if isinstance(leaf, ast.Name | ast.Constant)]
    names = {leaf.id for leaf in leaves if isinstance(leaf, ast.Name)}
    if names - seeds or any(
        isinstance(leaf, ast.Constant) and type(leaf.value) is not int for leaf in leaves
    ):
        return False
    for given in _ANY_SEED:
        try:
            value = constants.evaluate(node, dict.fromkeys(names, given), "cpu")
        except (constants.NotConstant, ZeroDivisionError):
            return False
        if type(value) is not int or value not in _SEEDS:
            return False
    return True


class _Writer:
    """The syntax tree as text, without what does not count."""

    def __init__(
        self, survey: _Survey, names: _Names, seeds: frozenset[ast.AST], dropped: frozenset[ast.AST]
    ) -> None:
        self._survey = survey
        self._names = names
        self._seeds = seeds
        self._dropped = dropped
        self._numbers = _folded(survey.arithmetic)

    def write(self, tree: ast.Module) -> str:
        """Return the text of *tree*: equal texts are equal trees, with names and seeds exchanged."""
        written: list[str] = []
        stack: list[str | tuple[ast.AST, _Scope]] = [(tree, self._survey.module)]
        while stack:
            match stack.pop():
                case str(text):
                    written.append(text)
                case (node, scope):
                    stack.extend(reversed([*self._parts(node, scope)]))
        return " ".join(written)

    def _parts(self, node: ast.AST, scope: _Scope) -> Iterator[str | tuple[ast.AST, _Scope]]:
        if node in self._seeds:
            yield "<seed>"
        elif isinstance(node, ast.Name):
            yield self._names.of(node.id, scope)
        elif isinstance(node, ast.Constant):
            yield _literal(node.value)
        elif node in self._numbers:
            yield _literal(self._numbers[node])
        else:
            inner = self._survey.opened.get(node, scope)
            yield f"{type(node).__name__}("
            for field in node._fields:
                value = getattr(node, field, None)
                if isinstance(value, list):
                    yield "["
                    for part in value:
                        yield from self._part(node, field, part, scope, inner)
                    yield "]"
                else:
                    yield from self._part(node, field, value, scope, inner)
            yield ")"

    def _part(
        self, node: ast.AST, field: str, value: object, scope: _Scope, inner: _Scope
    ) -> Iterator[str | tuple[ast.AST, _Scope]]:
        if isinstance(value, ast.expr_context):
            return  # it follows from where the expression stands
        if isinstance(value, ast.AST):
            if value not in self._dropped:
                yield value, self._survey.placed.get(value, inner)
        elif isinstance(value, str) and field == _BINDING.get(type(node)):
            yield self._names.of(value, scope)
        else:
            yield f"={value}"  # None, a number, or an attribute, keyword or module


def _folded(arithmetic: list[ast.BinOp | ast.UnaryOp]) -> dict[ast.AST, int | float]:
    """Return the value of each operation that is made of number literals alone."""
    known: dict[ast.AST, int | float] = {}

    def number(node: ast.expr) -> ast.Constant | None:
        if isinstance(node, ast.Constant) and type(node.value) in {int, float}:
            return node
        return ast.Constant(known[node]) if node in known else None

    for node in reversed(arithmetic):
        operation: ast.expr
        if isinstance(node, ast.BinOp):
            left, right = number(node.left), number(node.right)
            if left is None or right is None:
                continue
            operation = ast.BinOp(left, node.op, right)
        else:
            operand = number(node.operand)
            if operand is None or isinstance(node.op, ast.Not):
                continue
            operation = ast.UnaryOp(node.op, operand)
        try:
            value = constants.evaluate(operation, {}, "cpu")
        except (constants.NotConstant, ZeroDivisionError):
            continue
        if isinstance(value, int | float):
            known[node] = value
    return known


def _literal(value: object) -> str:
    # Python refuses to write a number of thousands of digits in decimal.
    text = hex(value) if type(value) is int else ascii(value)
    return f"{type(value).__name__}:{text}"
