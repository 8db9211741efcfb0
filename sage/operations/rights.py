"""What each role must be allowed on the brokers, and which of it an account is not.

One table serves the documentation, ``sage doctor --prefix`` and the tests on secured brokers. A tenant is a prefix: its
topologies, and with them their topics, groups and transactional ids, begin with it, and its control topics have a
prefix of their own outside it, so that a worker's right to write topics does not reach them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from sage.cluster.names import ControlTopics
from sage.ports import Admin, Operation, Resource

Role = Literal["worker", "deployer", "reader"]

ROLES: Final[tuple[Role, ...]] = ("worker", "deployer", "reader")

ANYBODY: Final = "User:NAME"

_NOBODYS: Final = "sage-doctor"
"""How the name ends that stands for all of a prefix."""


@dataclass(frozen=True, slots=True)
class Right:
    """Operations on one resource, or on all whose names begin so.

    Attributes:
        kind: what it is.
        name: its name, or how the names begin.
        prefixed: which of the two.
        operations: what has to be allowed; Kafka takes Describe to be part of Read and of Write.
        why: what does not work without, in a few words.
    """

    kind: Resource
    name: str
    prefixed: bool
    operations: tuple[Operation, ...]
    why: str

    @property
    def shown(self) -> str:
        """``topic qa-*``."""
        return f"{self.kind} {self.name}{'*' if self.prefixed else ''}"

    def command(self, principal: str = ANYBODY, *, address: str = "BROKERS") -> str:
        """The line of Kafka's own tool that gives it."""
        words = ["kafka-acls.sh", "--bootstrap-server", address, "--command-config", "admin.properties", "--add"]
        words += ["--allow-principal", principal]
        for operation in self.operations:
            words += ["--operation", operation]
        words += [f"--{self.kind}", self.name]
        if self.prefixed:
            words += ["--resource-pattern-type", "prefixed"]
        return shlex.join(words)


def rights_of(role: Role, prefix: str, control: ControlTopics) -> tuple[Right, ...]:
    """What ``role`` needs for the topologies whose names begin with ``prefix``."""
    if role == "worker":
        return (
            Right("topic", prefix, True, ("Read", "Write", "Create", "Delete"), "records of steps; trimming them"),
            Right("group", prefix, True, ("Read",), "sharing partitions out; offsets"),
            Right("transactional-id", prefix, True, ("Write",), "exactly-once; sources"),
            Right("topic", control.topologies, False, ("Read",), "what shall run"),
            Right("topic", control.status, False, ("Read", "Write"), "saying what runs, and seeing other workers"),
            Right("topic", control.logs, False, ("Write",), "`sage topology logs`"),
        )
    if role == "deployer":
        return (
            Right("topic", f"{control.prefix}.", True, ("Read", "Write", "Create"), "what shall run"),
            Right("transactional-id", control.deployer_id(prefix), True, ("Write",), "one deploy at a time"),
            Right(
                "topic",
                prefix,
                True,
                ("Read", "Write", "Create", "Delete", "Alter"),
                "moving, widening, purging",
            ),
            Right("group", prefix, True, ("Read", "Delete"), "offsets that are kept, moved or purged"),
            Right("transactional-id", prefix, True, ("Write",), "ending what a worker left open"),
        )
    return (
        Right("topic", f"{control.prefix}.", True, ("Read",), "what shall run, what runs, logs"),
        Right("topic", prefix, True, ("Read",), "records, dead letters, lag"),
        Right("group", prefix, True, ("Describe",), "lag"),
    )


@dataclass(frozen=True, slots=True)
class Missing:
    """What an account is not allowed of a right, and what of it the brokers do not tell."""

    right: Right
    operations: tuple[Operation, ...]
    unknown: tuple[Operation, ...] = ()

    @property
    def command(self) -> str:
        """What gives it."""
        return replace(self.right, operations=self.operations).command()


def missing_rights(admin: Admin, role: Role, prefix: str, control: ControlTopics) -> Iterator[Missing]:
    """Ask the brokers what of a role's rights this account lacks.

    Raises:
        Unreachable, Unauthorized: nobody answers, or the login itself is refused.
    """
    topics = [info.name for info in admin.list_topics()]
    groups = admin.list_groups()
    for right in rights_of(role, prefix, control):
        found = admin.allowed(right.kind, _asked(right, topics if right.kind == "topic" else groups))
        if right.kind == "topic" and right.prefixed and "Create" in right.operations:
            # A topic that exists may have been given by its own name; one that does not tells of the prefix.
            found = {**found, "Create": admin.allowed("topic", f"{right.name}{_NOBODYS}").get("Create", False)}
        lacking: tuple[Operation, ...] = tuple(one for one in right.operations if found.get(one) is False)
        unknown: tuple[Operation, ...] = tuple(one for one in right.operations if one not in found)
        if lacking or unknown:
            yield Missing(right, lacking, unknown)


def may_deploy(admin: Admin, control: ControlTopics) -> bool:
    """Whether this account can write what shall run, which only deployers should."""
    return admin.allowed("topic", control.topologies).get("Write", False)


def _asked(right: Right, known: Sequence[str]) -> str:
    """A resource to ask about: the one itself, else one of the prefix that exists, else one that nobody has."""
    if not right.prefixed:
        return right.name
    if right.kind == "transactional-id":
        return f"{right.name}{_NOBODYS}"
    return next((name for name in known if name.startswith(right.name)), f"{right.name}{_NOBODYS}")
