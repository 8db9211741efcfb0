"""A topology under load: fed, observed to its end, and told about in figures."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sage.errors import DeadlineExceeded
from sage.graph.topology import Topology
from sage.model.partition import TopicPartition
from sage.operations.feeding import feed, make_input, put, settle
from sage.operations.isolation import Isolated, output_topics
from sage.operations.measuring.figures import FIRST_SHARE, Figures, latency_of, rate_of
from sage.operations.measuring.observing import Arrivals, Observer, stamp
from sage.operations.measuring.sample import Sample
from sage.operations.measuring.workers import Workers
from sage.operations.reading import partitions_of, read_to_end
from sage.plan.plan import Plan, Stage
from sage.plan.planner import compile_plan
from sage.ports import Admin, KafkaClients
from sage.runtime.runs.termination import Termination
from sage.runtime.runs.topics import prepare_topics
from sage.runtime.sources.positions import ExhaustionWatch
from sage.version import __version__

_LOOK_EVERY: Final = 0.2
"""Seconds between two questions whether it is over: each is work for the brokers that are measured as well."""

_READY_SECONDS: Final = 120.0
"""Seconds in which the processes have their partitions; a model may have to be loaded before."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Load:
    """What a topology is put under.

    Attributes:
        records: that go in.
        rate: a second; ``None`` is as fast as the topology takes them.
        processes: that run it.
    """

    records: int
    rate: float | None
    processes: int

    @property
    def is_fed_before(self) -> bool:
        """Whether all records are there before the topology starts, so that feeding takes nothing of its processor.

        Several processes have to share the work out first: what one has begun when the next joins is no steady state.
        """
        return self.rate is None and self.processes == 1


@dataclass(frozen=True)
class Bench:
    """One run to measure.

    Attributes:
        original: the topology that is measured.
        run: what stands for it.
        plan: of that, compiled.
        sample: the records.
        load: how many of them, and how fast.
        workers: what each process is started with, after ``python``.
        environ: its variables.
        timeout: seconds from the start of the processes; ``None`` is no limit.
        progress: told how many records are done, of how many.
        note: told what happens to processes.
    """

    original: Topology
    run: Isolated
    plan: Plan
    sample: Sample
    load: Load
    workers: Sequence[str]
    environ: Mapping[str, str]
    timeout: float | None = None
    progress: Progress = lambda done, total: None
    note: Callable[[str], None] = lambda text: None

    def measure(self, clients: KafkaClients) -> Figures:
        """Feed it, wait until every record has left it, and say what was seen.

        What it leaves on the brokers is the caller's to remove.

        Raises:
            DeadlineExceeded: the time was over.
            SageError: a process ended, or the brokers can't be reached.
        """
        run, load = self.run, self.load
        make_input(clients, run.input_topic, run.partitions, run.topology.topics.replication_factor)
        partitions = {name: info.partitions for name, info in prepare_topics(self.plan, clients).items()}
        outputs = output_topics(self.plan)
        if load.is_fed_before:
            feed(clients, run.input_topic, self.sample.repeated(load.records))
        arrivals = None if load.rate is None else Arrivals(clients, outputs)
        try:
            with Workers(self.workers, load.processes, self.environ, self.note) as workers:
                watched = [*outputs, self.plan.dead_letter_topic]
                with Observer(clients, watched, lambda: workers.pids) as observer:
                    _Attempt(self, clients, workers, observer, arrivals, partitions).run()
        finally:
            if arrivals is not None:
                arrivals.close()
        return self._figures(clients, observer, arrivals)

    def _figures(self, clients: KafkaClients, observer: Observer, arrivals: Arrivals | None) -> Figures:
        rate = rate_of(observer.looks, self.load.records)
        dead = _count(clients, self.plan.dead_letter_topic)
        marked = self.plan.topology.guarantee == "exactly_once"
        memory, topology = sum(observer.peaks.values()), self.original
        return Figures(
            topology=topology.name, graph=_graph(topology), plan=compile_plan(topology).hash,
            input=self.sample.origin, input_digest=self.sample.digest, records=self.load.records, rate=self.load.rate,
            processes=self.load.processes, guarantee=self.plan.topology.guarantee, machine=_machine(clients),
            records_per_second=None if rate is None else round(rate.per_second, 3),
            seconds=None if rate is None else round(rate.seconds, 3),
            latency=None if arrivals is None else latency_of(arrivals.seconds),
            processor_us=None if rate is None or not rate.processor else round(rate.processor, 2),
            memory_mib=round(memory / 2**20, 1) if memory else None,
            outputs=None if marked else observer.done - dead, dead=dead,
        )  # fmt: skip


