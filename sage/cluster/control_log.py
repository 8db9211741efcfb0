"""What the control topic says, kept up to date by reading on."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import Final

from sage.cluster.deployment import Deployment, NewerRecord
from sage.cluster.desired import Desired
from sage.cluster.names import ControlTopics
from sage.errors import InvalidTopology, NotFound, Unreachable
from sage.model.partition import TopicPartition
from sage.ports import KafkaClients, RawMessage

logger = logging.getLogger("sage.cluster")

WORKER_PREFIX: Final = "worker:"
"""How the key of a worker's record begins: a value says that it shall drain, none that it need not."""

CHANGES_KEPT: Final = 50
"""Pointers of each topology that are remembered, for ``history``."""

_BATCH: Final = 1_000
_EARLIEST: Final = -2


def worker_key(worker: str) -> bytes:
    """Where it stands that a worker shall drain."""
    return f"{WORKER_PREFIX}{worker}".encode()


def not_deployed_yet(name: str) -> str:
    """What is told of a topology that has no version, only one that workers check."""
    return (
        "it has not been deployed yet: its first version is being checked; where nobody deploys it any more, deploy it "
        f"again, or `sage topology delete {name}`"
    )


class ControlLog:
    """A reader of the topologies topic. One thread calls it.

    Only committed records are seen: a deployment and its pointer come together or not at all. Records that no SAGE of
    this version wrote are named in ``foreign`` and passed over, so that one of them stops nobody.

    Attributes:
        deployments: by name and version.
        pointers: by name; those of deleted topologies too, until they are purged.
        drained_workers: workers that shall drain.
        foreign: key -> why the record was not understood.
        newer: keys of those that a newer SAGE wrote.
        position: the offset up to which (exclusive) all this was read.

    Raises:
        NotFound: the topic does not exist (``ensure_control_topics`` makes it).
        Unreachable, Unauthorized: the brokers.
    """

    def __init__(self, clients: KafkaClients, topics: ControlTopics) -> None:
        self._clients = clients
        self._partition = TopicPartition(topics.topologies, 0)
        self.deployments: dict[tuple[str, int], Deployment] = {}
        self.pointers: dict[str, Desired] = {}
        self.drained_workers: set[str] = set()
        self.foreign: dict[str, str] = {}
        self.newer: set[str] = set()
        self.position = 0
        self._changes: dict[str, deque[Desired]] = {}
        self._admin = clients.admin()
        self._consumer = clients.consumer(None)
        try:
            if not self._admin.describe([topics.topologies]):
                raise NotFound(f"topic {topics.topologies} does not exist on {clients.address}: nothing was deployed")
            self._consumer.assign({self._partition: _EARLIEST})
        except BaseException:
            self.close()
            raise

    # ----------------------------------------------------------------------------------------- reading

    def read_to_end(self, timeout: float = 30.0) -> frozenset[str]:
        """Read all that is committed now; the names of topologies (and ``worker:<id>``) that changed.

        Raises:
            Unreachable: the end was not reached within ``timeout`` seconds.
        """
        (end,) = self._admin.end_offsets([self._partition]).values()
        deadline = time.monotonic() + timeout
        changed: set[str] = set()
        while self.position < end:
            changed |= self.poll(0.1)
            if time.monotonic() > deadline:
                raise Unreachable(
                    f"{self._partition.topic}: read to {self.position} of {end} within {timeout:.0f} s, no further",
                    where=self._clients.address,
                )
        return frozenset(changed)

    def poll(self, timeout: float) -> frozenset[str]:
        """Read on; waits up to ``timeout`` seconds for the first record. The names that changed."""
        changed: set[str] = set()
        for message in self._consumer.poll(_BATCH, timeout):
            changed.add(self._take(message))
            self.position = message.offset() + 1
        # Behind the last record may be the marker that ends its transaction.
        self.position = max(self.position, self._consumer.ends_reached().get(self._partition, 0))
        return frozenset(changed)

    def _take(self, message: RawMessage) -> str:
        key, value = (message.key() or b"").decode(errors="replace"), message.value()
        self.foreign.pop(key, None)
        self.newer.discard(key)
        try:
            if key.startswith(WORKER_PREFIX):
                self._take_worker(key, value)
                return key
            name, at, version = key.partition("@")
            if at and not version.isdecimal():
                raise InvalidTopology("its key is no name@version")
            if at:
                self._take_deployment(name, int(version), value)
            else:
                self._take_pointer(name, value)
            return name
        except (InvalidTopology, TypeError, ValueError, KeyError) as error:
            self.foreign[key] = str(error)
            if isinstance(error, NewerRecord):
                self.newer.add(key)
            logger.warning("%s@%d (%s): passed over: %s", self._partition, message.offset(), key, error)
            return key

    def _take_worker(self, key: str, value: bytes | None) -> None:
        worker = key.removeprefix(WORKER_PREFIX)
        if value is None:
            self.drained_workers.discard(worker)
        else:
            self.drained_workers.add(worker)

    def _take_deployment(self, name: str, version: int, value: bytes | None) -> None:
        self.deployments.pop((name, version), None)  # also where what came instead can't be read
        if value is None:
            return
        deployment = Deployment.decode(value)
        if (deployment.name, deployment.version) != (name, version):
            raise InvalidTopology(f"it says of itself that it is {deployment.name}@{deployment.version}")
        deployment.refuse_unreadable()
        self.deployments[name, version] = deployment

    def _take_pointer(self, name: str, value: bytes | None) -> None:
        if value is None:
            self.pointers.pop(name, None)
            self._changes.pop(name, None)
            return
        pointer = Desired.decode(value)
        self.pointers[name] = pointer
        self._changes.setdefault(name, deque(maxlen=CHANGES_KEPT)).append(pointer)

    # ----------------------------------------------------------------------------------------- looking

    def current(self, name: str) -> Desired:
        """The pointer of a topology that is deployed.

        Raises:
            NotFound: there is none, or it was deleted.
        """
        found = self.pointers.get(name)
        if found is None or found.state == "deleted":
            raise NotFound(f"no topology {name!r} is deployed on {self._clients.address}; `sage topology list`")
        return found

    def deployment(self, name: str, version: int) -> Deployment:
        """A stored version. Raises NotFound, naming those that are there."""
        found = self.deployments.get((name, version))
        if found is None:
            if version == 0 and name in self.running and self.running[name].version == 0:
                raise NotFound(not_deployed_yet(name), where=name)
            if (reason := self.foreign.get(f"{name}@{version}")) is not None:
                raise NotFound(f"version {version} can't be read: {reason}", where=name)
            there = ", ".join(map(str, self.versions(name))) or "none"
            raise NotFound(f"no version {version} of {name}; there are: {there}")
        return found

    def versions(self, name: str) -> list[int]:
        """The stored versions of a topology, oldest first."""
        return sorted(version for owner, version in self.deployments if owner == name)

    def changes(self, name: str) -> list[Desired]:
        """The pointers that a topology has had, oldest first, as far as the topic still has them."""
        return list(self._changes.get(name, ()))

    @property
    def running(self) -> Mapping[str, Desired]:
        """Pointers of all topologies that are not deleted."""
        return {name: pointer for name, pointer in self.pointers.items() if pointer.state != "deleted"}

    def close(self) -> None:
        """Release the reader. Twice is fine."""
        self._consumer.close()
        self._admin.close()
