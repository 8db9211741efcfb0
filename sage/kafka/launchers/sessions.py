"""What the embedded broker lacks: sessions that end, for members that died without leaving their groups.

A member that is not heard of for its ``session.timeout.ms`` is dead to Kafka's coordinator, and others get its
partitions. Here the requests of all members pass, so it is known when each was heard of last.

It also forgets a group whose second member comes just when the wait for more members ends, 0.3 s after the first: it
answers neither, for ever. A member that asks again has both answered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

JOIN_GROUP: Final = 11
HEARTBEAT: Final = 12
LEAVE_GROUP: Final = 13
SYNC_GROUP: Final = 14
"""API keys of Kafka's protocol."""

DEFAULT_TIMEOUT: Final = 45.0
"""Seconds of a session whose beginning was not seen: Kafka's own default."""

PATIENCE: Final = 2.0
"""Seconds after which a group is forgotten whose members have all asked to join: there is nobody to wait for."""

_HEADER: Final = 12
"""Bytes of length, API key, version and correlation id."""

_ANSWER_HEADER: Final = 8
"""Bytes of length and correlation id."""

_LATEST: Final = {JOIN_GROUP: 5, HEARTBEAT: 3, LEAVE_GROUP: 2, SYNC_GROUP: 3}
"""The last versions that are written as here; no client of the embedded broker uses later ones."""


class Member(NamedTuple):
    """A member of a group, by the id that the coordinator gave it."""

    group: str
    id: str


@dataclass(slots=True)
class Joining:
    """A request whose answer waits for others of the group; ``waited`` is in seconds."""

    api: int
    version: int
    member: Member
    waited: float = 0.0


@dataclass(eq=False, slots=True)
class Connection:
    """What is known of one client's connection.

    Attributes:
        timeouts: by group, the seconds of silence after which its members here are dead.
        joining: by correlation id. Kafka counts no silence of these.
    """

    timeouts: dict[str, float] = field(default_factory=dict)
    joining: dict[bytes, Joining] = field(default_factory=dict)


@dataclass(slots=True)
class _Session:
    timeout: float
    left: float


class Sessions:
    """The members of all groups of one broker. Counts seconds that its caller was awake, so that a computer that
    slept declares nobody dead."""

    def __init__(self) -> None:
        self._connections: set[Connection] = set()
        self._sessions: dict[Member, _Session] = {}

    def connected(self) -> Connection:
        """A client has come; what it asks is told with this."""
        connection = Connection()
        self._connections.add(connection)
        return connection

    def disconnected(self, connection: Connection) -> None:
        """It has gone, and may come back on another connection until its sessions end."""
        self._connections.discard(connection)

    def asked(self, connection: Connection, frame: bytes) -> None:
        """Take note of a request, whatever it is."""
        api, version = int.from_bytes(frame[4:6], "big"), int.from_bytes(frame[6:8], "big")
        if version > _LATEST.get(api, -1):
            return
        _, at = _text(frame, _HEADER)  # the client's name
        group, at = _text(frame, at)
        if api == JOIN_GROUP:
            connection.timeouts[group] = int.from_bytes(frame[at : at + 4], "big") / 1000
            at += 4 if version == 0 else 8
        elif api != LEAVE_GROUP:
            at += 4  # the generation
        member = Member(group, _text(frame, at)[0])
        if api == LEAVE_GROUP:
            self._sessions.pop(member, None)
            return
        if api != HEARTBEAT:
            connection.joining[frame[8:12]] = Joining(api, version, member)
        self._heard(connection, member)

    def answered(self, connection: Connection, frame: bytes) -> None:
        """Take note of an answer, whatever it is: a new member learns its id by it."""
        if (joining := connection.joining.pop(frame[4:8], None)) is None:
            return
        member = joining.member
        if joining.api == JOIN_GROUP:
            at = _ANSWER_HEADER + (4 if joining.version >= 2 else 0)
            if frame[at : at + 2] != b"\0\0":
                return
            _, at = _text(frame, at + 6)  # the protocol, behind the error and the generation
            _, at = _text(frame, at)  # the leader
            member = Member(member.group, _text(frame, at)[0])
        self._heard(connection, member)

    def passed(self, seconds: float) -> list[Member]:
        """So much time went by; the members whose sessions are over, each once."""
        waiting = set()
        for connection in self._connections:
            for joining in connection.joining.values():
                joining.waited += seconds
                waiting.add(joining.member)
        over = []
        for member, session in self._sessions.items():
            if member not in waiting:
                session.left -= seconds
                if session.left <= 0:
                    over.append(member)
        for member in over:
            del self._sessions[member]
        return over

    def forgotten(self) -> list[Connection]:
        """Of each group whose members all wait for each other, the connection that waits longest: closed, its client
        asks again."""
        longest: dict[str, tuple[float, Connection]] = {}
        joining: set[Member] = set()
        for connection in self._connections:
            for one in connection.joining.values():
                if one.api == JOIN_GROUP and one.waited >= PATIENCE:
                    joining.add(one.member)
                    if one.waited > longest.get(one.member.group, (0.0, connection))[0]:
                        longest[one.member.group] = one.waited, connection
        others = {member.group for member in self._sessions if member not in joining}
        return [connection for group, (_, connection) in longest.items() if group not in others]

    def _heard(self, connection: Connection, member: Member) -> None:
        if not member.id:
            return  # it joins for the first time, and gets its id with the answer
        session = self._sessions.get(member)
        if session is None:
            timeout = connection.timeouts.get(member.group, DEFAULT_TIMEOUT)
            self._sessions[member] = _Session(timeout, timeout)
        else:
            session.left = session.timeout


def _text(frame: bytes, at: int) -> tuple[str, int]:
    """A text that has its length in two bytes, -1 for none; and where it ends."""
    end = at + 2 + max(int.from_bytes(frame[at : at + 2], "big", signed=True), 0)
    return frame[at + 2 : end].decode(errors="replace"), end
