"""Whoever may write to a topic may not run code here: what comes is data, and nothing of SAGE makes code of data."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.acting import committed, turn
from tests.unit.runtime.bench import Bench, at, text

ROOT = Path(__file__).parents[3]
UNSAFE_MODULES = frozenset(
    {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "jsonpickle", "marshal", "shelve", "code"}
)
UNSAFE_CALLS = frozenset({"eval", "exec", "compile", "__import__"})
UNSAFE_ATTRIBUTES = frozenset({"unsafe_load", "full_load", "UnsafeLoader", "FullLoader", "allow_pickle"})


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """What is there when a bomb went off."""
    path = tmp_path / "gone-off"
    yield path
    assert not path.exists(), "what came on a topic was executed"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_on_a_topic_of_json_is_a_dead_letter_and_is_not_executed(mark: Path, protocol: int) -> None:
    pickled = pickle.dumps(Bomb(mark), protocol)
    bench = Bench(lambda stream: stream.map(lambda value: value, name="work").to("out"))
    actor = bench.actor()
    bench.feed(pickled, b'{"n": 1}', raw=True)
    turn(bench, actor, times=4)
    assert bench.out() == [{"n": 1}]
    (letter,) = bench.dead()
    assert letter.value() == pickled, "as it came, for people to look at"
    assert text(letter)["__connect.errors.exception.class.name"].endswith("DecodeFailure")
    assert committed(bench) == {at(): 2}


def test_a_pickle_on_a_topic_of_bytes_is_bytes_and_is_not_executed(mark: Path) -> None:
    pickled = pickle.dumps(Bomb(mark))
    seen: list[Any] = []

    def look(value: bytes) -> int:
        seen.append(value)
        return len(value)

    bench = Bench(lambda stream: stream.map(look, name="work").to("out"), format="bytes")
    actor = bench.actor()
    bench.feed(pickled, raw=True)
    turn(bench, actor, times=3)
    assert seen == [pickled]
    assert bench.out() == [len(pickled)]


def test_the_bombs_of_these_tests_go_off_where_they_are_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "gone-off")))
    assert (tmp_path / "gone-off").exists()


def unsafe(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines of a module that could make code of data."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, n.name) for n in names if n.name.partition(".")[0] in UNSAFE_MODULES)
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in UNSAFE_MODULES:
                yield node.lineno, module
            case ast.Call(func=ast.Name(id=name)) if name in UNSAFE_CALLS:
                yield node.lineno, f"{name}()"
            case ast.Attribute(attr=name) if name in UNSAFE_ATTRIBUTES:
                yield node.lineno, name
            case ast.keyword(arg=str(name)) if name in UNSAFE_ATTRIBUTES:
                yield node.value.lineno, name


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from marshal import loads", "import yaml, dill as d", "x = eval(y)", "exec(data)",
     "yaml.load(t, Loader=yaml.UnsafeLoader)", "numpy.load(f, allow_pickle=True)"],
)  # fmt: skip
def test_the_search_finds_what_makes_code_of_data(line: str) -> None:
    assert list(unsafe(ast.parse(line)))


def test_nothing_in_sage_makes_code_of_data() -> None:
    files = [path for folder in ("sage", "connectors", "topologies") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 300
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in files
        for line, what in unsafe(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "\n".join(found)
