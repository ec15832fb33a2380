"""A survey of a script: what it binds, calls and mentions, by name and without regard to scopes."""

from __future__ import annotations

import ast
import collections
import re

from pytest_autoresearch.source.parse import bindings, bound_name, is_comment

DEEPEST = 150  # levels of a syntax tree, beyond which a script is not looked into
# Nodes of later Pythons whose scopes are not known here.
_MODERN = {"TypeAlias", "TypeVar", "ParamSpec", "TypeVarTuple", "TemplateStr"}


class Survey:
    """The facts that tell which changes of a script the script itself could notice."""

    def __init__(self, tree: ast.Module, *, documented: bool) -> None:
        """Look at the whole tree; a *documented* script reads its docstrings."""
        self.tree = tree
        self.comments: set[ast.AST] = set()
        """Statements that are only strings; none where the script reads its docstrings."""
        self._nodes: list[ast.AST] = []
        level: list[ast.AST] = [tree]
        depth = 0
        while level and depth <= DEEPEST:
            if not documented:
                self.comments.update(filter(is_comment, level))
                level = [node for node in level if node not in self.comments]
            self._nodes += level
            depth, level = depth + 1, [child for node in level for child in ast.iter_child_nodes(node)]
        self.is_too_deep = bool(level)
        self.is_modern = any(type(node).__name__ in _MODERN for node in self._nodes)
        self._note_names()
        self._note_functions()
        self._note_imports()
        self.mentioned = self.loaded | self.attributes | self.roots.keys() | self.packages

    def root(self, node: ast.expr) -> str:
        """Return the package that ``numpy.random.seed`` or the like is taken from, empty if unknown."""
        while isinstance(node, ast.Attribute):
            node = node.value
        if isinstance(node, ast.Name) and node.id not in self.bindings:
            return self.roots.get(node.id, "")
        return ""

    def _note_names(self) -> None:
        nodes = self._nodes
        self.bindings = collections.Counter(
            name for node in nodes if not isinstance(node, ast.alias) and (name := bound_name(node))
        )
        """How often anything but an import may bind a name."""
        self.loads = [node for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
        self.loaded = {node.id for node in self.loads}
        self.calls = [node for node in nodes if isinstance(node, ast.Call)]
        callees = {call.func for call in self.calls}
        self.passed = {node.id for node in self.loads if node not in callees}
        """Names that are used otherwise than by calling them."""
        attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
        self.attributes = {node.attr for node in attributes}
        self.attributes.update(*(node.kwd_attrs for node in nodes if isinstance(node, ast.MatchClass)))
        self.stored = {node.attr for node in attributes if not isinstance(node.ctx, ast.Load)}
        """Attributes that are set."""
        keywords = {node.arg for node in nodes if isinstance(node, ast.keyword)}
        self.unpacks = None in keywords
        self.keywords = {name for name in keywords if name is not None}
        held = [node.value for node in nodes if isinstance(node, ast.Constant)]
        strings = [value.decode("latin-1") for value in held if isinstance(value, bytes)]
        strings += [value for value in held if isinstance(value, str)]
        self.mentions_a_script = any(".py" in text for text in strings)
        self.texts = {word for text in strings for word in re.findall(r"\w+", text)}
        """Words in strings."""

    def _note_functions(self) -> None:
        functions = [n for n in self._nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        classes = [node for node in self._nodes if isinstance(node, ast.ClassDef)]
        self.titles = {node.name for node in (*functions, *classes)}
        """Names of functions and classes."""
        self.fixed_titles = {node.name for node in (*functions, *classes) if node.decorator_list}
        self.fixed_titles.update(node.name for node in classes if node.keywords)
        """Those that a decorator or a metaclass may look at."""
        self.members = {name for node in classes for part in node.body for name in bindings(part)}
        """Names that classes bind."""
        annotations = [node.annotation for node in self._nodes if isinstance(node, ast.arg | ast.AnnAssign)]
        annotations += [node.returns for node in functions]
        inner = (node for annotation in filter(None, annotations) for node in ast.walk(annotation))
        self.annotated = {node.id for node in inner if isinstance(node, ast.Name)}
        """Names in annotations."""
        called_elsewhere = self.members | self.passed | self.attributes | self.texts | self.fixed_titles
        own = {node.args for node in functions if node.name not in called_elsewhere and not self.unpacks}
        public = (n for n in self._nodes if isinstance(n, ast.arguments) and n not in own)
        parameters = (node for arguments in public for node in ast.walk(arguments))
        self.public_parameters = self.keywords | {n.arg for n in parameters if isinstance(n, ast.arg)}
        """Names by which something outside the script, or a keyword, may pass an argument."""

    def _note_imports(self) -> None:
        self.roots: dict[str, str] = {}
        """For each imported name its package; empty where one name stands for several."""
        self.renamed_imports: set[str] = set()
        for statement in self._nodes:
            if not isinstance(statement, ast.Import | ast.ImportFrom):
                continue
            for alias in statement.names:
                module = alias.name if isinstance(statement, ast.Import) else statement.module or ""
                root, name = module.partition(".")[0], bound_name(alias)
                self.roots[name] = root if self.roots.get(name, root) == root else ""
                self.attributes.update(module.split("."))
                if isinstance(statement, ast.ImportFrom):
                    self.attributes.add(alias.name)
                    self.renamed_imports.update(filter(None, [alias.asname]))
        self.packages = set(self.roots.values())
