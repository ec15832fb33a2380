"""Two scripts that do the same but for a seed are recognised, and no others."""

from __future__ import annotations

import ast
import re
import time
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pytest_autoresearch.source import validation
from pytest_autoresearch.source.canonical import LARGEST, digest, equivalent_up_to
from pytest_autoresearch.source.size import code_size

# A copy: what a campaign has kept changes the experiment's own.
TRAIN = (Path(__file__).parents[1] / "data" / "train.txt").read_text(encoding="utf-8")

SAME = {
    "layout": (
        "x = [1, 2]\nprint(x)",
        "x = [\n    1,\n    2,\n]  # two\n\nprint((x))",
        "layout and comments",
    ),
    "quotes": ("print('a' 'b')", 'print("ab")', "layout and comments"),
    "spelling of numbers": ("X = 2**12\nY = -4e-2", "X = 4_096\nY = -0.04", "layout and comments"),
    "docstring": ("def f():\n    'a'\n    return 1", "def f():\n    return 1", "docstrings"),
    "a comment as a string": ("x = 1\n'''x'''\nprint(x)", "x = 1\nprint(x)", "docstrings"),
    "a variable": ("a = 3\nprint(a + 1)", "width = 3\nprint(width + 1)", "names"),
    "a constant": ("RATE = 3\nprint(RATE)", "LR = 3\nprint(LR)", "names"),
    "a function": ("def f():\n    return 1\nprint(f())", "def g():\n    return 1\nprint(g())", "names"),
    "a class": ("class A: pass\nprint(A())", "class B: pass\nprint(B())", "names"),
    "a local": ("def f():\n    a = 1\n    return a", "def f():\n    b = 1\n    return b", "names"),
    "a parameter": ("def f(a):\n    return a\nf(1)", "def f(b):\n    return b\nf(1)", "names"),
    "swapped names": ("a = 1\nb = 2\nprint(a, b)", "b = 1\na = 2\nprint(b, a)", "names"),
    "a closure": (
        "def f():\n    n = 0\n    def g():\n        nonlocal n\n        n += 1\n    g()\n    return n",
        "def f():\n    k = 0\n    def h():\n        nonlocal k\n        k += 1\n    h()\n    return k",
        "names",
    ),
    "a global": (
        "n = 0\ndef f():\n    global n\n    n += 1",
        "k = 0\ndef f():\n    global k\n    k += 1",
        "names",
    ),
    "a comprehension": ("print([i for i in (1, 2)])", "print([j for j in (1, 2)])", "names"),
    "what a comprehension goes over": (
        "x = [1]\nprint([x for x in x])",
        "x = [1]\nprint([y for y in x])",
        "names",
    ),
    "a walrus": ("print([(y := i) for i in z], y)", "print([(w := j) for j in z], w)", "names"),
    "a capture": (
        "match p:\n    case [a, *b] if a: print(a, b)",
        "match p:\n    case [c, *d] if c: print(c, d)",
        "names",
    ),
    "an exception": (
        "try: pass\nexcept E as a: print(a)",
        "try: pass\nexcept E as b: print(b)",
        "names",
    ),
    "a seed": ("import torch\ntorch.manual_seed(1)", "import torch\ntorch.manual_seed(2)", "seeds"),
    "an imported seed": (
        "import torch\nfrom prepare import SEED\ntorch.manual_seed(SEED)",
        "import torch\nfrom prepare import SEED\ntorch.manual_seed(SEED + 3)",
        "seeds",
    ),
    "a named seed": (
        "import random\nSEED = 1\nDATA_SEED = SEED + 1\nrng = random.Random(DATA_SEED)",
        "import random\nSEED = 7\nDATA_SEED = SEED + 3\nrng = random.Random(DATA_SEED)",
        "seeds",
    ),
    "another seeding": (
        "import torch\nx = torch.rand(3)",
        "import torch\ntorch.manual_seed(7)\nx = torch.rand(3)",
        "seeds",
    ),
    "a generator": (
        "import numpy as np\nr = np.random.default_rng(1)",
        "import numpy as np\nr = np.random.default_rng(2)",
        "seeds",
    ),
    "a generator by keyword": (
        "import numpy as np\nr = np.random.default_rng(seed=1)",
        "import numpy as np\nr = np.random.default_rng(seed=2)",
        "seeds",
    ),
    "torch's generator": (
        "import torch\ng = torch.Generator().manual_seed(3)",
        "import torch\ng = torch.Generator().manual_seed(4)",
        "seeds",
    ),
    "a seed in a function": (
        "from random import seed\ndef f():\n    seed(1)",
        "from random import seed\ndef f():\n    seed(2)",
        "seeds",
    ),
    "names and seeds": (
        "import torch\ntorch.manual_seed(1)\na = 1\nprint(a)",
        "import torch\ntorch.manual_seed(2)\nb = 1\nprint(b)",
        "names and seeds",
    ),
    "all of it": (
        "'d'\nimport torch\ntorch.manual_seed(1)\na = 1\nprint(a)",
        "import torch\ntorch.manual_seed(2)\nb = 1\nprint(b)",
        "docstrings, names and seeds",
    ),
}

