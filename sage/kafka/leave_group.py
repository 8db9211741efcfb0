"""Leaving a group by hand, for members that librdkafka does not take out of it.

A static member does not leave when it is closed (KIP-345): it may come back, and if it doesn't, its session ends. On
the embedded broker nobody waits for that, and those that died are taken out by the relay in front of it.
"""

from __future__ import annotations

import logging
import socket
import struct
from typing import Final

from sage.kafka.config import bootstrap_addresses
from sage.kafka.probe import request

_log: Final = logging.getLogger("sage.kafka.consumer")

_LEAVE_GROUP: Final = 13


def leave_group(bootstrap_servers: str, group: str, member: str, *, timeout: float = 5.0) -> None:
    """Take a member out of its group on the embedded broker, whose one node coordinates all groups. Never raises: a
    broker that is gone has forgotten it."""
    body = b"".join(struct.pack(">h", len(text)) + text for text in (group.encode(), member.encode()))
    try:
        host, port = bootstrap_addresses(bootstrap_servers)[0]
        with socket.create_connection((host, port), timeout) as connection:
            connection.settimeout(timeout)
            (error,) = struct.unpack(">h", request(connection, _LEAVE_GROUP, 0, body)[:2])
        if error:
            _log.info("%s was not in group %s any more (error %d)", member, group, error)
    except (OSError, struct.error, ValueError) as failure:
        _log.info("group %s was not told that %s has left: %s", group, member, failure)
