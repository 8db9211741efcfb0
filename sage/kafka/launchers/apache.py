"""Apache Kafka on this machine, for tests and benchmarks: one node, or three that can be killed one by one.

The jars come from Maven into a folder outside the tree (``SAGE_KAFKA_HOME``, else
``~/.cache/sage-tests/kafka-VERSION``). Every node is broker and controller in one (KRaft), with the flags of a
short-lived JVM and with time-outs at their minimum, so that a takeover takes seconds.
"""

from __future__ import annotations

import base64
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from sage.errors import DeadlineExceeded, NotFound, SageError
from sage.kafka.probe import answers

VERSION: Final = "4.3.1"
_HOST: Final = "127.0.0.1"
_STARTUP_TIMEOUT: Final = 180.0
_STOP_TIMEOUT: Final = 20.0
_BOOTSTRAP: Final = "bootstrap.checkpoint"
_POM: Final = Path(__file__).parents[3] / "infra" / "kafka" / "pom.xml"

_QUICK: Final = ("-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Starts soon and takes little memory."""

_AS_SHIPPED: Final = ("-Xms1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35")
"""As Kafka's own start script has it: with the collector of small heaps each of its pauses is a record's latency."""

_JVM: Final = (
    "-Xshare:auto",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
)

_SETTINGS: Final[Mapping[str, str]] = {
    "process.roles": "broker,controller",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    # Groups move on as soon as they can: no wait for late members, sessions at their minimum.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "6000",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "1000",
    # Fewer internal partitions, a faster start and a faster failover.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "1",
    "transaction.partition.verification.enable": "true",
    "log.cleaner.dedupe.buffer.size": "8388608",
    "log.segment.bytes": "67108864",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",
    "controller.quorum.election.timeout.ms": "500",
    "controller.quorum.fetch.timeout.ms": "1000",
    "controlled.shutdown.enable": "true",
}

_TOOLS: Final[Mapping[str, str]] = {
    "kafka-console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-topics": "org.apache.kafka.tools.TopicCommand",
    "kafka-consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-configs": "kafka.admin.ConfigCommand",
    "kafka-get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "kafka-features": "org.apache.kafka.tools.FeatureCommand",
}


def kafka_home() -> Path:
    """The folder of the jars, outside the tree."""
    named = os.environ.get("SAGE_KAFKA_HOME")
    return Path(named) if named else Path.home() / ".cache" / "sage-tests" / f"kafka-{VERSION}"


def missing_tools() -> str | None:
    """Why Apache Kafka can't be started here, or ``None``."""
    if shutil.which("java") is None:
        return "java is not installed (Apache Kafka needs JDK 17)"
    if not _jars(kafka_home()) and shutil.which("mvn") is None:
        return "mvn is not installed (it fetches Apache Kafka's jars)"
    if not _jars(kafka_home()) and not _POM.is_file():
        return f"{_POM} is not there (it comes with a checkout, not with the wheel)"
    return None


def fetch_kafka(say: Callable[[str], None] = lambda _: None) -> Path:
    """The folder with the jars, fetched once (54 MB); several processes may call it at once.

    Args:
        say: told what takes long.

    Raises:
        NotFound: Java or Maven is missing, or Maven could not fetch the jars.
    """
    if reason := missing_tools():
        raise NotFound(f"Apache Kafka {VERSION}: {reason}")
    home = kafka_home()
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / f".{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _jars(home):
            say(f"fetching Apache Kafka {VERSION} with Maven into {home} (54 MB, once)")
            _fetch_into(home)
    return home


def _jars(home: Path) -> bool:
    return (home / "libs" / f"kafka-server-{VERSION}.jar").is_file() and (home / _BOOTSTRAP).is_file()


def _fetch_into(home: Path) -> None:
    libs = home / "libs"
    shutil.rmtree(libs, ignore_errors=True)
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={libs}"]
    done = subprocess.run(["mvn", "-q", "-B", "-f", str(_POM), *goal], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise NotFound(f"Apache Kafka {VERSION}: mvn failed: {said[0] if said else done.returncode}")
    _make_bootstrap(home)


def _make_bootstrap(home: Path) -> None:
    """Let Kafka's own tool write the first metadata records (the levels of all features), once for all clusters.

    They are the only part of a formatted folder that depends on the version alone. Without them a broker runs
    with every feature at level 0: no KIP-848, no KIP-890.
    """
    with tempfile.TemporaryDirectory(prefix="sage-kafka-format-") as name:
        folder = Path(name)
        properties = folder / "format.properties"
        properties.write_text(
            "process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=CONTROLLER\n"
            "listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2\n"
            f"controller.quorum.voters=1@127.0.0.1:2\nlog.dirs={folder / 'data'}\n"
        )
        arguments = ["format", "-t", _random_id(), "-c", str(properties)]
        done = subprocess.run(
            ["java", *_JVM, "-cp", f"{home / 'libs'}/*", "kafka.tools.StorageTool", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise NotFound(f"Apache Kafka {VERSION}: its format tool failed: {(done.stderr or done.stdout).strip()}")
        shutil.copy(folder / "data" / _BOOTSTRAP, home / _BOOTSTRAP)


def _random_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


class ApacheKafka:
    """A cluster of one or three nodes; a context manager.

    Args:
        nodes: how many combined broker-controllers.
        data_dir: where logs and data live; ``None`` is a temporary folder, removed by ``stop``.
        heap: of each JVM.
        settings: broker properties over the ones set here.
        say: told what takes long.
        as_shipped: run the JVMs as Kafka's own script does, with 1 GiB each: for measurements.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        data_dir: Path | None = None,
        heap: str = "512m",
        as_shipped: bool = False,
        settings: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._home = fetch_kafka(say)
        self._own_folder = tempfile.TemporaryDirectory(prefix="sage-kafka-") if data_dir is None else None
        self.data_dir = data_dir or Path(self._own_folder.name if self._own_folder else ".")
        self._heap = "1g" if as_shipped else heap
        self._jvm = _AS_SHIPPED if as_shipped else _QUICK
        self._settings = dict(settings or {})
        self._cluster_id = _random_id()
        ports = free_ports(2 * nodes)
        self._ports = dict(enumerate(ports[:nodes], start=1))
        self._controllers = dict(enumerate(ports[nodes:], start=1))
        self._listeners: dict[str, str] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def add_listeners(self, listeners: Mapping[str, str]) -> None:
        """More ways in for clients, name -> ``NAME://host:port``, before a cluster of one node starts; the settings
        have their protocols."""
        self._listeners.update(listeners)

    @property
    def nodes(self) -> tuple[int, ...]:
        """The nodes' ids, from 1."""
        return tuple(self._ports)

    @property
    def bootstrap_servers(self) -> str:
        """All nodes' addresses."""
        return ",".join(f"{_HOST}:{port}" for port in self._ports.values())

    @property
    def process_ids(self) -> list[int]:
        """Of the nodes that run."""
        return [process.pid for process in self._processes.values()]

    def __enter__(self) -> ApacheKafka:
        return self.start_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start_all(self) -> ApacheKafka:
        """Start every node that does not run and wait until all answer.

        Raises:
            SageError: a node ended, with its last words; or DeadlineExceeded.
        """
        try:
            for node in self._ports:
                if node not in self._processes:
                    self._spawn(node)
            for node in self._ports:
                self._wait_for(node)
        except BaseException:
            self.stop()
            raise
        return self

    def start(self, node: int = 1) -> None:
        """Start a node that was killed or stopped; its data is still there. Waits until it answers."""
        self._spawn(node)
        self._wait_for(node)

    def kill(self, node: int = 1) -> None:
        """As ``kill -9``."""
        process = self._processes.pop(node)
        process.kill()
        process.wait()

    def freeze(self, node: int = 1) -> None:
        """SIGSTOP: it holds its connections and says nothing, as a machine that swaps or collects garbage."""
        self._processes[node].send_signal(signal.SIGSTOP)

    def thaw(self, node: int = 1) -> None:
        """SIGCONT: it goes on as if no time had passed."""
        self._processes[node].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stop all nodes and remove a temporary folder; idempotent."""
        processes, self._processes = self._processes, {}
        for process in processes.values():
            # Nothing here outlives the test, and a controlled shutdown of the last controllers hangs.
            process.kill() if self._own_folder is not None else process.terminate()
        for process in processes.values():
            try:
                process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._own_folder is not None:
            self._own_folder.cleanup()

    def log(self, node: int = 1) -> str:
        """What a node has said so far."""
        path = self.data_dir / f"node-{node}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def console(
        self, tool: str, *arguments: str, stdin: str | None = None, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run one of Kafka's own console tools, such as ``kafka-console-consumer``.

        ``--bootstrap-server`` is added. The result holds stdout and stderr; the caller looks at ``returncode``.

        Raises:
            DeadlineExceeded: it ran longer than ``timeout`` seconds.
        """
        command = [*self._java("256m", _QUICK), _TOOLS[tool], "--bootstrap-server", self.bootstrap_servers, *arguments]
        try:
            return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as expired:
            raise DeadlineExceeded(f"{tool}: ran longer than {timeout:g} s") from expired

    # ---------------------------------------------------------------------------------------- internals

    def _java(self, heap: str, options: Sequence[str]) -> list[str]:
        return ["java", f"-Xmx{heap}", *options, *_JVM, "-cp", f"{self._home / 'libs'}/*"]

    def _spawn(self, node: int) -> None:
        properties = self.data_dir / f"node-{node}.properties"
        if not properties.exists():
            properties.write_text("".join(f"{name}={value}\n" for name, value in self._node_settings(node).items()))
            self._format(node)
        with (self.data_dir / f"node-{node}.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                [*self._java(self._heap, self._jvm), "kafka.Kafka", str(properties)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data_dir,
            )

    def _format(self, node: int) -> None:
        """Write what Kafka's format tool writes for a fixed quorum, without a second JVM."""
        folder = self.data_dir / f"node-{node}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "meta.properties").write_text(
            f"version=1\ncluster.id={self._cluster_id}\nnode.id={node}\ndirectory.id={_random_id()}\n"
        )
        shutil.copy(self._home / _BOOTSTRAP, folder / _BOOTSTRAP)

    def _node_settings(self, node: int) -> dict[str, str]:
        replicas = str(min(3, len(self._ports)))
        in_sync = "2" if len(self._ports) >= 3 else "1"
        plain = f"PLAINTEXT://{_HOST}:{self._ports[node]}"
        more = "".join(f",{listener}" for listener in self._listeners.values())
        voters = ",".join(f"{each}@{_HOST}:{port}" for each, port in self._controllers.items())
        return {
            **_SETTINGS,
            "node.id": str(node),
            "listeners": f"{plain},CONTROLLER://{_HOST}:{self._controllers[node]}{more}",
            "advertised.listeners": f"{plain}{more}",
            "controller.quorum.voters": voters,
            "log.dirs": str(self.data_dir / f"node-{node}"),
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": in_sync,
            **self._settings,
        }

    def _wait_for(self, node: int) -> None:
        deadline = time.monotonic() + _STARTUP_TIMEOUT
        process = self._processes[node]
        while not answers(_HOST, self._ports[node]):
            if process.poll() is not None:
                last = (self.log(node).strip().splitlines() or ["(it said nothing)"])[-1]
                raise SageError(f"Apache Kafka node {node} ended with {process.returncode}: {last}")
            if time.monotonic() > deadline:
                raise DeadlineExceeded(f"Apache Kafka node {node}: no answer for {_STARTUP_TIMEOUT:.0f} s")
            time.sleep(0.05)


def free_ports(count: int) -> Sequence[int]:
    """Ports that were free a moment ago, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((_HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
