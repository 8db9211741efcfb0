"""The topology driver: a topology in memory, in virtual time, on one thread, with the runtime's own actors."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sage.errors import InvalidTopology, SageError
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
from sage.runtime.steps.codec import encode
from sage.testing.broker import InMemoryClients
from sage.testing.crash import Crash
from sage.testing.mortal import DriverClients
from sage.testing.overrides import Override, apply_overrides, step_named
from sage.testing.results import DeadRecord, Results
from sage.testing.services import ScriptedServices
from sage.testing.stages import Stages
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

    A whole test, which runs as it stands::

        from sage import LocalEnvironment
        from sage.operators import DenseRetriever, OpenAIGenerator, QAPromptor
        from sage.testing import Crash, Delayed, ScriptedChatModel, TopologyDriver

        env = LocalEnvironment("qa")
        (
            env.from_collection([], name="questions")
            .map(DenseRetriever, {"collection": "handbook", "top_k": 1}, name="retrieve")
            .map(QAPromptor, name="prompt")
            .map(OpenAIGenerator, {"model": "any"}, name="generate")
        )
        model = ScriptedChatModel(["20 days.", ConnectionError("reset"), Delayed(3, "Your manager.")])

        with TopologyDriver(env, overrides={"generate": model}) as driver:
            driver.memory.create_collection("handbook").insert("New staff get 20 days of leave.")
            driver.send("How many days of leave?")  # everything that it causes at once has happened when this returns
            assert driver.outputs("generate")[0]["answer"] == "20 days."

            driver.fail_next("prompt", Crash())  # killed there; the record is read again
            driver.send("Who approves travel?", key="ann")
            driver.advance("5s")  # the second try, and an answer that takes three seconds, in no time
            assert driver.outputs("generate")[1]["answer"] == "Your manager."

            driver.fail_next("prompt", ValueError("no"))
            driver.send("Third?")
            assert [dead.step for dead in driver.dead_letters()] == ["prompt"]
            assert driver.lag() == {"retrieve": 0, "prompt": 0, "generate": 0}

    Steps are never fused here, so every step's output can be looked at. Sources are not read: ``send`` stands
    for them. Sinks are the real ones, unless they are overridden. Steps are opened at the first ``send``, so
    that ``memory`` can be filled before.

    Everything happens in the same order in every run. With a ``seed`` the order of whatever may happen in any order
    is drawn from it: which stage moves next and how far, how many records a poll brings, which ready task runs
    first, how retries are jittered. One seed is always the same run; many seeds find races::

        @pytest.mark.parametrize("seed", range(200))
        def test_no_order_loses_a_record(seed, sage_driver):
            driver = sage_driver(build(), seed=seed)
            driver.send_all(range(20), key=lambda number: str(number % 3))
            driver.crash()
            assert set(driver.outputs("work")) == set(range(20))

    What fails in it says the seed.

    Args:
        target: a topology, an environment, or what names one: the path of a YAML file, ``file.py:attribute`` or
            ``package.module:attribute`` (an environment, or a function that returns one).
        overrides: by step: a ``ChatModel`` for a step that calls one, or a function (or ``Operator`` class) in
            place of the step's own.
        embedder: for all of the topology's memory; ``MockTextEmbedder()`` by default.
        tracer: where spans go; nowhere by default.
        environ: variables for ``${VAR}``; this process's by default.
        seed: draws the order of events; ``None`` is always the same, plain one.

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
        seed: int | None = None,
    ) -> None:
        _refuse_running_loop()
        variables = os.environ if environ is None else environ
        topology, chat_models = apply_overrides(_topology_of(target, variables), overrides or {})
        self.plan: Plan = compile_plan(topology, fuse=False)
        self.clock = ManualClock()
        self.seed = seed
        self._clients = DriverClients(self.clock, None if seed is None else random.Random(f"polls {seed}"))
        self._services = ScriptedServices(chat_models, embedder)
        self._stages = Stages(
            self.plan, self._clients, self._services, tracer or IdleTracer(), self.clock, variables, seed
        )
        self._results = Results(self.plan, self._clients)
        self._producer = self._clients.outside_producer()
        self._sent = 0
        self._started = False
        self._closed = False

    # ------------------------------------------------------------------------------------------- life

    def start(self) -> None:
        """Make topics and open the steps, as the first ``send`` does; twice is fine. Raises what a step raises."""
        if self._closed:
            raise SageError("this driver is closed; make another", where=self.plan.name)
        if self._started:
            return
        self._started = True
        partitions = self.plan.topology.defaults.partitions or 1
        self._clients.admin().create([TopicSpec(topic, partitions) for topic in self.plan.external])
        self._stages.start()
        self._stages.pump()

    def close(self) -> None:
        """Close the steps. Raises what the first of them raises."""
        self._closed = True
        try:
            self._stages.close()
        finally:
            self._services.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.explain(error)
        try:
            self.close()
        except Exception as failure:
            if error is None:  # else the test has failed already, and says more
                self.explain(failure)
                raise

    def explain(self, error: BaseException) -> None:
        """Add the seed to what a test failed with."""
        if self.seed is not None:
            error.add_note(f"TopologyDriver(seed={self.seed}): the same seed gives the same order again")

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
        self._give(value, key, headers, to)
        self._settle()

    def send_all(
        self, values: Iterable[Any], key: Callable[[Any], Json | bytes] | None = None, to: str | None = None
    ) -> None:
        """Give the topology several records before any of them is looked at, so that they are under way together.

        Args:
            values: as ``send`` takes them.
            key: makes the key of a value; without it none has one.
            to: as in ``send``.

        Raises:
            SageError: a stage stopped.
            UnknownName: there is no such step.
        """
        self.start()
        for value in values:
            self._give(value, None if key is None else key(value), None, to)
        self._settle()

    def _give(
        self, value: Any, key: Json | bytes, headers: Headers | Mapping[str, str | bytes | None] | None, to: str | None
    ) -> None:
        topic, own = self._entry(to)
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers or ())
        sent = [(name, text.encode() if isinstance(text, str) else text) for name, text in pairs]
        for name, written in sent:
            if not isinstance(written, bytes | None):
                raise SageError(f"header {name!r} must be text, bytes or None; found {written!r}")
        self._sent += 1
        if own is not None:
            sent.append((SAGE_ID, source_root("driver", own, "0", self._sent).encode()))
        self._producer.produce(topic, self._encoded(topic, value), encode_key(key), sent)
        self._producer.flush(0)

    def _settle(self) -> None:
        self.advance(SETTLING if self.plan.topology.guarantee == "at_least_once" else 2 * SETTLING)

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
            # Always by something: what is due and can't happen yet must not hold time up.
            self.clock.advance_to(until if timer is None else min(until, max(timer, self.clock.monotonic() + 0.001)))
            moved = self._stages.pump()

    def fail_next(self, step: str, exception: BaseException, times: int = 1) -> None:
        """Have the next ``times`` calls of a step's code raise ``exception``.

        Raises:
            InvalidTopology: it has no code that could fail, such as a source, which is not read here.
            SageError: what it shall raise is no exception.
        """
        is_class = isinstance(exception, type) and issubclass(exception, BaseException)
        if not is_class and not isinstance(exception, BaseException):
            raise SageError(f"fail_next takes an exception; found {exception!r}")
        step_named(self.topology, step)
        self.start()
        self._stages.probes.fail_next(step, exception, times)

    def crash(self) -> None:
        """Lose everything that is not committed from memory, as by kill -9, and start again.

        What was read and not committed is read again; outputs that were produced stay. Called from inside the
        topology (a step's code, an overridden sink, a model), it happens right there, in the middle of the work;
        so does a ``Crash`` that ``fail_next`` or a script holds.
        """
        if self._stages.is_moving:
            self._stages.kill()
            raise Crash
        self.start()
        self._stages.crash()
        self.advance(SETTLING if self.plan.topology.guarantee == "at_least_once" else 2 * SETTLING)

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

    def state(self, step: str, key: Json | bytes) -> Any:
        """What a stateful step keeps for a key: committed changes only.

        Returns:
            The step's own model where it declared one, else JSON; ``None`` where nothing is kept.

        Raises:
            InvalidTopology: the step keeps no state.
        """
        step_named(self.topology, step)
        return self._results.state(step, encode_key(key) or b"")

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
    if isinstance(target, str | Path):
        from sage.wiring.targets import load_target

        target = load_target(str(target), environ=environ)
    if isinstance(target, Topology):
        return target
    topology = getattr(target, "topology", None)  # an environment has one; a bare builder makes one
    if isinstance(topology, Topology):
        return topology
    if isinstance(target, StreamBuilder):
        return target.build()
    raise SageError(
        f"a {type(target).__name__} can't be driven; give a topology, an environment, a YAML file or file.py:name"
    )