# Each pair looks as if it were one script, and is not, or cannot be told to be.
DIFFERENT = {
    "a value": ("x = 1", "x = 2"),
    "a kind of number": ("x = 1", "x = 1.0"),
    "true and one": ("x = 1", "x = True"),
    "the sign of zero": ("x = 0.0", "x = -0.0"),
    "text and bytes": ("x = 'a'", "x = b'a'"),
    "order": ("a = f()\nb = g()", "b = g()\na = f()"),
    "parameters swapped": ("def f(a, b):\n    return a - b", "def f(b, a):\n    return a - b"),
    "another variable": ("a = 1\nb = 2\nprint(a)", "a = 1\nb = 2\nprint(b)"),
    "two made one": ("a = 1\nb = 2\nprint(a + b)", "a = 1\na = 2\nprint(a + a)"),
    "a local made global": (
        "x = 1\ndef f():\n    x = 2\nf()",
        "x = 1\ndef f():\n    global x\n    x = 2\nf()",
    ),
    "another's local": (
        "def f():\n    n = m = 0\n    def g():\n        nonlocal n\n        n = 1\n    g()\n    return n",
        "def f():\n    n = m = 0\n    def g():\n        nonlocal m\n        m = 1\n    g()\n    return n",
    ),
    "a module that is itself": ("import train\na = 1\nprint(train.a)", "import train\nb = 1\nprint(train.a)"),
    "a capture made a value": ("match p:\n    case x: pass", "match p:\n    case x.y: pass"),
    "builtins covered": ("a = max(1, 2)\nmax = 5", "a = min(1, 2)\nmin = 5"),
    "another builtin": ("print(max(x))", "print(min(x))"),
    "an attribute": ("m.a = 1", "m.b = 1"),
    "a submodule": (
        "class A:\n    def __init__(self):\n        self.a = 1",
        "class A:\n    def __init__(self):\n        self.b = 1",
    ),
    "an import": ("import torch\ntorch.f()", "import numpy\nnumpy.f()"),
    "an imported name": ("from m import a\na()", "from m import b\nb()"),
    "a field": ("class A:\n    a: int = 1", "class A:\n    b: int = 1"),
    "slots": ("class A:\n    __slots__ = ('a',)", "class A:\n    __slots__ = ('b',)"),
    "names in the class's body": (
        "x = 1\nclass A:\n    x = x\n    y = x",
        "z = 1\nclass A:\n    x = z\n    y = z",
    ),
    "a shown name": ("x = 1\nprint(f'{x=}')", "y = 1\nprint(f'{y=}')"),
    "a keyword": ("def f(a):\n    return a\nf(a=1)", "def f(b):\n    return b\nf(b=1)"),
    "an unpacked keyword": (
        "def f(a):\n    return a\nf(**read())",
        "def f(b):\n    return b\nf(**read())",
    ),
    "a method's parameter": (
        "class A:\n    def forward(self, x): return x",
        "class A:\n    def forward(self, y): return y",
    ),
    "a callback's parameter": ("def f(a):\n    return a\nrun(f)", "def f(b):\n    return b\nrun(f)"),
    "looked up in globals": ("a = 1\nprint(globals())", "b = 1\nprint(globals())"),
    "looked up in locals": (
        "def f():\n    a = 1\n    return locals()",
        "def f():\n    b = 1\n    return locals()",
    ),
    "evaluated": ("a = 1\neval(input())", "b = 1\neval(input())"),
    "looked up by getattr": ("a = 1\ngetattr(m, k)", "b = 1\ngetattr(m, k)"),
    "getattr handed on": ("a = 1\nmap(getattr, m)", "b = 1\nmap(getattr, m)"),
    "a name in a text": ("a = 1\nprint(read('a'))", "b = 1\nprint(read('a'))"),
    "everything imported": ("from m import *\na = 1", "from m import *\nb = 1"),
    "a function's own name": ("def a(): pass\nprint(a.__name__)", "def b(): pass\nprint(b.__name__)"),
    "a decorated function": ("@register\ndef a(): pass", "@register\ndef b(): pass"),
    "a mangled name": ("class A:\n    def f(self): self.__x = 1", "class B:\n    def f(self): self.__x = 1"),
    "a docstring that is read": ("'a'\nprint(__doc__)", "'b'\nprint(__doc__)"),
    "a script that reads itself": ("n = len(open(__file__).read())", "n = len(open(__file__).read())  # n"),
    "a script that is compiled": (
        "import torch\n@torch.jit.script\ndef f(x):\n    # type: (int) -> int\n    return x",
        "import torch\n@torch.jit.script\ndef f(x):\n    return x",
    ),
    "an encoding": ("# coding: latin-1\nx = 'é'", "x = 'é'"),
    "a dead branch": ("x = 1", "x = 1\nif False:\n    x = 2"),
    "a seed that is a rate": ("SEED = 1\nlr = SEED / 100", "SEED = 2\nlr = SEED / 100"),
    "a seed that is both": (
        "import torch\nSEED = 1\ntorch.manual_seed(SEED)\nlr = SEED / 100",
        "import torch\nSEED = 2\ntorch.manual_seed(SEED)\nlr = SEED / 100",
    ),
    "a seed that is both, by another": (
        "import torch\nSEED = 1\nA_SEED = SEED\ntorch.manual_seed(SEED)\nlr = A_SEED / 100",
        "import torch\nSEED = 2\nA_SEED = SEED\ntorch.manual_seed(SEED)\nlr = A_SEED / 100",
    ),
    "a seed that is set elsewhere": (
        "import torch\nSEED = 1\ndef f():\n    global SEED\n    SEED = g()\ntorch.manual_seed(SEED)",
        "import torch\nSEED = 2\ndef f():\n    global SEED\n    SEED = g()\ntorch.manual_seed(SEED)",
    ),
    "a seed that is asked for": (
        "import torch\ntorch.manual_seed(1)\nlr = torch.initial_seed() / 9",
        "import torch\ntorch.manual_seed(2)\nlr = torch.initial_seed() / 9",
    ),
    "a seed that is refused": (
        "import numpy\nnumpy.random.seed(1)",
        "import numpy\nnumpy.random.seed(-1)",
    ),
    "a script's own seed()": ("def seed(n): return n\nw = seed(1)", "def seed(n): return n\nw = seed(2)"),
    "a library's seed() covered": (
        "import torch\ntorch.manual_seed = f\nw = torch.manual_seed(1)",
        "import torch\ntorch.manual_seed = f\nw = torch.manual_seed(2)",
    ),
    "a script's own manual_seed()": (
        "class A:\n    def manual_seed(self, n): return n\nw = A().manual_seed(1)",
        "class A:\n    def manual_seed(self, n): return n\nw = A().manual_seed(2)",
    ),
    "a method called seed": ("w = plant.seed(1)", "w = plant.seed(2)"),
    "something else called seed": (
        "from torch import ones as seed\nw = seed(1)",
        "from torch import ones as seed\nw = seed(2)",
    ),
    "a keyword of the script's own": ("w = make(seed=1)", "w = make(seed=2)"),
    "seeding each step": (
        "import torch\nfor i in x:\n    y = torch.rand(3)",
        "import torch\nfor i in x:\n    torch.manual_seed(7)\n    y = torch.rand(3)",
    ),
    "a variable called seed": (
        "import torch\ng = torch.Generator().manual_seed(seed)",
        "import torch\ng = torch.Generator().manual_seed(3)",
    ),
}


