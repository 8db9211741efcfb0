"""Who really feeds whom: unions are no stages, and topic sources and sinks no actors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from sage.errors import InvalidTopology
from sage.graph.loops import back_edges
from sage.graph.topology import Step, Topology


class Feed(NamedTuple):
    """One stream of values: a step's output, a branch of it, or (of a topic source) a foreign topic."""

    step: str
    branch: str | None = None

    @property
    def label(self) -> str:
        """A name for it that is a legal part of a record id."""
        return self.step if self.branch is None else f"{self.step}-{self.branch}"


class Flow:
    """The topology's graph with its unions taken out."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.steps = topology.by_name
        self._back = back_edges(topology.steps)

    def feeds(self, step: Step) -> tuple[Feed, ...]:
        """What a step reads, through unions, in order.

        Raises:
            InvalidTopology: the same stream reaches it on two ways.
        """
        found = tuple(self._through_unions(step))
        for feed in found:
            if found.count(feed) > 1:
                raise InvalidTopology(f"reads {feed.label} twice, by way of a union; once is enough", where=step.where)
        return found

    def _through_unions(self, step: Step, seen: tuple[str, ...] = ()) -> Iterator[Feed]:
        for given in step.inputs:
            upstream = self.steps[given.step]
            if upstream.kind != "union":
                yield Feed(given.step, given.branch)
            elif upstream.name not in seen:
                yield from self._through_unions(upstream, (*seen, upstream.name))

    def hops(self, step: Step) -> dict[Feed, int]:
        """What comes back to a step over a loop that it reads, and how often a record may."""
        found: dict[Feed, int] = {}
        waiting, seen = [self.steps[given.step] for given in step.inputs], set[str]()
        while waiting:
            union = waiting.pop()
            if union.kind != "union" or union.name in seen:
                continue
            seen.add(union.name)
            for given in union.inputs:
                if (union.name, given) in self._back and union.max_hops is not None:
                    found[Feed(given.step, given.branch)] = union.max_hops
                waiting.append(self.steps[given.step])
        return found

    @cached_property
    def _readers(self) -> dict[Feed, tuple[Step, ...]]:
        found: dict[Feed, tuple[Step, ...]] = {}
        for step in self.topology.steps:
            if step.kind != "union":
                for feed in self.feeds(step):
                    found[feed] = (*found.get(feed, ()), step)
        return found

    def readers(self, feed: Feed) -> tuple[Step, ...]:
        """The steps that read exactly this stream, unions aside."""
        return self._readers.get(feed, ())

    def consumers(self, step: str) -> tuple[tuple[Step, str | None], ...]:
        """Everything that reads a step: (reader, branch read)."""
        return tuple(
            (reader, feed.branch) for feed, readers in self._readers.items() if feed.step == step for reader in readers
        )

    def branches(self, step: Step) -> tuple[str, ...]:
        """A step's branches: all of a route; of others those that somebody reads."""
        if step.kind == "route":
            default = () if step.default_branch is None else (step.default_branch,)
            read = (branch for _, branch in self.consumers(step.name) if branch is not None)
            return tuple(dict.fromkeys((*step.branches, *default, *read)))
        return tuple(dict.fromkeys(branch for _, branch in self.consumers(step.name) if branch is not None))

    def is_topic(self, name: str) -> bool:
        """Whether the step is a topic source or sink."""
        return self.steps[name].is_topic

    @cached_property
    def topic_sinks(self) -> dict[str, tuple[Step, ...]]:
        """Topic sinks by the topic they write."""
        found: dict[str, tuple[Step, ...]] = {}
        for step in self.topology.steps:
            if step.kind == "sink" and step.is_topic:
                found[step.config["topic"]] = (*found.get(step.config["topic"], ()), step)
        return found

    def sink_feeds(self, topic: str) -> tuple[Feed, ...]:
        """Everything that is written to a topic by ``to``, each stream once."""
        return tuple(dict.fromkeys(feed for sink in self.topic_sinks[topic] for feed in self.feeds(sink)))

    def writes_directly(self, sink: Step) -> bool:
        """Whether the one stream of a topic sink can be written by the stage that makes it.

        Several streams are merged by a stage of their own, which keeps their record ids apart.
        """
        feeds = self.sink_feeds(sink.config["topic"])
        return len(feeds) == 1 and not self.is_topic(feeds[0].step)