class _Attempt:
    """The run itself: everything that waits looks whether the processes live and whether the time is over."""

    def __init__(
        self, bench: Bench, clients: KafkaClients, workers: Workers, observer: Observer, arrivals: Arrivals | None,
        partitions: Mapping[str, int],
    ) -> None:  # fmt: skip
        self._bench = bench
        self._clients = clients
        self._workers = workers
        self._observer = observer
        self._arrivals = arrivals
        self._partitions = partitions
        self._deadline = None if bench.timeout is None else time.monotonic() + bench.timeout
        self._waiting_for = "the processes to start"

    def run(self) -> None:
        """Return when every record has left the topology."""
        admin = self._clients.admin()
        watch = ExhaustionWatch(self._clients, {})
        try:
            self._feed()
            self._waiting_for = "records on their way"
            plan = self._bench.plan
            Termination(plan, admin, watch, self._partitions, self._wait).walk()
        finally:
            watch.close()
            admin.close()

    def _feed(self) -> None:
        bench = self._bench
        if bench.load.is_fed_before:
            return
        self._wait_until_ready()
        if self._arrivals is not None:
            self._feed_slowly(self._arrivals)
        else:
            feed(self._clients, bench.run.input_topic, bench.sample.repeated(bench.load.records))

    def _wait_until_ready(self) -> None:
        """Until every process is in every group and every partition has somebody: what is measured before is the
        start."""
        deadline = time.monotonic() + _READY_SECONDS
        admin = self._clients.admin()
        try:
            for stage in self._bench.plan.stages:
                while stage.group and not self._is_shared_out(admin, stage):
                    self._wait(_LOOK_EVERY)
                    if time.monotonic() > deadline:
                        raise DeadlineExceeded(
                            f"step {stage.name!r} has not started after {_READY_SECONDS:.0f} s",
                            where=self._bench.original.name,
                        )
        finally:
            admin.close()

    def _is_shared_out(self, admin: Admin, stage: Stage) -> bool:
        members = admin.members(stage.group)
        wanted = {TopicPartition(i.topic, n) for i in stage.inputs for n in range(self._partitions[i.topic])}
        held = {place for member in members for place in member.partitions}
        return len(members) >= self._bench.load.processes and wanted <= held

    def _feed_slowly(self, arrivals: Arrivals) -> None:
        """Write the records at the rate, and read what comes out meanwhile."""
        load, topic = self._bench.load, self._bench.run.input_topic
        assert load.rate is not None
        first = int(load.records * FIRST_SHARE)
        records = self._bench.sample.repeated(load.records)
        producer = self._clients.producer(config={"linger.ms": 0})
        begun, sent = time.perf_counter(), 0
        try:
            while sent < load.records:
                due = min(load.records, int((time.perf_counter() - begun) * load.rate) + 1)
                for record in (next(records) for _ in range(due - sent)):
                    put(producer, topic, record._replace(headers=[*record.headers, stamp()]))
                if sent <= first < due:
                    arrivals.after = time.perf_counter()
                sent = due
                producer.poll(0)
                self._wait(0)
                arrivals.poll(min(0.001, 1 / load.rate))
            settle(producer, topic)
        finally:
            producer.close()

    def _wait(self, seconds: float) -> None:
        self._workers.check()
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise DeadlineExceeded(
                f"waited for {self._waiting_for} until the time was over: {self._observer.done} records had come out; "
                "give it a longer --timeout, or fewer --records",
                where=self._bench.original.name,
            )
        self._bench.progress(min(self._observer.done, self._bench.load.records), self._bench.load.records)
        if not seconds:
            return
        until = time.monotonic() + max(seconds, _LOOK_EVERY)
        while (left := until - time.monotonic()) > 0:
            if self._arrivals is None:
                time.sleep(left)
            else:
                self._arrivals.poll(left)


def _count(clients: KafkaClients, topic: str) -> int:
    """The records of a topic, markers of transactions aside."""
    admin = clients.admin()
    try:
        places = partitions_of(admin, topic)
        starts, ends = admin.start_offsets(places), admin.end_offsets(places)
    finally:
        admin.close()
    return sum(1 for _ in read_to_end(clients, starts, ends))


def _graph(topology: Topology) -> str:
    """What stays the same while code and options of the steps are worked on."""
    steps = [(step.name, step.kind, [str(given) for given in step.inputs]) for step in topology.steps]
    return hashlib.sha256(json.dumps(steps).encode()).hexdigest()[:16]


def _machine(clients: KafkaClients) -> dict[str, Any]:
    from sage.app import is_embedded

    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "sage": __version__,
        "broker": "embedded" if is_embedded(clients) else "kafka",
    }