@pytest.mark.parametrize(("old", "new", "what"), SAME.values(), ids=SAME)
def test_what_does_the_same_is_recognised(old: str, new: str, what: str) -> None:
    assert digest(old) == digest(new)
    assert equivalent_up_to(old, new) == equivalent_up_to(new, old) == f"only {what}"


@pytest.mark.parametrize(("old", "new"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_may_do_something_else_is_an_experiment(old: str, new: str) -> None:
    assert digest(old) != digest(new)
    assert equivalent_up_to(old, new) is None


def renamed(source: str, old: str, new: str) -> str:
    changed = re.sub(rf"\b{old}\b", new, source)
    assert changed != source
    return changed


def without(source: str, line: str) -> str:
    assert source.count(line + "\n") == 1
    return source.replace(line + "\n", "")


def changed(source: str, old: str, new: str) -> str:
    assert source.count(old) == 1, old
    return source.replace(old, new)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (ast.unparse(ast.parse(TRAIN)), "layout and comments"),
        (re.sub(r"  # .*", "", TRAIN), "layout and comments"),
        (changed(TRAIN, "cpu=2**12", "cpu=4096"), "layout and comments"),
        (changed(TRAIN, '    """The line that is rewritten while training."""\n', ""), "docstrings"),
        (renamed(TRAIN, "ramp", "slope"), "names"),
        (renamed(TRAIN, "rotate", "turn_around"), "names"),
        (renamed(TRAIN, "MLP", "Feedforward"), "names"),
        (renamed(TRAIN, "SOFTCAP", "LOGIT_BOUND"), "names"),
        (changed(TRAIN, "manual_seed(SEED)", "manual_seed(1337)"), "seeds"),
        (
            renamed(changed(TRAIN, "manual_seed(SEED)", "manual_seed(SEED + 1)"), "ramp", "r"),
            "names and seeds",
        ),
    ],
    ids=[
        "reformatted",
        "bare",
        "number",
        "docstring",
        "local",
        "function",
        "class",
        "constant",
        "seed",
        "two",
    ],
)
def test_the_experiment_under_another_name_is_recognised(source: str, what: str) -> None:
    compile(source, "train.py", "exec")
    assert equivalent_up_to(TRAIN, source) == f"only {what}"


