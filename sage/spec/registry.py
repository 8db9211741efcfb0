"""The registry: which operators, sources and sinks are installed, by name.

A registry is a value. Names come from the entry-point groups ``sage.operators``, ``sage.sources`` and
``sage.sinks`` of the installed distributions; listing them imports none of the components.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, get_args

from sage.errors import InvalidTopology, UnknownName
from sage.spec.component import Component, Operator, Sink, Source
from sage.spec.reference import is_reference, reference_of, resolve_reference
from sage.spec.suggest import hint

ComponentKind = Literal["operator", "source", "sink"]

_BASES: dict[str, type[Component]] = {"operator": Operator, "source": Source, "sink": Sink}


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered component: ``value`` is its reference, ``distribution`` who brought it."""

    kind: ComponentKind
    name: str
    value: str
    distribution: str = ""

    def load(self) -> type[Component]:
        """Import the component.

        Raises:
            InvalidTopology: its module can't be imported, or it is no component of this kind.
        """
        try:
            found = resolve_reference(self.value)
        except InvalidTopology as error:
            origin = f" of {self.distribution}" if self.distribution else ""
            raise InvalidTopology(f"{self.kind} {self.name}{origin} cannot be loaded: {error.message}") from error
        if not (isinstance(found, type) and issubclass(found, _BASES[self.kind])):
            raise InvalidTopology(f"{self.kind} {self.name}: {self.value} is not a {_BASES[self.kind].__name__} class")
        return found


class Registry:
    """Registered components by kind and name."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: dict[tuple[str, str], list[Entry]] = {}
        for entry in entries:
            same = self._entries.setdefault((entry.kind, entry.name), [])
            if all(other.value != entry.value for other in same):
                same.append(entry)

    @classmethod
    def installed(cls) -> Registry:
        """What the installed distributions register; read once per process."""
        return _installed()

    def entries(self, kind: ComponentKind) -> tuple[Entry, ...]:
        """The components of one kind, by name."""
        found = [same[0] for (its_kind, _), same in self._entries.items() if its_kind == kind]
        return tuple(sorted(found, key=lambda entry: entry.name))

    def names(self, kind: ComponentKind) -> tuple[str, ...]:
        """The registered names of one kind, sorted."""
        return tuple(entry.name for entry in self.entries(kind))

    def load(self, kind: ComponentKind, text: str, *, folder: Path | None = None) -> Any:
        """The component of that name, or what the reference ``text`` names in user code beside ``folder``.

        Raises:
            UnknownName: nothing has that name, or no module or attribute is there.
            InvalidTopology: two distributions register the name, or importing fails.
        """
        if ":" in text or not self.has(kind, text):
            if is_reference(text):
                return resolve_reference(text, folder=folder)
            raise UnknownName(self._unknown(kind, text))
        same = self._entries[kind, text]
        if len(same) > 1:
            owners = " and ".join(f"{entry.distribution or 'somebody'} ({entry.value})" for entry in same)
            raise InvalidTopology(f"{kind} {text} is registered twice, by {owners}; write the reference instead")
        return same[0].load()

    def has(self, kind: ComponentKind, name: str) -> bool:
        """Whether a component of that kind is registered as ``name``."""
        return (kind, name) in self._entries

    def name_of(self, target: Any) -> str:
        """The text that names ``target`` in YAML: its registered name, else its reference, else nothing."""
        reference = reference_of(target)
        if not isinstance(target, type):
            return reference
        attribute = target.__qualname__
        for (_, name), (entry, *others) in self._entries.items():
            if others or entry.value.rpartition(":")[2] != attribute:
                continue
            # Only modules that are loaded can hold the class: naming one must not import the others.
            module = sys.modules.get(entry.value.rpartition(":")[0])
            if entry.value == reference or (module is not None and getattr(module, attribute, None) is target):
                return name
        return reference

    def _unknown(self, kind: ComponentKind, text: str) -> str:
        for other in get_args(ComponentKind):
            if other != kind and self.has(other, text):
                return f"{text!r} is {_article(other)}, not {_article(kind)}; write {other}: {text}"
        found = hint(text, self.names(kind), what=f"registered {kind}s")
        if "." in text and kind == "operator":
            module, _, name = text.rpartition(".")
            found = f"a function or class of your own is written {module}:{name}"
        return f"unknown {kind} {text!r}; {found}"


def _article(kind: str) -> str:
    return f"an {kind}" if kind == "operator" else f"a {kind}"


@functools.cache
def _installed() -> Registry:
    found: list[Entry] = []
    kinds: Sequence[ComponentKind] = ("operator", "source", "sink")
    for kind in kinds:
        for point in entry_points(group=f"sage.{kind}s"):
            owner = point.dist.name if point.dist is not None else ""
            found.append(Entry(kind, point.name, point.value, owner))
    return Registry(found)
