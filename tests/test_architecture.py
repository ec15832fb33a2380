"""The rooms of the package: who may import whom. docs/architecture.md draws it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "pytest_autoresearch"
# From the ground up. A room may import those of the lines before its own; rooms of one line stand apart.
FLOORS = (
    ("text",),
    ("errors",),
    ("system", "records"),
    ("sandbox",),
    ("runs", "scoring", "judging", "source"),
    ("executors", "campaign"),
    ("agents", "report"),
    ("settings",),
    ("loop",),
    ("plugin",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# A run calls harness.py and the public names stand in __init__.py: nothing of the package imports these two.
FACES = ("__init__", "harness")
# Imported late by whoever needs them: installing the plugin must not slow an ordinary pytest run.
HEAVY = ("anthropic", "datasets", "genai_prices", "git", "numpy", "psutil", "ray", "tiktoken", "torch")
# Imported late themselves: by the scorer, which wants torch, by the agent that asks Claude, and by the tuner.
LATE = ("scoring/", "agents/claude/endpoint", "agents/tuner/search", "agents/tuner/surrogate")
LONGEST = 400  # lines of a file


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(module: Path) -> str:
    return module.relative_to(PACKAGE).with_suffix("").as_posix()


def room_of(name: str) -> str:
    return name.split("/", maxsplit=1)[0]


@cache
def tree_of(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def imported(module: Path) -> Iterator[tuple[str, bool]]:
    """Yield every import with slashes for dots, and whether it is made when the module is imported."""
    tree = tree_of(module)
    for node in ast.walk(tree):
        at_once = node in tree.body
        if isinstance(node, ast.Import):
            yield from ((alias.name.replace(".", "/"), at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name_of(module)}: a relative import"
            base = (node.module or "").replace(".", "/")
            yield from ((f"{base}/{alias.name}", at_once) for alias in node.names)


def roots(module: Path, *, at_once: bool = False) -> set[str]:
    """Return the packages that a module imports, or those that it imports when it is imported itself."""
    return {path.split("/")[0] for path, prompt in imported(module) if prompt or not at_once}


def own(module: Path) -> set[str]:
    """Return the modules of this package that a module imports, late or for types too."""
    prefix, found = f"{PACKAGE.name}/", set()
    for path, _ in imported(module):
        if path.startswith(prefix):
            name = path.removeprefix(prefix)
            exists = (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()
            found.add(name if exists else name.rpartition("/")[0] or "__init__")
    return found


def test_imports_go_down() -> None:
    assert len(FLOORS) <= 10
    wrong = []
    for module in modules():
        name, room = name_of(module), room_of(name_of(module))
        for other in own(module) if room not in FACES else ():
            above = room_of(other)
            if above in FACES or (above != room and FLOOR[above] >= FLOOR[room]):
                wrong.append(f"{name} imports {other}, which does not stand below it")
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    imports = {name_of(module): own(module) for module in modules()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join((*path, name))}"
        if name not in done:
            for other in imports.get(name, ()):
                visit(other, (*path, name))
            done.add(name)

    for name in imports:
        visit(name, ())


def test_only_the_plugin_knows_pytest() -> None:
    others = (module for module in modules() if room_of(name_of(module)) != "plugin")
    know = {name_of(module) for module in others if {"pytest", "_pytest"} & roots(module)}
    assert not know


def test_what_is_heavy_is_imported_late() -> None:
    prompt = (module for module in modules() if not name_of(module).startswith(LATE))
    assert not {name_of(module) for module in prompt if roots(module, at_once=True).intersection(HEAVY)}


def test_no_file_is_long() -> None:
    lines = {name_of(module): len(module.read_text(encoding="utf-8").splitlines()) for module in modules()}
    assert not {name for name, count in lines.items() if count > LONGEST}
