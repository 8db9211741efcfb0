"""What is deployed under a name, with its code imported here."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from sage.cluster.control_log import ControlLog
from sage.cluster.names import ControlTopics
from sage.errors import NotFound
from sage.graph.topology import Topology
from sage.operations.cluster import not_deployed
from sage.ports import KafkaClients
from sage.spec.registry import ComponentKind, Registry
from sage.spec.suggest import hint


def is_target(text: str) -> bool:
    """Whether a word names a file or a module's attribute, as opposed to what is deployed under that name."""
    return text.endswith((".yaml", ".yml", ".py")) or ":" in text or "/" in text


def deployed_topology(clients: KafkaClients, topics: ControlTopics, name: str) -> tuple[Topology, int]:
    """The topology that is deployed as ``name``, and its version. Code is looked for in this folder first.

    Raises:
        NotFound: nothing is deployed under that name.
        InvalidTopology: its code can't be imported here.
    """
    try:
        log = ControlLog(clients, topics)
    except NotFound as error:
        raise not_deployed(clients.address, name) from error
    try:
        log.read_to_end()
        pointer = log.running.get(name)
        if pointer is None or pointer.version == 0:
            raise _missing(clients, name, log.running)
        return log.deployment(name, pointer.version).decoded(_load_here).topology, pointer.version
    finally:
        log.close()


def _missing(clients: KafkaClients, name: str, known: Collection[str]) -> NotFound:
    others = f"; {hint(name, known, what='deployed')}" if known else ""
    return NotFound(f"is not deployed on {clients.address}{others}, or give a file such as {name}.yaml", where=name)


def _load_here(reference: str, component: ComponentKind) -> Any:
    return Registry.installed().load(component, reference, folder=Path.cwd())
