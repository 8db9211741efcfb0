"""The topics that a topology's names make, and where two of them would be one to Kafka."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sage.errors import InvalidTopology, SageError
from sage.graph.topology import Step, Topology
from sage.model.names import RESERVED, changelog_topic, edge_topic, folded, journal_topic, retry_topic

_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def topic_problems(topology: Topology) -> list[SageError]:
    """Topics that can't be made, or that would be mixed up with another one."""
    problems: list[SageError] = []
    own: dict[str, tuple[str, str]] = {}
    for step, topic, what in _edges(topology):
        taken = own.setdefault(folded(topic), (topic, what))
        if taken[1] != what:
            problems.append(
                InvalidTopology(f"{what} and {taken[1]} would share the topic {topic}; rename one", where=step.where)
            )
        if len(topic) > 249 - len(".changelog"):
            problems.append(InvalidTopology(f"topic {topic[:40]}... is too long; use shorter names", where=step.where))
    for step in topology.steps:
        problems += _kept_problems(topology.name, step, own)
    for reserved in RESERVED:
        topic = f"{topology.name}.{reserved}"
        own.setdefault(folded(topic), (topic, "SAGE's own topic"))
    foreign: dict[str, str] = {}
    for step in topology.steps:
        if step.is_topic and "topic" in step.config:  # one without is told by the check of its configuration
            problems += _foreign_problems(step, own, foreign)
    return problems


def _edges(topology: Topology) -> Iterator[tuple[Step, str, str]]:
    """Every edge that a step could write: (step, topic, what it is)."""
    read: dict[str, set[str]] = {}
    for step in topology.steps:
        for given in step.inputs:
            if given.branch is not None:
                read.setdefault(given.step, set()).add(given.branch)
    for step in topology.steps:
        if step.is_topic or step.kind in {"sink", "union"}:
            continue
        if step.kind != "route":
            yield step, edge_topic(topology.name, step.name), f"step {step.name}"
        branches = {*step.branches, *read.get(step.name, ()), *filter(None, [step.default_branch])}
        for branch in sorted(branches, key=str):  # one that is no text is a problem of its own
            yield step, edge_topic(topology.name, step.name, branch), f"branch {step.name}.{branch}"


def _kept_problems(topology: str, step: Step, own: dict[str, tuple[str, str]]) -> Iterator[SageError]:
    """Topics beside a step's edge, whose names are taken whether it needs them now or not: ``a`` has ``t.a.retry``,
    which is ``t.a_retry`` to Kafka, the edge of a step of that name."""
    if step.kind in {"source", "union"} or step.is_topic:
        return
    kept = {
        retry_topic(topology, step.name): "its retries",
        journal_topic(topology, step.name): "its journal",
        changelog_topic(topology, step.name): "its state",
    }
    for topic, what in kept.items():
        taken = own.setdefault(folded(topic), (topic, f"step {step.name}"))
        if taken[0] != topic:
            yield InvalidTopology(
                f"{taken[1]} would share its topic {taken[0]} with that of {step.name} for {what}, {topic}: "
                "Kafka takes . and _ for the same; rename one",
                where=step.where,
            )


def _foreign_problems(step: Step, own: dict[str, tuple[str, str]], foreign: dict[str, str]) -> Iterator[SageError]:
    topic = step.config.get("topic")
    where = step.where_of("config.topic")
    if not isinstance(topic, str) or not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
        allowed = "1 to 249 letters, digits, '.', '_' and '-'"
        yield InvalidTopology(f"{topic!r} is not a topic's name; use {allowed}", where=where)
        return
    if step.kind == "sink" and topic.startswith("__"):
        yield InvalidTopology(f"topic {topic} is Kafka's or SAGE's own; write to another", where=where)
    if folded(topic) in own:
        theirs, what = own[folded(topic)]
        verb = "write" if step.kind == "sink" else "read"
        remedy = "use another topic" if step.kind == "sink" else "read from the step instead"
        yield InvalidTopology(f"can't {verb} topic {topic}: {theirs} is {what}'s; {remedy}", where=where)
    other = foreign.setdefault(folded(topic), topic)
    if other != topic:
        yield InvalidTopology(
            f"topics {other} and {topic} are one to Kafka, which takes . and _ for the same", where=where
        )
