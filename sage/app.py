"""The composition root: the one place that wires ports to implementations."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage.errors import InvalidTopology
from sage.graph.topology import Topology
from sage.ports import KafkaClients, StateStores, Tracer
from sage.wiring.brokers import BOOTSTRAP_VARIABLE, Brokers, find_brokers
from sage.wiring.folder_services import FolderServices, factories
from sage.wiring.single_worker import ADVICE, SingleWorker
from sage.wiring.static_members import INSTANCE_VARIABLE, StaticMembers
from sage.wiring.targets import load_target

if TYPE_CHECKING:
    from sage.environments.local import LocalEnvironment
    from sage.kafka.launchers.apache import ApacheKafka
    from sage.llm.local.weights import LocalModel
    from sage.memory.manager import MemoryManager
    from sage.operations.crash import Scene
    from sage.plan.plan import Plan
    from sage.runtime.concurrent.bridge import LoopThread
    from sage.runtime.runs.runner import TopologyRunner
    from sage.services.start import Factory
    from sage.wiring.ingestion import IngestReport
    from sage.wiring.process_services import ProcessServices

__all__ = [
    "BOOTSTRAP_VARIABLE",
    "EPOCH_VARIABLE",
    "INSTANCE_VARIABLE",
    "Brokers",
    "LocalRun",
    "brokers",
    "environment_for",
    "load_target",
    "start_run",
]

EPOCH_VARIABLE = "SAGE_RUN_EPOCH"
"""What the worker processes of one ``sage topology run --processes`` name their fresh start by: sources start afresh
once, and not again with each process that takes a task over."""


def brokers(flag: str | None, data_dir: Path, kafka_config: Path | None = None) -> Brokers:
    """The brokers that the options, the environment and the folder lead to; starts nothing."""
    return find_brokers(flag, data_dir, kafka_config)


def masked_properties(config: Mapping[str, Any]) -> dict[str, Any]:
    """Properties of clients with their secrets as ``***``."""
    from sage.kafka.config import masked

    return masked(config)


def broker_facts(found: Brokers) -> Mapping[str, str]:
    """``group_protocol`` of brokers that answer, ``embedded``, and ``min_session_timeout_ms`` where they tell it."""
    from sage.kafka.clients import ConfluentClients
    from sage.kafka.facts import min_session_timeout_ms

    clients = found.clients()
    facts: dict[str, str] = {}
    if isinstance(clients, ConfluentClients):
        facts["group_protocol"] = clients.group_protocol()
        facts["embedded"] = str(is_embedded(clients)).lower()
    least = min_session_timeout_ms(found.address, found.config)
    if least is not None:
        facts["min_session_timeout_ms"] = str(least)
    return facts


def service_factories(model: str | None, progress: Callable[[int, int], None] | None = None) -> Mapping[str, Factory]:
    """How ``sage up`` starts each service of a folder."""
    return factories(model, progress)


@dataclass
class LocalRun:
    """A topology that runs in this process, with everything it holds."""

    runner: TopologyRunner
    clients: KafkaClients
    services: ProcessServices
    tracer: Tracer
    loop: LoopThread
    stores: StateStores
    alone: SingleWorker | None = None

    def stop(self, timeout: float) -> None:
        """Drain within ``timeout`` seconds and release everything but the folder's services."""
        try:
            self.runner.stop(timeout)
        finally:
            self.release()
            self.tracer.close(2.0)

    def release(self) -> None:
        """Close what the runner worked with."""
        self.services.close()
        self.loop.close()
        self.stores.close()
        if self.alone is not None:
            self.alone.release()


def start_run(
    plan: Plan,
    clients: KafkaClients,
    folder: FolderServices,
    *,
    fresh: bool,
    instance: str | None = None,
    environ: Mapping[str, str] | None = None,
    strict_edges: bool = False,
    only: Collection[str] | None = None,
    read_only: bool = False,
) -> LocalRun:
    """Start ``plan`` in this process; sources wait for orders.

    Args:
        plan: what to run.
        clients: of the brokers.
        folder: the background services that steps may need.
        fresh: sources start at their beginning.
        instance: this process's name as a static member of its groups; else ``SAGE_INSTANCE_ID``, else none.
        environ: the variables; this process's by default.
        strict_edges: values between fused steps go through their topic's form.
        only: the stages that run here, of a topology whose others run on workers; ``None`` is all.
        read_only: steps only read memory; what would change it fails.

    Raises:
        SageError: whatever keeps the plan from running here; exit code 3 where it needs Apache Kafka.
    """
    from sage.runtime.concurrent.bridge import LoopThread
    from sage.runtime.runs.clock import SystemClock
    from sage.runtime.runs.runner import TopologyRunner, World
    from sage.state.rocks import RocksStores
    from sage.tracing.build import build_tracer
    from sage.wiring.process_services import ProcessServices

    variables = os.environ if environ is None else environ
    name = instance or variables.get(INSTANCE_VARIABLE)
    members: KafkaClients = StaticMembers(clients, name) if name else clients
    tracer = build_tracer(variables)
    services = ProcessServices(folder, plan.topology.memory, variables, traced=tracer.active, read_only=read_only)
    loop = LoopThread()
    stores = RocksStores(folder.data_dir / "state")
    world = World(members, services, tracer, SystemClock(), loop, variables, worker_name(), stores, strict_edges)
    runner = TopologyRunner(plan, world, fresh=fresh, epoch=variables.get(EPOCH_VARIABLE, ""), only=only)
    alone = _right_to_run(plan, clients, folder.data_dir)
    return _started(LocalRun(runner, clients, services, tracer, loop, stores, alone))