@pytest.mark.parametrize(
    "source",
    [
        changed(TRAIN, "SOFTCAP = 15.0", "SOFTCAP = 16.0"),
        changed(TRAIN, "MLP(nn.Module)", "MLP(Linear)"),
        changed(
            TRAIN,
            "        step += 1\n        if not loss <= MAX_LOSS:",
            "        if not loss <= MAX_LOSS:",
        ),
        changed(
            TRAIN,
            "            block.attention.out.weight.zero_()\n            block.mlp.down.weight.zero_()\n",
            "            block.mlp.down.weight.zero_()\n            block.attention.out.weight.zero_()\n",
        ),
        without(TRAIN, "            block.mlp.down.weight.zero_()"),
        TRAIN + "if False:\n    pass\n",
        changed(TRAIN, "def rotate(x, cos, sin):", "def rotate(x, sin, cos):"),
        changed(TRAIN, "a * cos + b * sin", "b * cos + a * sin"),
    ],
    ids=["constant", "base", "line", "order", "dropped", "dead", "parameters", "operands"],
)
def test_a_change_of_the_experiment_is_an_experiment(source: str) -> None:
    compile(source, "train.py", "exec")
    assert equivalent_up_to(TRAIN, source) is None


def test_each_statement_of_the_experiment_matters() -> None:
    whole = digest(TRAIN)
    tree = ast.parse(TRAIN)
    for node in [node for node in tree.body if not isinstance(node, ast.Expr)][::5]:
        left = ast.Module([statement for statement in tree.body if statement is not node], [])
        assert digest(ast.unparse(left)) != whole, ast.unparse(node)


