"""The composition root: the one place that wires ports to implementations."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage.graph.topology import Topology
from sage.ports import KafkaClients, Tracer
from sage.wiring.brokers import Brokers, find_brokers
from sage.wiring.folder_services import FolderServices, factories
from sage.wiring.targets import load_target

if TYPE_CHECKING:
    from sage.environments.local import LocalEnvironment
    from sage.llm.local.weights import LocalModel
    from sage.memory.manager import MemoryManager
    from sage.plan.plan import Plan
    from sage.runtime.bridge import LoopThread
    from sage.runtime.runner import TopologyRunner
    from sage.services.start import Factory
    from sage.wiring.ingestion import IngestReport
    from sage.wiring.process_services import ProcessServices

__all__ = ["Brokers", "LocalRun", "brokers", "environment_for", "load_target", "start_run"]


def brokers(flag: str | None, data_dir: Path, kafka_config: Path | None = None) -> Brokers:
    """The brokers that the options, the environment and the folder lead to; starts nothing."""
    return find_brokers(flag, data_dir, kafka_config)


def broker_facts(found: Brokers) -> Mapping[str, str]:
    """``group_protocol`` of brokers that answer, and ``min_session_timeout_ms`` where they tell it."""
    from sage.kafka.clients import ConfluentClients
    from sage.kafka.facts import min_session_timeout_ms

    clients = found.clients()
    facts: dict[str, str] = {}
    if isinstance(clients, ConfluentClients):
        facts["group_protocol"] = clients.group_protocol()
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

    def stop(self, timeout: float) -> None:
        """Drain within ``timeout`` seconds and release everything but the folder's services."""
        try:
            self.runner.stop(timeout)
        finally:
            self.services.close()
            self.loop.close()
            self.tracer.close(2.0)


def start_run(
    plan: Plan,
    clients: KafkaClients,
    folder: FolderServices,
    *,
    fresh: bool,
    environ: Mapping[str, str] | None = None,
) -> LocalRun:
    """Start ``plan`` in this process; sources wait for orders. Raises what keeps it from running."""
    from sage.runtime.bridge import LoopThread
    from sage.runtime.clock import SystemClock
    from sage.runtime.runner import TopologyRunner, World
    from sage.tracing.build import build_tracer
    from sage.wiring.process_services import ProcessServices

    variables = os.environ if environ is None else environ
    tracer = build_tracer(variables)
    services = ProcessServices(folder, plan.topology.memory, variables, traced=tracer.active)
    loop = LoopThread()
    world = World(clients, services, tracer, SystemClock(), loop, variables, worker_name())
    run = LocalRun(TopologyRunner(plan, world, fresh=fresh), clients, services, tracer, loop)
    try:
        run.runner.start()
    except BaseException:
        services.close()
        loop.close()
        raise
    return run


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
) -> LocalEnvironment:
    """An environment that runs ``found`` against the brokers that the options lead to."""
    from sage.environments.local import LocalEnvironment

    config: dict[str, Any] = {}
    if kafka_config is not None:
        from sage.wiring.brokers import read_properties

        config = read_properties(kafka_config)
        bootstrap_servers = bootstrap_servers or config.pop("bootstrap.servers", None)
    if isinstance(found, LocalEnvironment):
        found.redirect(bootstrap_servers=bootstrap_servers, data_dir=data_dir, resume=resume, kafka=config)
        return found
    return LocalEnvironment.of(
        found, bootstrap_servers=bootstrap_servers, data_dir=data_dir, resume=resume, kafka=config
    )


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
