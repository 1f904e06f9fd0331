"""Law: in a function, no comprehension binds a name that means something from outside it beside the comprehension.

Python 3.12 and later put list, dict and set comprehensions into the function around them (PEP 709). What one of them
binds is then taken for what another reads: a global up to 3.12.3 (python/cpython#118513: UnboundLocalError), and a
closure's variable in all of them (#156664, #121377: UnboundLocalError, NameError or a wrong value). Whether it happens
hangs on the order in which they stand; this law does not ask for that.
"""

import ast
import symtable
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(file for folder in ("src", "bench", "tests") for file in (ROOT / folder).rglob("*.py"))
INLINED = (ast.ListComp, ast.SetComp, ast.DictComp)
MARK = "put_into_the_function_at_line_"


def told_apart(tree: ast.Module) -> str:
    """Its text, with comprehensions as marked generators, which have symbols of their own in every Python."""
    for node in ast.walk(tree):
        if isinstance(node, INLINED):
            parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            node.elt = ast.Tuple([*parts, ast.Name(f"{MARK}{node.lineno}", ast.Load())], ast.Load())
            node.__class__ = ast.GeneratorExp
    return ast.unparse(tree)


def line(table: symtable.SymbolTable) -> str:
    """Where a comprehension stands; empty for what is none."""
    marks = [name for name in table.get_identifiers() if name.startswith(MARK)]
    return marks[0].removeprefix(MARK) if table.get_name().strip("<>") == "genexpr" and marks else ""


def inlined(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    """The comprehensions that become part of a function, with those within them."""
    for child in table.get_children():
        if line(child):
            yield child
            yield from inlined(child)


def clashes(table: symtable.SymbolTable) -> Iterator[str]:
    """Each name that a comprehension of a function binds, and the function's other parts have from outside."""
    if table.get_type() == "function" and not line(table):
        within = list(inlined(table))
        outside = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_free()}
        outside |= {symbol.get_name() for each in within for symbol in each.get_symbols() if symbol.is_global()}
        for each in within:
            bound = {symbol.get_name() for symbol in each.get_symbols() if symbol.is_local()}
            yield from (f"{line(each)}: {name} in {table.get_name()}" for name in sorted(bound & outside))
    for child in table.get_children():
        yield from clashes(child)


def faults(text: str, file: str = "a.py") -> list[str]:
    table = symtable.symtable(told_apart(ast.parse(text)), file, "exec")
    return [f"{file}:{clash}" for clash in clashes(table)]


def test_no_comprehension_takes_a_name_from_another():
    found = [
        fault for file in FILES for fault in faults(file.read_text(encoding="utf-8"), file.relative_to(ROOT).as_posix())
    ]
    assert len(FILES) > 200 and found == []


GLOBAL = "def f():\n    {}"
CLOSURE = "def g(x):\n    def f():\n        {}\n    return f"


@pytest.mark.parametrize("around", [GLOBAL, CLOSURE], ids=["global", "closure"])
@pytest.mark.parametrize(
    "lines",
    [
        "[x for x in [1]]; return [x for _ in [1]]",
        "{x for x in [1]}; return {x: 1 for _ in [1]}",
        "{x: 1 for x in [1]}; return [[x for _ in [1]] for _ in [1]]",
        "[[x for x in [1]] for _ in [1]]; return [x for _ in [1]]",
        "return [x for _ in [x for x in [1]]]",
        "[lambda: x for x in [1]]; return [x for _ in [1]]",
        "return lambda: ([x for x in [1]], [x for _ in [1]])",
    ],
)
def test_what_a_comprehension_takes_is_found(around, lines):
    assert len(faults(around.format(lines))) == 1


@pytest.mark.parametrize("line", ["return lambda: x", "return list(x for _ in [1])", "return [lambda: x for _ in [1]]"])
def test_a_function_within_may_lose_a_name_of_a_closure_only(line):
    assert len(faults(CLOSURE.format("[x for x in [1]]; " + line))) == 1
    assert faults(GLOBAL.format("[x for x in [1]]; " + line)) == []


@pytest.mark.parametrize(
    "text",
    [
        "[x for x in [1]]; [x for _ in [1]]",  # a module's names and a class's are looked up by name
        "class C:\n    [x for x in [1]]; [x for _ in [1]]",
        GLOBAL.format("x = 3; [x for x in [1]]; return [x for _ in [1]]"),
        GLOBAL.format("[x for x in [1]]; return x"),
        GLOBAL.format("[x for x in [1]]; [x for x in [1]]; return (x for x in [1])"),
        GLOBAL.format("return [[x for _ in [1]] for x in [1]]"),
        GLOBAL.format("(x for x in [1]); return [x for _ in [1]]"),
        GLOBAL.format("[(x := one) for one in [1]]; return [x for _ in [1]]"),
    ],
)
def test_what_is_no_fault_stays(text):
    assert faults(text) == []
