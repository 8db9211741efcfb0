"""How the values of a stream are encoded on its topic."""

from __future__ import annotations

import types
from functools import cache
from typing import Any, Union, get_args, get_origin

from sage.errors import InvalidTopology
from sage.graph.topology import Step
from sage.plan.flow import Feed, Flow
from sage.plan.plan import Format
from sage.spec.shape import shape_of

ERROR_BRANCH = "error"
"""The branch of a step that takes its failed records."""

_PASSING = frozenset({"filter", "key_by", "route"})
"""Kinds whose output is their input."""


class Formats:
    """The format of every stream of one topology."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self.of = cache(self._of)

    def _of(self, feed: Feed) -> Format:
        """A stream's format: of a topic source as declared, of bytes as they are, of all others JSON.

        Raises:
            InvalidTopology: a step that hands its input on reads bytes beside other values.
        """
        step = self._flow.steps[feed.step]
        if step.is_topic:
            declared: Format = step.config.get("format", "json")
            return declared
        if feed.branch == ERROR_BRANCH:
            return self.merged(step, self._flow.feeds(step))  # failed records go there as they came
        if step.kind in _PASSING:
            back = self._flow.hops(step)  # what comes back left as what it came as
            return self.merged(step, tuple(each for each in self._flow.feeds(step) if each not in back))
        if feed.branch is not None:
            return "json"
        return "bytes" if _is_bytes(shape_of(step.target, step.kind).output_type) else "json"

    def merged(self, step: Step, feeds: tuple[Feed, ...]) -> Format:
        """The one format of several streams that ``step`` hands on."""
        found: set[Format] = {self.of(feed) for feed in feeds}
        if len(found) == 1:
            return found.pop()
        if "bytes" in found:
            raw = next(feed.label for feed in feeds if self.of(feed) == "bytes")
            raise InvalidTopology(f"{raw} gives bytes and its other inputs don't; decode them first", where=step.where)
        return "json"


def _is_bytes(annotation: Any) -> bool:
    if get_origin(annotation) in {Union, types.UnionType}:
        members = [member for member in get_args(annotation) if member is not type(None)]
        return bool(members) and all(_is_bytes(member) for member in members)
    return isinstance(annotation, type) and issubclass(annotation, bytes)
