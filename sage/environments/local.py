"""A topology in this process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from sage.environments.tracebacks import short_traceback
from sage.errors import InvalidTopology, SageError
from sage.graph.builder import StreamBuilder
from sage.graph.topology import Topology
from sage.model.duration import seconds
from sage.plan.explain import explain
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.runtime.runs.garbage import rare_collections
from sage.spec.component import Source
from sage.spec.config import make_component
from sage.spec.options import Guarantee, Options

if TYPE_CHECKING:
    from sage.app import LocalRun
    from sage.cluster.names import ControlTopics
    from sage.memory.manager import MemoryManager
    from sage.ports import KafkaClients
    from sage.runtime.runs.report import RunReport
    from sage.wiring.folder_services import FolderServices

STOP_TIMEOUT = 25.0
"""Seconds that a drain may take: less than what Kubernetes gives a pod between SIGTERM and SIGKILL."""


class LocalEnvironment(StreamBuilder):
    """Builds a topology and runs its actors in this process. A context manager.

    Args:
        name: the topology's name; topics and groups hang on it.
        bootstrap_servers: the brokers; else ``SAGE_BOOTSTRAP_SERVERS``; else the embedded broker of
            ``data_dir``, which is joined where ``sage up`` runs it and started where not.
        data_dir: the folder of the background services.
        guarantee: ``at_least_once``, or ``exactly_once``: offsets, outputs and state in one transaction. On the
            embedded broker that takes one worker process per data folder.
        defaults: options for steps that don't set them.
        kafka: librdkafka properties for all clients of this environment.
        resume: sources go on where the last run stopped instead of starting afresh.

    What it raises is a SageError: one clear line. With ``SAGE_DEBUG=1`` its traceback has SAGE's own frames and the
    cause as well.
    """

    def __init__(
        self,
        name: str = "default",
        *,
        bootstrap_servers: str | None = None,
        data_dir: str | Path = ".sage",
        guarantee: Guarantee = "at_least_once",
        defaults: Options | Mapping[str, Any] | None = None,
        kafka: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> None:
        super().__init__(name, guarantee=guarantee, defaults=defaults)
        self._bootstrap_servers = bootstrap_servers
        self._data_dir = Path(data_dir)
        self._client_config = self._mapping(kafka, "kafka must be a mapping of properties")
        self._resume = resume
        self._instance: str | None = None
        self._strict_edges = False
        self._with_contexts = False
        self._read_only = False
        self._given: Topology | None = None
        self._folder: FolderServices | None = None
        self._clients: KafkaClients | None = None
        self._control_topics: ControlTopics | None = None
        self._run: LocalRun | None = None
        self._last: LocalRun | None = None
        self._running_hash = ""
        # A plain flag: an Event that Ctrl-C interrupts while it is set may keep its lock, and whoever sets it next
        # waits for ever.
        self._is_asked_to_end = False

    @classmethod
    def of(
        cls,
        topology: Topology,
        *,
        bootstrap_servers: str | None = None,
        data_dir: str | Path = ".sage",
        kafka: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> Self:
        """An environment for a topology that is there already, as the YAML reader gives it."""
        made = cls(
            topology.name,
            bootstrap_servers=bootstrap_servers,
            data_dir=data_dir,
            guarantee=topology.guarantee,
            kafka=kafka,
            resume=resume,
        )
        made._given = topology
        return made

    def beside(self, topology: Topology) -> LocalEnvironment:
        """An environment for another topology: on the brokers, in the folder and with the client properties of this."""
        return LocalEnvironment.of(
            topology,
            bootstrap_servers=self._bootstrap_servers,
            data_dir=self._data_dir,
            kafka=self._client_config,
            resume=self._resume,
        )

    # ---------------------------------------------------------------- description

    def set_memory(self, config: Mapping[str, Any] | None = None) -> None:
        """The memory that steps reach: ``None`` is the folder's own; else ``uri``, ``token``, ``embedding``."""
        self.memory = self._mapping(config, "memory must be a mapping of settings")

    def redirect(
        self,
        *,
        bootstrap_servers: str | None = None,
        data_dir: Path | None = None,
        resume: bool | None = None,
        kafka: Mapping[str, Any] | None = None,
        instance: str | None = None,
        contexts: bool = False,
        strict_edges: bool = False,
        read_only: bool = False,
    ) -> None:
        """Other brokers, folder, start and name in its groups than the program wrote: the command line's options.

        ``contexts``: where nobody names brokers, those of ``sage config`` are used before the folder's own.
        ``strict_edges``: values between fused steps go through their topic's form. ``read_only``: memory is only read.
        """
        self._bootstrap_servers = bootstrap_servers or self._bootstrap_servers
        self._data_dir = data_dir if data_dir is not None else self._data_dir
        self._resume = self._resume if resume is None else resume
        self._client_config.update(kafka or {})
        self._instance = instance or self._instance
        self._with_contexts = contexts or self._with_contexts
        self._strict_edges = strict_edges or self._strict_edges
        self._read_only = read_only or self._read_only

    @property
    def topology(self) -> Topology:
        """The frozen graph. Raises InvalidTopology where it can't run as it is."""
        return self._given if self._given is not None else self.build()

    def plan(self) -> Plan:
        """The compiled plan: stages, topics, partitions, groups."""
        topology = self.topology
        return compile_plan(topology, source_tasks=_source_tasks(topology))

    def explain(self) -> str:
        """Why each step was fused, cut, parallelised."""
        return explain(self.plan())

    # -------------------------------------------------------------------- running

    @property
    def clients(self) -> KafkaClients:
        """Clients of the brokers that this environment uses; the embedded broker is started for them if need be."""
        if self._clients is None:
            from sage.wiring.brokers import find_brokers

            folder = self._services
            found = find_brokers(
                self._bootstrap_servers,
                self._data_dir,
                start=lambda: folder.need("broker"),
                contexts=self._with_contexts,
            )
            self._clients = found.clients(self.topology.kafka, self._client_config)
            self._control_topics = self._control_topics or found.control_topics
        return self._clients

    @short_traceback
    def submit(self) -> None:
        """Validate, plan, make topics, start actors. The same plan again changes nothing. Sources wait.

        Raises:
            InvalidTopology: the topology can't run as it is.
            Conflict: another plan of that name is deployed on the brokers, whose groups this one would join.
            SageError: a step can't be opened, or the brokers can't be reached.
        """
        plan = self.plan()
        if self._run is not None:
            if plan.hash == self._running_hash and not self._run.runner.failed:
                return
            self.stop()
        from sage import app
        from sage.cluster.run_guard import refuse_other_plan

        refuse_other_plan(self.clients, self._control_topics, plan)
        self._is_asked_to_end = False
        self._run = app.start_run(
            plan, self.clients, self._services, fresh=not self._resume, instance=self._instance,
            strict_edges=self._strict_edges, read_only=self._read_only,
        )  # fmt: skip
        self._running_hash = plan.hash

    @short_traceback
    def run_once(self, timeout: float | str | None = None) -> RunReport:
        """Have the sources give all they have now; return when all of it, and all it caused, has reached sinks
        or dead letters. Retries are waited for. Timers belong to their time and not to a run: those that are not due
        yet stay set, and fire while this environment goes on, or in a later run.

        Args:
            timeout: seconds, or a text such as ``"5m"``; then the report says that it is not complete.

        Raises:
            SageError: a step stopped; what was not committed is kept for the next run.
        """
        limit = None if timeout is None else self._limit(timeout)
        self.submit()
        assert self._run is not None
        return self._run.runner.run_once(limit)

    @short_traceback
    def run_streaming(self, *, block: bool = True) -> None:
        """Run until ``stop()``, SIGINT or SIGTERM. Raises what stops a step."""
        self.submit()
        assert self._run is not None
        self._run.runner.order_sources(bounded=False)
        if block:
            restore = self._drain_on_sigterm()
            try:
                self.wait()
            finally:
                restore()
                self.stop()

    @short_traceback
    def wait(self) -> None:
        """Wait until ``stop()`` is called elsewhere; it does not stop anything itself. Raises what stops a step."""
        with rare_collections():
            while not self._is_asked_to_end and self._run is not None:
                self._run.runner.wait_for_failure(0.1)

    def _drain_on_sigterm(self) -> Any:
        """A program that does not handle SIGTERM itself would die without draining."""
        in_main = threading.current_thread() is threading.main_thread()
        if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return lambda: None

        def asked(number: int, frame: FrameType | None) -> None:
            del number, frame
            self._is_asked_to_end = True

        before = signal.signal(signal.SIGTERM, asked)
        return lambda: signal.signal(signal.SIGTERM, before)

    def stop(self, timeout: float | str = STOP_TIMEOUT) -> None:
        """Finish what is in hand within ``timeout`` seconds, commit it, leave the groups. Twice is fine."""
        limit = self._limit(timeout)
        self._is_asked_to_end = True
        run, self._run = self._run, None
        if run is not None:
            self._last = run
            run.stop(limit)

    def abandon(self) -> None:
        """Let go of what runs, without waiting: what it has not committed is read again by whoever comes next."""
        self._is_asked_to_end = True
        run, self._run = self._run, None
        self._last = run or self._last

    def report(self) -> RunReport | None:
        """The numbers since ``submit``, of a topology that runs or has run; ``None`` where none has."""
        run = self._run or self._last
        return None if run is None else run.runner.report()

    @property
    def failure(self) -> SageError | None:
        """What stopped a step of this process, also while it was being stopped; ``None`` where nothing did."""
        run = self._run or self._last
        return None if run is None else run.runner.failure

    @property
    def stalled(self) -> tuple[str, ...]:
        """What stands still, in words: stages of this process that have records to read and don't move.

        After ``stop`` those that did not move to the end.
        """
        run = self._run or self._last
        return () if run is None else tuple(str(alarm) for alarm in run.runner.alarms)

    def close(self) -> None:
        """Stop, and give back the background services. Twice is fine."""
        try:
            self.stop()
        finally:
            self._clients = None
            if self._folder is not None:
                self._folder.leave()
                self._folder = None

    @property
    def memory_manager(self) -> MemoryManager:
        """The memory that steps reach. Raises SageError before ``submit``."""
        if self._run is None:
            raise SageError("submit() first: the memory is connected when the topology runs", where=self.name)
        return self._run.services.memory

    def _limit(self, timeout: float | str) -> float:
        """A duration in seconds. Raises InvalidTopology for what is none."""
        try:
            return seconds(timeout)
        except ValueError as error:
            raise InvalidTopology(f"timeout: {error}", where=self.name) from None

    def _mapping(self, given: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
        if not isinstance(given, Mapping | None):
            raise InvalidTopology(f"{what}; found {given!r}", where=self.name)
        return dict(given or {})

    @property
    def _services(self) -> FolderServices:
        if self._folder is None:
            from sage.wiring.folder_services import FolderServices

            self._folder = FolderServices(self._data_dir)
        return self._folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _source_tasks(topology: Topology) -> dict[str, tuple[str, ...]]:
    """What each source can be split into, as its component says."""
    tasks: dict[str, tuple[str, ...]] = {}
    for step in topology.steps:
        if step.kind != "source" or step.is_topic:
            continue
        source = make_component(step.target, step.config, environ=os.environ, where=step.where, places=step.places)
        if not isinstance(source, Source):
            raise SageError(f"{type(source).__name__} is no source", where=step.where)
        names = tuple(source.tasks())
        if not all(isinstance(name, str) for name in names):
            raise InvalidTopology(f"tasks() must return names, as text; found {names!r}", where=step.where)
        tasks[step.name] = names
    return tasks
