"""Removing what a deleted topology has left: its topics, its groups, its versions."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from sage.cluster.cluster_view import ClusterView
from sage.cluster.control_log import ControlLog
from sage.cluster.names import ControlTopics
from sage.cluster.progress import POLL, hosting, unseen
from sage.cluster.session import ControlSession
from sage.errors import ChangeRefused, DeadlineExceeded
from sage.ports import Admin, KafkaClients

TIMEOUT: Final = 60.0
"""Seconds in which workers leave the groups of a deleted topology."""


@dataclass(frozen=True, slots=True)
class Purged:
    """What was, or would be, removed."""

    topics: tuple[str, ...]
    groups: tuple[str, ...]
    versions: tuple[int, ...]


def to_purge(admin: Admin, log: ControlLog, name: str) -> Purged:
    """What hangs on a topology's name: edges, dead letters, retries, journals, changelogs, positions, of all versions.

    Topics that it writes by ``to`` and reads by ``from_topic`` are not its own.
    """
    begin = f"{name}."
    topics = tuple(info.name for info in admin.list_topics() if info.name.startswith(begin))
    groups = tuple(group for group in admin.list_groups() if group.startswith(begin))
    return Purged(topics, groups, tuple(log.versions(name)))


def purge(clients: KafkaClients, topics: ControlTopics, session: ControlSession, timeout: float = TIMEOUT) -> Purged:
    """Remove all of it; may be done again. The pointer goes last, so that one that was cut off is still seen.

    Raises:
        ChangeRefused: the topology was not deleted.
        DeadlineExceeded: somebody is still in one of its groups.
        Conflict: somebody deployed it meanwhile.
    """
    pointer = session.pointer
    if pointer is not None and pointer.state != "deleted":
        raise ChangeRefused(f"it is {pointer.state}; delete it first", where=session.name)
    admin = clients.admin()
    try:
        found = to_purge(admin, session.log, session.name)
        _wait_until_left(clients, topics, admin, session, found, timeout)
        admin.delete_groups(found.groups)
        admin.delete(found.topics)
    finally:
        admin.close()
    name = session.name
    session.forget([*(f"{name}@{version}".encode() for version in found.versions), name.encode()])
    return found


def _wait_until_left(
    clients: KafkaClients, topics: ControlTopics, admin: Admin, session: ControlSession, found: Purged, timeout: float
) -> None:
    view = ClusterView(clients, topics)
    deadline = time.monotonic() + timeout
    try:
        view.read_fresh()
        while True:
            hosts = hosting(view, session.name)
            members = [group for group in found.groups if admin.members(group)]
            waiting = unseen(view, session.log.position) or (
                f"{hosts[0]} to leave" if hosts else f"the members of {members[0]} to leave" if members else ""
            )
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise DeadlineExceeded(f"still waiting for {waiting}; nothing was removed", where=session.name)
            view.poll(POLL)
    finally:
        view.close()
