"""The planner: a topology becomes stages, topics and groups. No I/O, no clock; the same input, the same plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sage.errors import InvalidTopology, UnknownName
from sage.graph.topology import Step, Topology
from sage.model.names import changelog_topic, edge_topic, group_id, journal_topic, retry_topic
from sage.plan.defaults import concurrency_of, execution_of, makes_calls, stage_options
from sage.plan.flow import Feed, Flow
from sage.plan.formats import Formats
from sage.plan.fusion import Chain, chains
from sage.plan.plan import Execution, Format, Plan, Stage, StageInput, StageOutput
from sage.plan.reasons import running_reasons
from sage.plan.support import refuse_unsupported
from sage.plan.topics import topic_specs

DEFAULT_TASKS = ("0",)
"""A source's tasks unless somebody asked it."""


def compile_plan(
    topology: Topology, *, source_tasks: Mapping[str, Sequence[str]] | None = None, fuse: bool = True
) -> Plan:
    """The plan of a topology.

    Args:
        topology: as the builder or the YAML reader gives it.
        source_tasks: the tasks of each source step, where the caller asked the sources; one task ``"0"`` else.
        fuse: cheap neighbours share a stage; without, every step has an edge of its own to look at.

    Raises:
        NotInThisVersion: it uses what this version doesn't have.
        InvalidTopology: its streams can't be laid over topics; ``source_tasks`` names no source, or no task.
    """
    refuse_unsupported(topology)
    return _Planning(topology, fuse=fuse).plan(source_tasks or {})


