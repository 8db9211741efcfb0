"""Real brokers for tests: the embedded one, and Apache Kafka fetched by Maven."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
from confluent_kafka.admin import AdminClient

from sage.kafka.clients import ConfluentClients
from sage.kafka.launchers.apache import ApacheKafka, missing_tools
from sage.kafka.launchers.embedded import embedded_broker_command
from tests.support.waiting import wait_until


class Broker(Protocol):
    """A broker that tests can use without knowing which one it is."""

    @property
    def bootstrap_servers(self) -> str: ...

    @property
    def is_embedded(self) -> bool: ...

    def clients(self, config: dict[str, Any] | None = None) -> ConfluentClients:
        """Clients of this broker; the group protocol is probed."""
        ...


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EmbeddedBroker:
    """The embedded broker on one folder and port; can be killed and started again."""

    is_embedded = True

    def __init__(self, data_dir: Path | None = None) -> None:
        self._own_folder = tempfile.TemporaryDirectory(prefix="sage-broker-") if data_dir is None else None
        self.data_dir = data_dir or Path(self._own_folder.name if self._own_folder else ".")
        self.command = embedded_broker_command(self.data_dir, free_port())
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"{self.command.host}:{self.command.port}"

    def clients(self, config: dict[str, Any] | None = None) -> ConfluentClients:
        return ConfluentClients(self.bootstrap_servers, config, group_protocol="classic", is_embedded=True)

    def start(self) -> EmbeddedBroker:
        self._process = subprocess.Popen(
            self.command.argv,
            env={**os.environ, **self.command.env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self.command.ready, timeout=20, what="the embedded broker answers")
        return self

    def kill(self) -> None:
        """As kill -9: nothing is saved any more."""
        self._end(subprocess.Popen.kill)

    def stop(self) -> None:
        """Make an end of it; what it held in a temporary folder goes with it."""
        if self._own_folder is None:
            self.terminate()
        else:
            self.kill()  # nobody will read what SIGTERM would save
            self._own_folder.cleanup()

    def terminate(self) -> None:
        """SIGTERM: everything is saved, and the folder stays."""
        self._end(subprocess.Popen.terminate)

    def _end(self, signal: Callable[[subprocess.Popen[bytes]], None]) -> None:
        if self._process is not None:
            signal(self._process)
            self._process.wait(timeout=20)
            self._process = None


def require_embedded() -> None:
    """Skip where the ``local`` extra isn't installed."""
    pytest.importorskip("noida_db", reason='the embedded broker is not installed: pip install -e ".[local]"')


class ApacheBroker:
    """Apache Kafka on one or three nodes; ``cluster`` kills and starts its nodes and runs its console tools."""

    is_embedded = False

    def __init__(self, cluster: ApacheKafka) -> None:
        self.cluster = cluster

    @property
    def bootstrap_servers(self) -> str:
        return self.cluster.bootstrap_servers

    def clients(self, config: dict[str, Any] | None = None) -> ConfluentClients:
        return ConfluentClients(self.bootstrap_servers, config)


def start_apache(nodes: int, settings: Mapping[str, str] | None = None) -> ApacheBroker:
    """A running cluster, ``settings`` over its own; skips, loudly, only where Java or Maven is missing."""
    if reason := missing_tools():
        pytest.skip(f"NOT TESTED ON APACHE KAFKA: {reason}")
    cluster = ApacheKafka(nodes, settings=settings, say=lambda text: print(text, file=sys.stderr, flush=True))
    return ApacheBroker(cluster.start_all())


def leader_of(broker: ApacheBroker, topic: str, partition: int) -> int:
    """The node that leads a partition at the moment: of an internal topic, the one that coordinates its groups or
    transactions."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})

    def leader() -> int | None:
        found = admin.list_topics(topic, timeout=10).topics[topic].partitions[partition].leader
        return found if found > 0 else None

    return wait_until(leader, timeout=30, what=f"{topic}-{partition} has a leader") or 0


class KafkaContainerBroker:
    """Kafka in a container, where a Docker engine answers."""

    is_embedded = False

    def __init__(self, container: Any) -> None:
        self._container = container

    @classmethod
    def start_or_skip(cls) -> KafkaContainerBroker:
        """A running container; skips where ``docker info`` fails."""
        if shutil.which("docker") is None:
            pytest.skip("docker is not installed; Apache Kafka from Maven is tested instead")
        if subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=30).returncode != 0:
            pytest.skip("no Docker engine answers; Apache Kafka from Maven is tested instead")
        from testcontainers.kafka import KafkaContainer

        container = KafkaContainer("confluentinc/cp-kafka:8.1.0").with_kraft()
        container.start()
        return cls(container)

    @property
    def bootstrap_servers(self) -> str:
        return str(self._container.get_bootstrap_server())

    def clients(self, config: dict[str, Any] | None = None) -> ConfluentClients:
        return ConfluentClients(self.bootstrap_servers, config)

    def stop(self) -> None:
        self._container.stop()
