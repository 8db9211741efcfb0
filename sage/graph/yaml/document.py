"""A YAML text as plain values, with the line and column of each: YAML 1.2, no tags of its own, no doubles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sage.errors import InvalidTopology, SageError
from sage.graph.topology import Origin

Path = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_SCALARS = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp"))
_COLLECTIONS = frozenset({_TAG + "map", _TAG + "seq"})
_MERGE = _TAG + "merge"
_MOST_NODES = 100_000
"""Aliases of aliases can make a small text huge; no topology is."""


class Place(NamedTuple):
    """A line and a column, both from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Document:
    """A read text: its values, and where each key and list item stands."""

    file: str
    data: Any
    places: Mapping[Path, Place] = field(default_factory=dict)

    def origin(self, path: Path) -> Origin:
        """The place of what ``path`` leads to; of the nearest thing around it that was written."""
        written = path
        while written and written not in self.places:
            written = written[:-1]
        place = self.places.get(written, Place(1, 1))
        return Origin(self.file, place.line, place.column, ".".join(map(str, path)))


def read_document(text: str, file: str) -> tuple[Document, list[SageError]]:
    """The values of a text, and what in it is no plain YAML: doubled keys, tags, keys that are no text.

    Raises:
        InvalidTopology: it is not YAML, or holds more than one document.
    """
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark is not None else file
        told = ", ".join(filter(None, (error.context, error.problem)))
        raise InvalidTopology(f"not valid YAML: {' '.join(told.split())}", where=place) from error
    except YAMLError as error:
        raise InvalidTopology(f"not valid YAML: {' '.join(str(error).split())}", where=file) from error
    except RecursionError as error:
        raise InvalidTopology("not a topology: it is nested too deeply", where=file) from error
    if node is None:
        return Document(file, None), []
    reading = _Reading(file)
    data = reading.value(node, ())
    return Document(file, data, reading.places), reading.problems


class _Reading:
    """One walk over the nodes of a text."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.places: dict[Path, Place] = {}
        self.problems: list[SageError] = []
        self._scalars = YAML(typ="safe", pure=True).constructor
        self._open: set[int] = set()
        self._count = 0

    def value(self, node: Node, path: Path) -> Any:
        """The plain value of a node; its place is recorded under ``path``."""
        self._count += 1
        if self._count > _MOST_NODES:
            raise InvalidTopology(f"has more than {_MOST_NODES} values; aliases too?", where=self.file)
        self.places.setdefault(path, _place(node))
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if node.tag not in _COLLECTIONS:
            self._problem(node, path, f"tag {node.tag} is not allowed; write plain values")
            return None
        if id(node) in self._open:
            self._problem(node, path, "is an alias of what it stands in; write the value")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, path)
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        if node.tag not in _SCALARS:
            self._problem(node, path, f"tag {node.tag} is not allowed; write plain values")
            return None
        if node.tag == _TAG + "timestamp":  # JSON has no dates: the text is the value
            return node.value
        try:
            return self._scalars.construct_object(node)
        except (YAMLError, ValueError) as error:
            self._problem(node, path, f"{node.value!r} is not what its tag says: {' '.join(str(error).split())}")
            return None

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                for source in self._merged(value, path):
                    merged = {**self._mapping(source, path), **merged}
                continue
            if not isinstance(key, ScalarNode):
                self._problem(key, path, "a key must be a text")
                continue
            here = (*path, key.value)
            if key.value in found:
                first = self.places[here]
                self._problem(key, here, f"is given twice, in line {first.line} too; keep one")
                continue
            self.places[here] = _place(key)
            found[key.value] = self.value(value, here)
        return {**merged, **found}

    def _merged(self, node: Node, path: Path) -> Iterator[MappingNode]:
        sources = node.value if isinstance(node, SequenceNode) else [node]
        for source in sources:
            if isinstance(source, MappingNode) and id(source) not in self._open:
                self._count += len(source.value)
                yield source
            else:
                self._problem(node, path, "<< takes the alias of a mapping, or a list of them")

    def _problem(self, node: Node, path: Path, what: str) -> None:
        place = _place(node)
        origin = Origin(self.file, place.line, place.column, ".".join(map(str, path)))
        self.problems.append(InvalidTopology(what, where=str(origin)))


def _place(node: Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)
