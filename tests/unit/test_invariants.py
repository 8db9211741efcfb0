"""Every invariant that ARCHITECTURE.md states names a test that exists and can fail."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READ = ("tests", "sage.testing")
"""Packages whose functions are looked into: what a test calls there may assert for it."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Module:
    """The functions of one file.

    Attributes:
        functions: by name, methods by their bare name too: which class a call means can't be seen.
        imported: local name -> (module, name there), of what comes from ``READ``.
    """

    tree: ast.Module
    functions: dict[str, list[Function]] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    self.functions.setdefault(node.name, []).append(node)
                case ast.ClassDef(name=name, body=body):  # to make one is to call what it begins with
                    begins = [n for n in body if isinstance(n, Function) and n.name in {"__init__", "__enter__"}]
                    self.functions.setdefault(name, []).extend(begins)
                case ast.ImportFrom(module=str(module)) if module.startswith(READ):
                    self.imported |= {each.asname or each.name: (module, each.name) for each in node.names}


@cache
def module(name: str) -> Module | None:
    """A module of ``READ`` by its dotted name; ``None`` where there is none."""
    path = ROOT / Path(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return Module(ast.parse(file.read_text(encoding="utf-8"))) if file.is_file() else None


def asserts(function: Function, home: Module, seen: frozenset[int] = frozenset()) -> bool:
    """Whether something in a function, or in what it calls of its own module or of ``READ``, can fail it.

    What counts: an ``assert`` of anything but a constant, ``pytest.raises``, ``warns`` and ``fail``, and
    ``raise AssertionError``.
    """
    if id(function) in seen:
        return False
    seen |= {id(function)}
    return any(
        _is_assertion(node) or any(asserts(called, place, seen) for called, place in _called(node, home))
        for node in ast.walk(function)
    )


def _is_assertion(node: ast.AST) -> bool:
    match node:
        case ast.Assert(test=test):
            return not isinstance(test, ast.Constant)
        case ast.Attribute(value=ast.Name(id="pytest"), attr="raises" | "warns" | "fail" | "RaisesGroup"):
            return True
        case ast.Raise(exc=ast.Call(func=ast.Name(id="AssertionError")) | ast.Name(id="AssertionError")):
            return True
    return False


def _called(node: ast.AST, home: Module) -> Iterator[tuple[Function, Module]]:
    match node:
        case ast.Call(func=ast.Name(id=name)):
            yield from ((each, home) for each in home.functions.get(name, ()))
            yield from _of_import(name, home)
        case ast.Call(
            func=ast.Attribute(attr=name)
        ):  # a method: of a class here, or of one that a name here comes with
            yield from ((each, home) for each in home.functions.get(name, ()))
            for origin in {origin for origin, _ in home.imported.values()}:
                if (there := module(origin)) is not None:
                    yield from ((each, there) for each in there.functions.get(name, ()))


def _of_import(name: str, home: Module) -> Iterator[tuple[Function, Module]]:
    while name in home.imported:
        origin, name = home.imported[name]
        there = module(origin)
        if there is None:
            return
        yield from ((each, there) for each in there.functions.get(name, ()))
        home = there


@cache
def all_tests() -> dict[str, list[tuple[Function, Module]]]:
    """All tests by name; some names are used in several files."""
    found: dict[str, list[tuple[Function, Module]]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        home = module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        assert home is not None
        for name, functions in home.functions.items():
            if name.startswith("test_"):
                found.setdefault(name, []).extend((each, home) for each in functions)
    return found


def invariants() -> list[str]:
    """The rows of the table."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    return [line for line in text.partition("## Invariants")[2].splitlines() if line.startswith("| ")][1:]


def test_every_invariant_names_tests_that_there_are_and_that_can_fail() -> None:
    lines = invariants()
    assert len(lines) > 20
    for line in lines:
        named = re.findall(r"`(test_\w+)`", line)
        assert named, f"no test is named: {line}"
        assert set(named) <= set(all_tests()), f"there is no {set(named) - set(all_tests())}"
        for name in named:
            for function, home in all_tests()[name]:
                assert asserts(function, home), f"{name} (line {function.lineno}) asserts nothing"


@pytest.mark.parametrize(
    ("body", "can_fail"),
    [
        ("    assert f() == 1", True),
        ("    assert True", False),
        ("    f()", False),
        ("    with pytest.raises(ValueError): f()", True),
        ("    helper()", True),
        ("    indirect()", True),
        ("    Thing().check()", True),
        ("    Thing().look()", False),
        ("    wait_until(lambda: f())", True),
        ("    everything(1, 'topic')", True),
        ("    around()", False),
    ],
)
def test_what_counts_as_a_test_that_can_fail(body: str, can_fail: bool) -> None:
    code = f"""
from tests.support.waiting import wait_until
from tests.support.records import everything
def f(): return 1
def helper(): assert f() == 1
def indirect(): helper()
def around(): around()
class Thing:
    def check(self): assert self.look()
    def look(self): return 1
def test_it():
{body}
"""
    home = Module(ast.parse(code))
    (function,) = home.functions["test_it"]
    assert asserts(function, home) is can_fail
