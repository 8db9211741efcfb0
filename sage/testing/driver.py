"""The topology driver: a topology in memory, in virtual time, on one thread, with the runtime's own actors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from sage.errors import InvalidTopology, NotInThisVersion, SageError
from sage.graph.builder import StreamBuilder
from sage.graph.topology import Topology
from sage.model.duration import seconds
from sage.model.identity import SAGE_ID, source_root
from sage.model.json import Json
from sage.model.keys import encode_key
from sage.model.partition import TopicPartition
from sage.model.record import Headers, Record
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.ports import Embedder, TopicSpec, Tracer
from sage.runtime.codec import encode
from sage.testing.broker import InMemoryClients
from sage.testing.overrides import Override, apply_overrides, step_named
from sage.testing.results import DeadRecord, Results
from sage.testing.services import ScriptedServices
from sage.testing.stages import DriverClients, Stages
from sage.testing.virtual_time import ManualClock
from sage.tracing.idle import IdleTracer

if TYPE_CHECKING:
    from sage.memory.manager import MemoryManager

SETTLING = 0.09
"""Seconds that pass with each ``send``: micro-batches fill and are committed, and no retry is due yet."""

SLICE = 0.06
"""Seconds between looks at stages that have just worked: longer than an idle stage waits with its commit."""


class TopologyDriver:
    """Drives a topology as its workers would, where a test can see and break everything.

    ::

        with TopologyDriver(env, overrides={"generate": ScriptedChatModel(["20 days."])}) as driver:
            driver.send({"query": "How many days of leave?"})
            assert driver.outputs("generate")[0]["answer"] == "20 days."

    Steps are never fused here, so every step's output can be looked at. Sources are not read: ``send`` stands
    for them. Sinks are the real ones, unless they are overridden. Steps are opened at the first ``send``, so
    that ``memory`` can be filled before.

    Args:
        target: a topology, an environment, or the path of a YAML file.
        overrides: by step: a ``ChatModel`` for a step that calls one, or a function (or ``Operator`` class) in
            place of the step's own.
        embedder: for all of the topology's memory; ``MockTextEmbedder()`` by default.
        tracer: where spans go; nowhere by default.
        environ: variables for ``${VAR}``; this process's by default.

    Raises:
        InvalidTopology: the topology can't run as it is, or an override doesn't fit.
        SageError: this is an asynchronous function; the driver has a loop of its own.
    """

    def __init__(
        self,
        target: Topology | StreamBuilder | str | Path,
        overrides: Mapping[str, Override] | None = None,
        *,
        embedder: Embedder | None = None,
        tracer: Tracer | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        _refuse_running_loop()
        variables = os.environ if environ is None else environ
        topology, chat_models = apply_overrides(_topology_of(target, variables), overrides or {})
        self.plan: Plan = compile_plan(topology, fuse=False)
        self.clock = ManualClock()
        self._clients = DriverClients(self.clock)
        self._services = ScriptedServices(chat_models, embedder)
        self._stages = Stages(self.plan, self._clients, self._services, tracer or IdleTracer(), self.clock, variables)
        self._results = Results(self.plan, self._clients)
        self._producer = self._clients.producer()
        self._sent = 0
        self._started = False

    # ------------------------------------------------------------------------------------------- life

    def start(self) -> None:
        """Make topics and open the steps, as the first ``send`` does; twice is fine. Raises what a step raises."""
        if self._started:
            return
        self._started = True
        partitions = self.plan.topology.defaults.partitions or 1
        self._clients.admin().create([TopicSpec(topic, partitions) for topic in self.plan.external])
        self._stages.start()
        self._stages.pump()

    def close(self) -> None:
        """Close the steps. Raises what the first of them raises."""
        try:
            self._stages.close()
        finally:
            self._services.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception:
            if error is None:  # else the test has failed already, and says more
                raise

    @property
    def topology(self) -> Topology:
        """The topology that runs, overrides included."""
        return self.plan.topology

    @property
    def broker(self) -> InMemoryClients:
        """The Kafka underneath, for its own faults: refused records, failed commits, an outage."""
        return self._clients

    @property
    def memory(self) -> MemoryManager:
        """The memory that steps reach."""
        return self._services.memory

    # ----------------------------------------------------------------------------------------- moving

    def send(
        self,
        value: Any,
        key: Json | bytes = None,
        headers: Headers | Mapping[str, str | bytes | None] | None = None,
        to: str | None = None,
    ) -> None:
        """Give the topology one record, and let everything happen that it causes at once.

        Args:
            value: what a source would give: JSON values, models, or bytes, which are sent as they are, also
                where the topic holds JSON.
            key: text, bytes, or another JSON value; ``None`` is no key.
            headers: the record's own.
            to: the source whose record this is (by default the first), or another step, to whose input it goes.

        Raises:
            SageError: a stage stopped.
            UnknownName: there is no such step.
        """
        self.start()
        topic, own = self._entry(to)
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers or ())
        sent = [(name, text.encode() if isinstance(text, str) else text) for name, text in pairs]
        self._sent += 1
        if own is not None:
            sent.append((SAGE_ID, source_root("driver", own, "0", self._sent).encode()))
        self._producer.produce(topic, self._encoded(topic, value), encode_key(key), sent)
        self._producer.flush(0)
        self.advance(SETTLING)

    def advance(self, duration: float | str) -> None:
        """Let time pass: seconds, or a text such as ``"2m"``. Timers, retries and batches come due in order.

        Raises:
            SageError: a stage stopped.
        """
        self.start()
        end = self.clock.monotonic() + seconds(duration)
        moved = self._stages.pump()
        while self.clock.monotonic() < end:
            until = end if not moved else min(end, self.clock.monotonic() + SLICE)
            timer = self._stages.next_timer
            self.clock.advance_to(until if timer is None else min(until, timer))
            moved = self._stages.pump()

    def fail_next(self, step: str, exception: BaseException, times: int = 1) -> None:
        """Have the next ``times`` calls of a step's code raise ``exception``.

        Raises:
            InvalidTopology: it has no code that could fail, such as a source, which is not read here.
        """
        step_named(self.topology, step)
        self.start()
        self._stages.probes.fail_next(step, exception, times)

    def crash(self) -> None:
        """Lose everything that is not committed from memory, as by kill -9, and start again.

        What was read and not committed is read again; outputs that were produced stay.
        """
        self.start()
        self._stages.crash()
        self.advance(SETTLING)

    # ---------------------------------------------------------------------------------------- looking

    def outputs(self, step: str) -> list[Any]:
        """The values that a step (or a branch, ``"step.branch"``) gave, or that a sink was given, in order.

        The order is that of each partition; of several, the first partition's come first.
        """
        return [record.value for record in self.records(step)]

    def records(self, step: str) -> list[Record[Any]]:
        """The same with keys, headers, ids, and their places on the topic."""
        name, _, branch = step.partition(".")
        found = step_named(self.topology, name)
        if found.kind == "sink" and not found.is_topic:
            return list(self._stages.probes.written.get(name, ()))
        return self._results.records(name, branch or None)

    def dead_letters(self) -> list[DeadRecord]:
        """The records that died, in order."""
        return self._results.dead_letters()

    def committed(self) -> Mapping[str, Mapping[TopicPartition, int]]:
        """Committed offsets, by step."""
        return self._results.committed()

    def lag(self) -> Mapping[str, int]:
        """Records that steps have still to commit, by step; all 0 when everything is done."""
        return self._results.lag()

    def state(self, step: str, key: Json | bytes) -> NoReturn:
        """The state of a key.

        Raises:
            NotInThisVersion: keyed state is not there yet.
        """
        del key
        raise NotInThisVersion("keyed state is not in this version", where=f'step "{step}"')

    # ------------------------------------------------------------------------------------------ entry

    def _entry(self, to: str | None) -> tuple[str, str | None]:
        """The topic to send to, and the source whose record it is, where it is one's."""
        if to is None:
            to = next((step.name for step in self.topology.steps if step.kind == "source"), None)
            if to is None:
                raise InvalidTopology("there is no source; say where to send: to=", where=self.plan.name)
        step = step_named(self.topology, to)
        if step.is_topic and step.kind == "source":
            return step.config["topic"], None
        if step.kind == "source":
            return self._results.topic_of(to), to
        return self._input_of(to), None

    def _input_of(self, step: str) -> str:
        stage = self.plan.by_name.get(step)
        inputs: Sequence[Any] = () if stage is None else stage.inputs
        if not inputs:
            raise InvalidTopology(f"step {step!r} reads no topic of its own; send to the step before it")
        return str(inputs[0].topic)

    def _encoded(self, topic: str, value: Any) -> bytes | None:
        formats = {i.topic: i.format for stage in self.plan.stages for i in stage.inputs}
        if isinstance(value, str) and formats.get(topic, "json") != "json":
            return value.encode()
        return encode(value)


def _refuse_running_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise SageError("drive a topology in a plain test function, not in an async one: the driver has a loop of its own")


def _topology_of(target: Any, environ: Mapping[str, str]) -> Topology:
    if isinstance(target, Topology):
        return target
    if isinstance(target, str | Path):
        from sage.graph.yaml import read_topology

        return read_topology(target, environ=environ)
    topology = getattr(target, "topology", None)  # an environment has one; a bare builder makes one
    if isinstance(topology, Topology):
        return topology
    if isinstance(target, StreamBuilder):
        return target.build()
    raise SageError(f"a {type(target).__name__} can't be driven; give a topology, an environment or a YAML file")
