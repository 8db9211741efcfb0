"""Which topologies, steps and workers ``sage topology logs`` can be asked for: what is deployed, and what has lines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from sage.cluster.cluster_view import ClusterView
from sage.cluster.control_log import ControlLog
from sage.cluster.log_records import LogReader, LogRecord
from sage.cluster.names import ControlTopics
from sage.errors import DeadlineExceeded, NotFound
from sage.ports import KafkaClients
from sage.spec.suggest import hint

_WAIT: Final = 0.2
_PATIENCE: Final = 30.0


def lines_there(reader: LogReader) -> Iterator[LogRecord]:
    """What was there when the reader began: partitions come one after the other.

    Raises:
        DeadlineExceeded: the topic could not be read to its end.
    """
    deadline = time.monotonic() + _PATIENCE
    while not reader.is_at_end:
        for line in reader.poll(_WAIT):
            deadline = time.monotonic() + _PATIENCE
            yield line
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"the logs could not be read to their end within {_PATIENCE:.0f} s")


def refuse_unknown(clients: KafkaClients, topics: ControlTopics, topology: str, step: str, worker: str) -> None:
    """Raise for a topology, step or worker that nobody knows: neither what is deployed, nor any line. Empty is all.

    Raises:
        NotFound: that is so; with the nearest name.
    """
    if not (topology or step or worker):
        return
    steps = _deployed(clients, topics)
    workers: set[str] = set()
    reader = LogReader(clients, topics)
    try:
        for line in lines_there(reader):
            steps.setdefault(line.topology, set()).add(line.step)
            workers.add(line.worker)
    finally:
        reader.close()
    _check("topology", topology, set(steps))
    _check("step", step, steps[topology] if topology else set().union(*steps.values()), where=topology)
    if worker not in workers:  # hearing who lives takes a moment
        _check("worker", worker, workers | _heard_of(clients, topics))


_MANY: Final = {"topology": "topologies", "step": "steps", "worker": "workers"}


def _check(what: str, name: str, known: set[str], *, where: str = "") -> None:
    if name and name not in known:
        raise NotFound(f"no {what} {name!r}; {hint(name, known - {''}, what=_MANY[what])}", where=where or None)


def _deployed(clients: KafkaClients, topics: ControlTopics) -> dict[str, set[str]]:
    """Topology -> the steps of all its stored versions."""
    try:
        log = ControlLog(clients, topics)
    except NotFound:  # nothing was ever deployed: workers may have logged all the same
        return {}
    try:
        log.read_to_end()
        found: dict[str, set[str]] = {name: set() for name in log.pointers}
        for (name, _), deployment in log.deployments.items():
            found.setdefault(name, set()).update(step["name"] for step in deployment.plan["steps"])
        return found
    finally:
        log.close()


def _heard_of(clients: KafkaClients, topics: ControlTopics) -> set[str]:
    try:
        view = ClusterView(clients, topics)
    except NotFound:
        return set()
    try:
        view.read_fresh()
        return set(view.workers)
    finally:
        view.close()