class _Planning:
    """One run of the planner."""

    def __init__(self, topology: Topology, *, fuse: bool) -> None:
        self.topology = topology
        self.flow = Flow(topology)
        self.formats = Formats(self.flow)
        self.chains = chains(self.flow, fuse=fuse)
        self.partitions: dict[str, int] = {}

    def plan(self, asked: Mapping[str, Sequence[str]]) -> Plan:
        # Outputs first, of every stage: they decide the partitions that inputs then know.
        drafts = [self._chain_outputs(chain) for chain in self.chains]
        copies = self._copies()
        stages = [self._chain_stage(chain, outputs) for chain, outputs in zip(self.chains, drafts, strict=True)]
        stages += [self._copy_stage(step, feeds, topics) for step, feeds, topics in copies]
        ordered = _ordered(stages, self.topology)
        tasks = self._tasks(ordered, asked)
        written = {output.topic for stage in ordered for output in stage.outputs}
        external = dict.fromkeys(i.topic for stage in ordered for i in stage.inputs if i.topic not in written)
        return Plan(
            topology=self.topology,
            stages=ordered,
            topics=topic_specs(self.topology, ordered, tasks, self.partitions),
            external=tuple(external),
            source_tasks=tasks,
        )

    # ------------------------------------------------------------------------------------ outputs

    def _chain_outputs(self, chain: Chain) -> tuple[StageOutput, ...]:
        """What a chain writes: its last step's edge, the edges of its branches, and topics by ``to``."""
        last = chain.last
        partitions = stage_options(chain.steps[0], self.topology).partitions or 1
        found: list[StageOutput] = []
        main = () if last.kind in {"route", "sink"} else (None,)
        for branch in (*main, *self.flow.branches(last)):
            found += self._stream_outputs(Feed(last.name, branch), partitions)
        # Only the error branch of a fused step can have readers: other readers would have ended the chain.
        for step in chain.steps[:-1]:
            for branch in self.flow.branches(step):
                found += self._stream_outputs(Feed(step.name, branch), partitions)
        return tuple(found)

    def _stream_outputs(self, feed: Feed, partitions: int) -> list[StageOutput]:
        readers = self.flow.readers(feed)
        direct = [reader for reader in readers if reader.is_topic and self.flow.writes_directly(reader)]
        found: list[StageOutput] = []
        # A stream that only goes to other topics needs no edge; one that nobody reads has one, for people.
        if not readers or len(direct) < len(readers):
            topic = edge_topic(self.topology.name, feed.step, feed.branch)
            self.partitions[topic] = partitions
            found.append(StageOutput(topic, feed.step, feed.branch, self.formats.of(feed)))
        topics = dict.fromkeys(reader.config["topic"] for reader in direct)
        return [*found, *(self._foreign_output(topic, feed, partitions) for topic in topics)]

    def _foreign_output(self, topic: str, feed: Feed, partitions: int) -> StageOutput:
        sinks = self.flow.topic_sinks[topic]
        self.partitions[topic] = next((s.options.partitions for s in sinks if s.options.partitions), partitions)
        written = self._written_as(topic, self.formats.of(feed))
        return StageOutput(topic, feed.step, feed.branch, written, owned=False)

    def _written_as(self, topic: str, given: Format) -> Format:
        """The format that a topic sink asks for, else that of what it is given."""
        asked: list[Format] = [
            sink.config["format"] for sink in self.flow.topic_sinks[topic] if "format" in sink.config
        ]
        return asked[0] if asked else given

    # ------------------------------------------------------------------------------------- inputs

    def _inputs(self, feeds: tuple[Feed, ...], reader: Step | None = None) -> tuple[StageInput, ...]:
        hops = {} if reader is None else self.flow.hops(reader)
        return tuple(self._input(feed, feed.label if len(feeds) > 1 else None, hops.get(feed)) for feed in feeds)

    def _input(self, feed: Feed, merges: str | None, max_hops: int | None) -> StageInput:
        step = self.flow.steps[feed.step]
        topic = step.config["topic"] if step.is_topic else edge_topic(self.topology.name, feed.step, feed.branch)
        return StageInput(
            topic=topic,
            partitions=self.partitions.get(topic),
            format=self.formats.of(feed),
            owned=not step.is_topic,
            upstream=feed.step,
            merges=merges,
            max_hops=max_hops,
        )

    # ------------------------------------------------------------------------------------- stages

    def _chain_stage(self, chain: Chain, outputs: tuple[StageOutput, ...]) -> Stage:
        first = chain.steps[0]
        source = first.kind == "source"
        inputs = () if source else self._inputs(self.flow.feeds(first), first)
        return self._stage(
            first, chain.steps, execution_of(first), inputs=inputs, outputs=outputs, reasons=chain.reasons
        )

    def _copies(self) -> list[tuple[Step, tuple[Feed, ...], tuple[str, ...]]]:
        """Stages without code: from topics to topics, as (the step that names it, what it reads, what it writes)."""
        of_source: dict[str, tuple[str, ...]] = {}
        found: list[tuple[Step, tuple[Feed, ...], tuple[str, ...]]] = []
        for topic, sinks in self.flow.topic_sinks.items():
            feeds = self.flow.sink_feeds(topic)
            if len(feeds) > 1:
                found.append((sinks[0], feeds, (topic,)))
            elif all(self.flow.is_topic(feed.step) for feed in feeds):
                for feed in feeds:
                    of_source[feed.step] = (*of_source.get(feed.step, ()), topic)
        found += [(self.flow.steps[name], (Feed(name),), topics) for name, topics in of_source.items()]
        for step, _, topics in found:
            for topic in topics:
                self.partitions[topic] = self._foreign_partitions(topic, step)
        return found

    def _foreign_partitions(self, topic: str, step: Step) -> int:
        asked = next((s.options.partitions for s in self.flow.topic_sinks[topic] if s.options.partitions), None)
        return asked or stage_options(step, self.topology).partitions or 1

    def _copy_stage(self, step: Step, feeds: tuple[Feed, ...], topics: tuple[str, ...]) -> Stage:
        merged = self.formats.merged(step, feeds)
        outputs = [StageOutput(to, step.name, None, self._written_as(to, merged), owned=False) for to in topics]
        reason = f"{step.name} copies {', '.join(feed.label for feed in feeds)} to {', '.join(topics)}: no code to run"
        return self._stage(step, (), "sync", inputs=self._inputs(feeds), outputs=tuple(outputs), reasons=(reason,))

    def _stage(
        self,
        named: Step,
        steps: tuple[Step, ...],
        execution: Execution,
        *,
        inputs: tuple[StageInput, ...],
        outputs: tuple[StageOutput, ...],
        reasons: tuple[str, ...],
    ) -> Stage:
        options = stage_options(named, self.topology)
        topology = self.topology.name
        concurrency = concurrency_of(named, named.options.over(self.topology.defaults)) if steps else 1
        stage = Stage(
            name=named.name,
            steps=steps,
            execution=execution,
            inputs=inputs,
            outputs=outputs,
            group="" if execution == "source" else group_id(self.topology.name, named.name),
            options=options,
            ordering=options.ordering or "key",
            concurrency=concurrency,
            retry_topic=retry_topic(topology, named.name) if inputs and steps else "",
            journal_topic=journal_topic(topology, named.name) if steps and self._makes_calls(named, execution) else "",
            changelog_topic=changelog_topic(topology, named.name) if named.kind == "process" else "",
            reasons=(*reasons, *running_reasons(named, execution, options, inputs, copies=not steps)),
        )
        # A value can be what its topic does not hold: such a letter is replayed like any other.
        return replace(stage, retry_topic=retry_topic(topology, named.name)) if stage.converts else stage

    def _makes_calls(self, step: Step, execution: Execution) -> bool:
        return makes_calls(step, execution, self.topology.memory)

    def _tasks(self, stages: tuple[Stage, ...], asked: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        sources = [stage.name for stage in stages if stage.execution == "source"]
        for name, tasks in asked.items():
            if name not in sources:
                raise UnknownName(f"there is no source {name!r} to have tasks")
            if not tasks or len(set(tasks)) != len(tasks):
                found = "no tasks" if not tasks else "the same task twice"
                raise InvalidTopology(f"source gives {found}", where=self.flow.steps[name].where)
        return {name: tuple(asked.get(name, DEFAULT_TASKS)) for name in sources}


def _ordered(stages: list[Stage], topology: Topology) -> tuple[Stage, ...]:
    """Stages so that each comes after those that write what it reads, also by way of a topic of ``to``."""
    place = {step.name: index for index, step in enumerate(topology.steps)}
    waiting = sorted(stages, key=lambda stage: place[stage.name])
    done: list[Stage] = []
    while waiting:
        pending = {output.topic for stage in waiting for output in stage.outputs}
        ready = next((s for s in waiting if not any(i.topic in pending for i in s.inputs if i.max_hops is None)), None)
        if ready is None:
            loop = sorted(pending & {i.topic for stage in waiting for i in stage.inputs})
            where = topology.by_name[waiting[0].name].where
            raise InvalidTopology(
                f"the topology reads what it writes ({', '.join(loop)}); a loop is written with "
                "stream.loop(max_hops=...), so that no record goes around for ever",
                where=where,
            )
        waiting.remove(ready)
        done.append(ready)
    return tuple(done)
