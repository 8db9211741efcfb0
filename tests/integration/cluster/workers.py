"""A cluster of real worker processes under a load that is counted at the end."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sage.cluster.cluster_view import ClusterView
from sage.cluster.control_topics import ensure_control_topics
from sage.cluster.deployer import Deployer
from sage.cluster.names import PREFIX_VARIABLE, ControlTopics
from sage.cluster.status import Check, StageStatus
from sage.model.partition import TopicPartition
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from tests.chaos.scenario import ROOT, Scenario
from tests.chaos.worker import PARTITIONS, environment
from tests.support.brokers import ApacheBroker
from tests.support.waiting import wait_until

PATIENCE = 90.0
"""Seconds for what takes one or two on a machine with nothing else to do."""

DRAIN = 25.0
"""Seconds in which a worker drains and ends, as it promises."""

MARGIN = 5.0
"""Seconds beyond it: the time that a busy machine takes to end a process."""


class Cluster(Scenario):
    """Worker processes that host what is deployed, and one topology under load.

    Args:
        options: of each `sage worker run`, beside those that every test needs.
    """

    def __init__(
        self, broker: ApacheBroker, name: str, kind: str, guarantee: str, folder: Path, *, workers: int = 3,
        records: int = 1_500, replicas: int = 1, options: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.topics = ControlTopics(f"__{name}")
        self._options = list(options)
        ensure_control_topics(broker.clients(), self.topics)
        super().__init__(broker, name, kind, guarantee, folder, 1, workers=workers, records=records, replicas=replicas)
        self.deployer = Deployer(broker.clients(), self.topics, who="test@here")
        self.view = ClusterView(broker.clients(), self.topics)
        self._admin = broker.clients().admin()

    def _start(self, folder: int | None = None, options: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        number = self._started if folder is None else folder
        self._started = max(self._started, number + 1)
        path = os.pathsep.join((str(self.code_of(number)), os.environ.get("PYTHONPATH", "")))
        with (self._folder / f"{self.name}-{number}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "sage", "worker", "run", "--bootstrap-servers", self.broker.bootstrap_servers,
                 "--data-dir", str(self._folder / f"{self.name}-{number}"), "--allow-code", "tests", "--debug",
                 *self._options, *options],
                stdout=log, stderr=subprocess.STDOUT, cwd=ROOT,
                env={**os.environ, PREFIX_VARIABLE: self.topics.prefix, "PYTHONPATH": path},
            )  # fmt: skip

    def code_of(self, number: int) -> Path:
        """The folder of modules that this worker alone has: the one that is started as the ``number``-th, from 0."""
        return self._folder / f"{self.name}-{number}-code"

    def start_with(self, *options: str) -> subprocess.Popen[bytes]:
        """One worker more, with options of its own."""
        self.workers.append(self._start(options=options))
        return self.workers[-1]

    def end(self, worker: subprocess.Popen[bytes]) -> None:
        """SIGTERM: it drains in time and exits 0."""
        worker.terminate()
        wait_until(lambda: worker.poll() is not None, timeout=DRAIN + MARGIN, what=f"a worker drains\n{self.logs()}")
        assert worker.returncode == 0, f"it ended with {worker.returncode}\n{self.logs()}"
        self.workers.remove(worker)

    def begun(self) -> None:
        """Wait until outputs come; whoever has waited until workers are online knows that they have started."""
        self.until(self._outputs, f"outputs come\n{self.logs()}")

    def close(self) -> None:
        super().close()
        self.view.close()
        self._admin.close()

    # ------------------------------------------------------------------------------------ deploying

    def plan(self) -> Plan:
        """The topology's plan."""
        servers = self.broker.bootstrap_servers
        return environment(servers, self.name, self.kind, self.guarantee, "unused", str(self._replicas)).plan()

    def deploy(self, plan: Plan | None = None) -> int:
        """Deploy, and wait until the workers run it."""
        version = self.deployer.deploy(plan or self.plan()).deployment.version
        self.settled()
        return version

    def settled(self) -> None:
        """Wait until the workers are where the pointer says."""
        try:
            self.deployer.wait_settled(self.name, PATIENCE)
        except Exception as error:
            raise AssertionError(f"{error}\n{self.words()}\n{self.logs()}") from error

    # -------------------------------------------------------------------------------------- looking

    def words(self) -> dict[str, list[StageStatus]]:
        """worker -> what it says of the topology's stages, of live workers."""
        self.view.read_to_end()
        live = self.view.live
        found = {name: seen.topologies[self.name] for name, seen in live.items() if self.name in seen.topologies}
        return {name: list(said.stages) for name, said in found.items()}

    def checks(self) -> dict[str, tuple[Check, ...]]:
        """worker -> what it found when it checked the topology's versions."""
        self.view.read_to_end()
        return {
            name: seen.topologies[self.name].checks
            for name, seen in self.view.live.items()
            if self.name in seen.topologies
        }

    def hosts(self, stage: str, state: str = "running") -> int:
        """How many workers say that a stage is in that state."""
        return sum(one.stage == stage and one.state == state for said in self.words().values() for one in said)

    def written(self, end: str) -> int:
        """The end offsets of the topology's ``in`` or ``out`` summed up: markers of transactions count."""
        places = [TopicPartition(f"{self.name}-{end}", number) for number in range(PARTITIONS)]
        return sum(self._admin.end_offsets(places).values())

    def goes_on(self) -> None:
        """Wait until more outputs have come."""
        before = self.written("out")
        self.until(lambda: self.written("out") > before + 40, "outputs come")

    def until(self, condition: Callable[[], object], what: str) -> None:
        wait_until(condition, timeout=PATIENCE, what=f"{what}; {self.words()}")

    def online(self, count: int) -> None:
        """Wait until so many workers live."""

        def there() -> bool:
            self.view.read_to_end()
            return len(self.view.live) == count

        wait_until(there, timeout=PATIENCE, what=f"{count} workers are online\n{self.logs()}")


def replanned(plan: Plan, **changes: Any) -> Plan:
    """The same topology with other options for all its working steps, planned anew."""
    topology = plan.topology
    steps = tuple(
        replace(step, options=step.options.model_copy(update=changes)) if step.kind in {"map", "process"} else step
        for step in topology.steps
    )
    return compile_plan(replace(topology, steps=steps), source_tasks=plan.source_tasks)


def fetch(port: int, path: str) -> tuple[int, str]:
    """What an endpoint of this machine answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