def _started(run: LocalRun) -> LocalRun:
    try:
        run.runner.start()
    except BaseException:
        run.release()
        raise
    return run


def _right_to_run(plan: Plan, clients: KafkaClients, data_dir: Path) -> SingleWorker | None:
    """What exactly-once needs on the embedded broker: to be alone."""
    if plan.topology.guarantee != "exactly_once" or not is_embedded(clients):
        return None
    return SingleWorker(data_dir, plan.name)


def is_embedded(clients: KafkaClients) -> bool:
    """Whether these are clients of the embedded broker; asks it where nobody has said so. Raises Unreachable."""
    from sage.kafka.clients import ConfluentClients

    if isinstance(clients, ConfluentClients):
        clients.group_protocol()
    return clients.is_embedded


def refuse_several_workers(environment: LocalEnvironment) -> None:
    """Raises InvalidTopology where the topology can't run in several processes at the same time on its brokers."""
    topology = environment.topology
    if topology.guarantee == "exactly_once" and is_embedded(environment.clients):
        raise InvalidTopology(f"exactly_once in several processes: {ADVICE}", where=topology.name)


def worker_name() -> str:
    """This process, for dead letters and logs."""
    return f"{socket.gethostname()}-{os.getpid()}"


def environment_for(
    found: Topology | LocalEnvironment,
    *,
    bootstrap_servers: str | None,
    data_dir: Path,
    resume: bool = True,
    kafka_config: Path | None = None,
    instance: str | None = None,
    strict_edges: bool = False,
) -> LocalEnvironment:
    """An environment that runs ``found`` against the brokers that the options lead to."""
    from sage.environments.local import LocalEnvironment

    config: dict[str, Any] = {}
    if kafka_config is not None:
        from sage.wiring.brokers import read_properties

        config = read_properties(kafka_config)
        bootstrap_servers = bootstrap_servers or config.pop("bootstrap.servers", None)
    environment = found if isinstance(found, LocalEnvironment) else LocalEnvironment.of(found)
    environment.redirect(
        bootstrap_servers=bootstrap_servers, data_dir=data_dir, resume=resume, kafka=config, instance=instance,
        contexts=True, strict_edges=strict_edges,
    )  # fmt: skip
    return environment


def memory_manager(data_dir: Path, uri: str | None = None, token: str | None = None) -> MemoryManager:
    """The memory at ``uri``, else of the folder's running server, else embedded in ``data_dir``."""
    from sage.memory.manager import MemoryManager

    return MemoryManager(data_dir / "memory", uri=uri, token=token)


def ingest(
    collection: str,
    paths: Sequence[Path],
    *,
    data_dir: Path,
    memory: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> IngestReport:
    """Read documents into a collection by a topology of its own; the same files again change nothing.

    ``memory`` is the place of the collection, as ``set_memory`` takes it; ``None`` is this folder's.
    """
    from sage.wiring.ingestion import ingest_documents

    return ingest_documents(collection, paths, data_dir=data_dir, memory=memory, progress=progress)


def preferred_model(environ: Mapping[str, str]) -> str:
    """The chat model that a demonstration should use: a service's where a key is set, else the local one."""
    import asyncio

    from sage.llm.chat import service

    return asyncio.run(service.preferred_model(environ))


@contextmanager
def apache_kafka(keep: Path | None = None) -> Iterator[ApacheKafka | None]:
    """An Apache Kafka of one node that is there for this block; ``None`` where none can be started.

    Args:
        keep: a folder for its data; it then stays when the block ends without an error.
    """
    from sage.kafka.launchers.apache import ApacheKafka, missing_tools

    if missing_tools() is not None:
        yield None
        return
    cluster = ApacheKafka(1, data_dir=keep).start_all()
    try:
        yield cluster
    except BaseException:
        cluster.stop()
        raise
    if keep is None:
        cluster.stop()


def crash_scene(topology: Path, data_dir: Path, address: str | None, model_log: Path) -> Scene:
    """What ``sage demo crash`` looks at: its brokers, the plan, and the calls in the model server's log."""
    from sage.llm.local.request_log import calls_in
    from sage.operations.crash import Scene
    from sage.services.service_set import ServiceSet

    if address is None:
        broker = ServiceSet(data_dir).find("broker")
        address = None if broker is None else broker.address
    plan = environment_for(load_target(str(topology), environ=os.environ), bootstrap_servers=None, data_dir=data_dir)
    return Scene(brokers(address, data_dir).clients(), plan.plan(), lambda: calls_in(model_log))


def local_models() -> Sequence[LocalModel]:
    """The local chat models, here or to be pulled."""
    from sage.llm.local.weights import list_models

    return list_models()


def ensure_local_model(model: str, progress: Callable[[int, int], None] | None = None) -> Path:
    """The model's weights, fetched where they are missing."""
    from sage.llm.local.download import ensure_model

    return ensure_model(model, progress)


def serve_local_model(model: str, port: int) -> None:
    """Serve a local model in the foreground until interrupted."""
    from sage.llm.local.server import serve

    ensure_local_model(model)
    serve(model, port)