HOSTILE = {
    "statements": "a=b+c*d\n" * (validation.LARGEST // 8),
    "statements, just not too many": "a=b+c*d\n" * (LARGEST // 8),
    "seeds, just not too many": "".join(f"SEED_{i}=SEED_{i + 1}\n" for i in range(LARGEST // 3)),
    "minus signs": "x = " + "-" * 100_000 + "1",
    "sums": "x = " + "1+" * 5_000 + "1",
    "parentheses": "x = " + "(" * 190 + "1" + ")" * 190,
    "attributes": "x = a" + ".b" * 5_000,
    "nested functions": "".join(f"{' ' * i}def f{i}(a{i}):\n" for i in range(90)) + " " * 90 + "a0 = 1\n",
    "a great number": "x = 0x" + "f" * 200_000,
    "a power of powers": "x = 9**9**9**9**9\ny = 2**100000",
    "a long text": "x = '" + "a " * 120_000 + "'",
    "no Python": "x = (",
    "a lone surrogate": "x = '\ud800'",
    "a NUL": "x = '\0'",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_script_takes_no_time(source: str) -> None:
    start = time.process_time()
    assert digest(source) == digest(source) != digest(source + "\npass")
    assert time.process_time() - start < 1.5, "three of them; each takes a tenth of a second at most"
    assert code_size(source) > 0


SCRIPTS = st.lists(
    st.sampled_from(
        [
            "{0} = {1}",
            "{0} += {1} * 2",
            "def {0}({1}):\n    {2} = {1}\n    return {2}",
            "{0} = lambda {1}: {1} + {2}",
            "{0} = [{1} for {1} in {2}]",
            "print({0}, {1})",
            "def {0}():\n    global {1}\n    {1} = {2}",
            "class {0}:\n    {1} = {2}",
            "for {0} in {1}:\n    {2} = {0}",
            "{0}({1})",
            "def {0}():\n    {1} = {2}\n    def {2}():\n        nonlocal {1}\n        {1} = {0}\n    {2}()",
            "print([({0} := {1}) for {1} in {2}], {0})",
            "print([[{0} for {0} in {1}] for {1} in [{2}]])",
            "try:\n    {0}()\nexcept Exception as {1}:\n    {2} = 1",
            "match {0}:\n    case [{1}, *{2}]: print({1}, {2})",
            "del {0}",
        ]
    ),
    min_size=1,
    max_size=6,
)
PICKS = st.lists(st.sampled_from("abcde"), min_size=18, max_size=18)


def script(statements: list[str], picks: list[str]) -> str:
    lines = [text.format(*picks[3 * i : 3 * i + 3]) for i, text in enumerate(statements)]
    return "\n".join(["a = 1", "b = [2, 3]", *lines, "print(a, b)"])


@settings(deadline=None, max_examples=150)
@given(SCRIPTS, PICKS, st.permutations("abcde"), st.integers(0, 18), st.integers(0, 18))
@example(["{0} = {1}"] * 2, list("abbcd" + "a" * 13), list("bacde"), 0, 18)
def test_scripts_of_one_essence_print_the_same(
    statements: list[str], picks: list[str], order: list[str], start: int, stop: int
) -> None:
    """Whether or not a renaming is consistent: it begins and stops anywhere."""
    others = [order["abcde".index(pick)] if start <= i < stop else pick for i, pick in enumerate(picks)]
    old, new = script(statements, picks), script(statements, others)
    assume(compiles(old) and compiles(new))
    if digest(old) == digest(new):
        assert printed(old) == printed(new)


def compiles(source: str) -> bool:
    try:
        compile(source, "train.py", "exec")
    except SyntaxError:
        return False
    return True


def printed(source: str) -> list[object]:
    """Return what a script prints that begins with none of its names bound."""
    told: list[object] = []

    def show(*values: object) -> None:
        told.append([value if isinstance(value, int | list) else type(value) for value in values])

    try:
        exec(source, {"print": show})  # noqa: S102 - it is made of the statements above
    except Exception as error:  # noqa: BLE001 - parsers of hostile bytes raise what they like
        told.append(type(error))
    return told


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("", 0),
        ("# nothing\n", 0),
        ("'''A docstring.'''\n", 0),
        ("x = 1", 3),
        ("x = (1)", 3),
        ("x = a + b", 5),
        ("import torch.nn as nn", 4),
        ("def f(a, b=1):\n    return a", 7),
        ("print('abcdefgh' * 2)", 6),
        ("exec('" + "x = 1; " * 80 + "')", 1 + 1 + 1 + 560 // 8),
    ],
)
def test_tokens_are_counted(source: str, count: int) -> None:
    assert code_size(source) == count


def test_a_formatter_does_not_change_the_number_of_tokens() -> None:
    whole = code_size(TRAIN)
    assert code_size(ast.unparse(ast.parse(TRAIN))) == whole
    assert code_size(re.sub(r"  # .*", "", TRAIN)) == whole
    assert (
        code_size(changed(TRAIN, "torch.cat([a * cos", "torch.cat([(a * cos)").replace("ramp", "r")) == whole
    )
    assert code_size(TRAIN + "x = 1\n") == whole + 3


def test_a_campaign_may_go_on_under_another_python() -> None:
    """Its trials are known by their digests, and versions of Python differ in the empty lists of a tree."""
    script = "class A:\n    def f(self, a, *b, c=2):\n        return [i for i in range(3)]\nprint(A().f(1))\n"
    assert digest(script) == "9b773cd8ab828b1f430076feb14d55a1e14fbb3b06bed6c5f24f8c0f2333aaf6"


def test_a_docstring_that_is_read_counts() -> None:
    assert code_size(f"'''{'x = 1; ' * 80}'''\nexec(__doc__)") > 560 // 8
