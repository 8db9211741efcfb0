"""Which steps share a stage: cheap neighbours pass values as Python objects instead of over a topic."""

from __future__ import annotations

from dataclasses import dataclass

from sage.graph.topology import Step
from sage.graph.waits import waits
from sage.plan.defaults import execution_of, waiting
from sage.plan.flow import Flow
from sage.plan.formats import ERROR_BRANCH

_LAST = frozenset({"key_by", "route"})
"""Kinds after which records go to other partitions or topics, so that nothing can follow in the stage."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The steps of one stage, in order, with the reason for each place."""

    steps: tuple[Step, ...]
    reasons: tuple[str, ...]

    @property
    def last(self) -> Step:
        """The step whose output the stage writes."""
        return self.steps[-1]


def chains(flow: Flow, *, fuse: bool = True) -> list[Chain]:
    """Every step that runs, each in exactly one chain, in topological order of their first steps."""
    found: dict[str, Chain] = {}
    chain_of: dict[str, str] = {}
    for step in flow.topology.steps:
        if step.kind == "union" or step.is_topic:
            continue
        reason = cut_reason(step, flow)
        if reason is None and not fuse:
            reason = f"{step.name} begins a stage: nothing is to be fused"
        if reason is not None:
            found[step.name] = Chain((step,), (reason,))
            chain_of[step.name] = step.name
            continue
        upstream = flow.feeds(step)[0].step
        first = chain_of[upstream]
        fused = f"{step.name} is fused onto {upstream}: sync, stateless, no options of its own, its only reader"
        found[first] = Chain((*found[first].steps, step), (*found[first].reasons, fused))
        chain_of[step.name] = first
    return list(found.values())


def cut_reason(step: Step, flow: Flow) -> str | None:
    """Why a step begins a stage; ``None`` if it goes on in its predecessor's."""
    if step.kind == "source":
        return f"{step.name} is a source: it has a stage of its own, so that every record has an offset"
    feeds = flow.feeds(step)
    begins = f"{step.name} begins a stage"
    if len(feeds) != 1:
        return f"{begins}: it reads {len(feeds)} streams"
    (feed,) = feeds
    upstream = flow.steps[feed.step]
    if upstream.is_topic:
        return f"{begins}: it reads the topic {upstream.config['topic']}"
    if upstream.kind == "source":
        return f"{begins}: {upstream.name} is a source, and nothing fuses onto a source"
    if step.kind == "sink":
        return f"{begins}: it is a sink"
    if feed.branch is not None:
        return f"{begins}: it reads the branch {feed.branch} of {upstream.name}"
    return _own_reason(step, begins) or _upstream_reason(upstream, flow, begins)


def _own_reason(step: Step, begins: str) -> str | None:
    if step.kind == "process":
        return f"{begins}: it has keyed state"
    if waits(step) is not None:
        return f"{begins}: it {waiting(step)}"
    if not step.options.is_default:
        return f"{begins}: it has options of its own ({', '.join(sorted(step.options.model_fields_set))})"
    return None


def _upstream_reason(upstream: Step, flow: Flow, begins: str) -> str | None:
    if upstream.kind == "process":
        return f"{begins}: {upstream.name} has keyed state"
    if upstream.kind in _LAST:
        effect = "gives records new keys" if upstream.kind == "key_by" else "sends records to several topics"
        return f"{begins}: {upstream.name} {effect}"
    if execution_of(upstream) != "sync":
        return f"{begins}: {upstream.name} {waiting(upstream)}"
    consumers = [each for each in flow.consumers(upstream.name) if each[1] != ERROR_BRANCH]
    if len(consumers) > 1:
        return f"{begins}: {upstream.name} has {len(consumers)} readers"
    return None
