"""A worker on real brokers: which implementation serves which port of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sage.cluster.worker.checks import Checker, Policy
from sage.cluster.worker.health import TOKEN_VARIABLE, Health
from sage.cluster.worker.identity import Identity
from sage.cluster.worker.log_handler import TopicHandler
from sage.cluster.worker.topology_host import OpenWorld
from sage.cluster.worker.worker import Settings, Worker
from sage.kafka.config import is_secret
from sage.plan.plan import Plan
from sage.ports import KafkaClients
from sage.runtime.concurrent.bridge import LoopThread
from sage.runtime.runs.clock import SystemClock
from sage.runtime.runs.garbage import rare_collections
from sage.runtime.runs.watchdog import alarm_after
from sage.runtime.runs.world import World
from sage.state.rocks import RocksStores
from sage.tracing.build import build_tracer
from sage.wiring.brokers import Brokers
from sage.wiring.folder_services import FolderServices
from sage.wiring.process_services import ProcessServices
from sage.wiring.single_worker import SingleWorker
from sage.wiring.static_members import StaticMembers


@dataclass(frozen=True)
class WorkerOptions:
    """What `sage worker run` is told.

    Attributes:
        health_host, health_port: where the endpoints are; no port is none.
        drain_timeout: seconds that leaving may take.
    """

    policy: Policy = field(default_factory=Policy)
    data_dir: Path = Path(".sage")
    health_host: str = "127.0.0.1"
    health_port: int | None = None
    drain_timeout: float = 25.0


class WorkerProcess:
    """This process as a worker. ``run`` returns after ``leave``.

    Args:
        identity: who it is; its state is in a folder of that name.
        brokers: where the control topics and all topologies are.
        environ: the variables; this process's by default.

    Raises:
        PortTaken, InvalidTopology: its endpoints, or its settings.
    """

    def __init__(
        self, identity: Identity, brokers: Brokers, options: WorkerOptions, environ: Mapping[str, str] | None = None
    ) -> None:
        self._identity = identity
        self._brokers = brokers
        self._options = options
        self._environ = os.environ if environ is None else environ
        self._shown = options.policy.environ(self._environ)
        self._folder = FolderServices(options.data_dir)
        self._tracer = build_tracer(self._environ)
        self._stores = RocksStores(options.data_dir / "workers" / identity.worker / "state")
        clients = brokers.clients()
        self.worker = Worker(
            identity, clients, brokers.control_topics,
            Checker(identity.worker, options.policy, self._environ), self._open_world,
            Settings(options.drain_timeout, alarm_after(self._environ)),
        )  # fmt: skip
        secrets = [str(value) for name, value in brokers.config.items() if is_secret(name)]
        self._log = TopicHandler(clients, brokers.control_topics, identity.worker, [*self._shown.values(), *secrets])
        port = options.health_port
        token = self._environ.get(TOKEN_VARIABLE, "")
        self.health = None if port is None else Health(self.worker, options.health_host, port, token)

    def run(self) -> None:
        """Work until told to leave. Raises as ``Worker.run``."""
        logger = logging.getLogger("sage")
        logger.addHandler(self._log)
        try:
            with rare_collections():
                self.worker.run()
        finally:
            logger.removeHandler(self._log)
            self._log.close()
            if self.health is not None:
                self.health.close()
            self._stores.close()
            self._folder.leave()
            self._tracer.close(2.0)

    def leave(self) -> None:
        """Have it drain and end. Safe in a signal handler."""
        self.worker.leave()

    def _open_world(self, plan: Plan) -> OpenWorld:
        """What one topology runs in: clients with its settings, a loop and services of its own."""
        clients: KafkaClients = self._brokers.clients(plan.topology.kafka)
        alone = self._right_to_run(plan, clients)
        if self._identity.is_named:
            clients = StaticMembers(clients, self._identity.worker)
        loop = LoopThread(name=f"sage-{plan.name}.loop")
        services = ProcessServices(self._folder, plan.topology.memory, self._shown, traced=self._tracer.active)
        world = World(
            clients, services, self._tracer, SystemClock(), loop, self._shown, self._identity.worker, self._stores
        )

        def close() -> None:
            services.close()
            loop.close()
            if alone is not None:
                alone.release()

        return OpenWorld(world, close)

    def _right_to_run(self, plan: Plan, clients: KafkaClients) -> SingleWorker | None:
        """What exactly-once needs on the embedded broker: to be alone."""
        if plan.topology.guarantee != "exactly_once":
            return None
        from sage.app import is_embedded

        return SingleWorker(self._options.data_dir, plan.name) if is_embedded(clients) else None
