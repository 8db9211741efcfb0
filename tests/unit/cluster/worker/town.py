"""Several workers in one process over a broker in memory: the same loops, threads and actors as anywhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from sage.cluster.cluster_view import ClusterView
from sage.cluster.deployer import Deployer
from sage.cluster.names import ControlTopics
from sage.cluster.status import StageStatus
from sage.cluster.worker.checks import Checker, Policy
from sage.cluster.worker.identity import Identity
from sage.cluster.worker.topology_host import OpenWorld
from sage.cluster.worker.worker import Settings, Worker
from sage.graph.builder import StreamBuilder
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.ports import TopicSpec
from sage.runtime.concurrent.bridge import LoopThread
from sage.runtime.runs.clock import SystemClock
from sage.runtime.runs.watchdog import STALLED_AFTER
from sage.runtime.runs.world import World
from sage.state.in_memory import MemoryStores
from sage.testing.broker import InMemoryClients
from sage.testing.services import ScriptedServices
from sage.tracing.idle import IdleTracer
from tests.support.waiting import wait_until

TOPICS = ControlTopics("test")

DRAIN_TIMEOUT = 8.0
"""Seconds that a worker has to end in."""


class Town:
    """A broker, workers, and somebody who deploys."""

    def __init__(self) -> None:
        self.clients = InMemoryClients()
        self.deployer = Deployer(self.clients, TOPICS, who="ann@laptop")
        self.workers: dict[str, Worker] = {}
        self.worlds: list[str] = []
        self._threads: dict[str, threading.Thread] = {}

    # ------------------------------------------------------------------------------------ workers

    def worker(
        self, name: str, *, policy: Policy | None = None, environ: Mapping[str, str] | None = None,
        stalled_after: float = STALLED_AFTER, **labels: str,
    ) -> Worker:  # fmt: skip
        """A worker that runs; it may use the code of the tests unless ``policy`` says otherwise."""
        rules = policy or Policy(allow_code=("tests",))
        checker = Checker(name, rules, environ or {})

        def make_world(plan: Plan) -> OpenWorld:
            loop = LoopThread()
            self.worlds.append(plan.name)
            world = World(
                self.clients, ScriptedServices(), IdleTracer(), SystemClock(), loop, rules.environ(environ or {}),
                name, MemoryStores(),
            )  # fmt: skip
            return OpenWorld(world, loop.close)

        settings = Settings(DRAIN_TIMEOUT, stalled_after)
        made = Worker(Identity(name, labels=labels), self.clients, TOPICS, checker, make_world, settings)
        self.workers[name] = made
        self._threads[name] = threading.Thread(target=made.run, name=f"worker-{name}", daemon=True)
        self._threads[name].start()
        wait_until(lambda: made.is_ready, what=f"worker {name} is ready")
        return made

    def leave(self, name: str) -> None:
        """SIGTERM: it drains and ends."""
        self.workers.pop(name).leave()
        self._threads[name].join(30)
        assert not self._threads.pop(name).is_alive()

    def close(self) -> None:
        for name in list(self.workers):
            self.leave(name)

    # ------------------------------------------------------------------------------------ topologies

    def topic(self, name: str, partitions: int = 4) -> None:
        self.clients.admin().create([TopicSpec(name, partitions)])

    def deploy(self, build: Callable[[StreamBuilder], Any], name: str = "t", **options: Any) -> int:
        """Deploy what ``build`` makes; its version."""
        builder = StreamBuilder(name, **options)
        build(builder)
        topology = builder.build()
        tasks = {
            step.name: step.target().tasks() for step in topology.steps if step.kind == "source" and not step.is_topic
        }
        plan = compile_plan(topology, source_tasks=tasks)
        return self.deployer.deploy(plan, allow=("--allow-orphans",)).deployment.version

    def feed(self, topic: str, *values: Any) -> None:
        producer = self.clients.producer()
        for value in values:
            producer.produce(topic, orjson.dumps(value), str(value).encode())
        producer.flush(5)
        producer.close()

    def out(self, topic: str) -> list[Any]:
        found = self.clients.messages(topic) if topic in self.clients.topics() else []
        return sorted(orjson.loads(message.value() or b"null") for message in found)

    # --------------------------------------------------------------------------------------- looking

    def said(self, topology: str = "t") -> dict[str, dict[str, StageStatus]]:
        """worker -> stage -> what it says, of live workers; of two versions that overlap, of the one that leaves: it
        still works."""
        view = ClusterView(self.clients, TOPICS)
        try:
            view.read_to_end()
            return {
                name: {
                    each.stage: each
                    for each in sorted(seen.topologies[topology].stages, key=lambda each: each.state == "stopping")
                }
                for name, seen in view.live.items()
                if topology in seen.topologies
            }
        finally:
            view.close()

    def states(self, stage: str, topology: str = "t") -> dict[str, tuple[int, str]]:
        """worker -> (version, state) of a stage, where it is hosted."""
        found = self.said(topology)
        return {worker: (said[stage].version, said[stage].state) for worker, said in found.items() if stage in said}

    def until(self, stage: str, topology: str = "t", **states: tuple[int, str]) -> None:
        """Wait until exactly these workers host a stage, in these versions and states."""
        wait_until(
            lambda: self.states(stage, topology) == states,
            timeout=25,
            what=f"{stage} is {states}; it is {self.said(topology)}",
        )

    def until_out(self, topic: str, wanted: list[Any]) -> None:
        try:
            wait_until(lambda: self.out(topic) == wanted, timeout=20, what=f"{topic} has {wanted}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it has {self.out(topic)}, and the workers say {self.said()}") from None


def town() -> Iterator[Town]:
    """A fixture's body."""
    made = Town()
    yield made
    made.close()
