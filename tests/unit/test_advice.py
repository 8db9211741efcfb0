"""What errors, notes and help texts tell users to type exists: its verb and every option of it."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import CycloptsError, MissingArgumentError

from sage.cli import dispatch
from sage.cli.verbs import VERBS, Verb

ROOT = Path(__file__).parents[2]
ADVICE = re.compile(r"`sage ([a-z][^`]*)`")
PLANNED = {"dashboard", "serve", "chat", "trace"}
"""Verbs that say themselves that this version has not got them."""


def advised() -> Iterator[tuple[str, str]]:
    """Where something is told to be typed, and what."""
    for folder in ("sage", "connectors", "topologies"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
            for node in ast.walk(tree):
                if (text := _text(node)) is None or id(node) in parts:
                    continue
                for words in (each for found in ADVICE.findall(text) for each in _alternatives(found)):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", words  # type: ignore[attr-defined] # it has one


def _text(node: ast.AST) -> str | None:
    """A string as it is shown, with a 1 for whatever is put into it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "1" for part in node.values)
    return None


def _alternatives(words: str) -> list[str]:
    """`topology list|status` is two."""
    first, _, second = words.partition(" ")
    return [f"{first} {each}" for each in second.split("|")] if "|" in second else [words]


def _verb(words: list[str]) -> Verb | None:
    return next((verb for verb in VERBS.values() if tuple(words[: len(verb.path)]) == tuple(verb.path)), None)


def _complaint(words: str) -> str:
    """Why nobody can type this; empty where it can be."""
    typed = shlex.split(re.split(r" (?:>|&&) ", words)[0])
    if typed[0] in PLANNED or typed[-1] in {"...", "--help"}:
        return ""
    verb = _verb(typed)
    if verb is None:
        return "" if len(typed) == 1 and any(each.path[0] == typed[0] for each in VERBS.values()) else "no such verb"
    try:
        dispatch._app(verb).parse_args(typed[len(verb.path) :], exit_on_error=False, print_error=False)
    except MissingArgumentError as error:
        # What stands for itself may be left to the reader (`sage dlq list`), and so may the value of an option that is
        # only spoken of (`sage topology plan --save`).
        name = error.argument.names[0] if error.argument is not None else "--"
        return "" if not name.startswith("--") or name == typed[-1] else str(error)
    except CycloptsError as error:
        return str(error)
    return ""


def test_what_users_are_told_to_type_can_be_typed() -> None:
    found = list(advised())
    assert len(found) > 60
    wrong = [f"{place}: sage {words}: {complaint}" for place, words in found if (complaint := _complaint(words))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "words", ["groups reset 1 --to-earliest --execute", "topology rollback 1 --force", "topologies list", "dlq list -x"]
)
def test_what_can_not_be_typed_is_found(words: str) -> None:
    assert _complaint(words)
