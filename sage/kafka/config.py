"""librdkafka's settings: what SAGE sets, what a user may set, and what nobody may.

Order: SAGE's defaults, then the user's configuration, then what one client was asked for, then the settings
that SAGE's guarantees hang on. A user's value for one of the last is refused, not ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from sage.errors import InvalidTopology
from sage.model.secrets import HIDDEN, remember_secret, without_userinfo

GroupProtocol = Literal["consumer", "classic"]

COOPERATIVE: Final = "cooperative-sticky"
EAGER: Final = "range"

DEFAULT_MESSAGE_MAX_BYTES: Final = 1_000_000
"""librdkafka's own default of ``message.max.bytes``, a little under the brokers' 1,048,588."""

FAILURES_ONLY: Final = "delivery.report.only.error"
"""Set by a caller that wants no report of records that were taken; a user can't."""

_COMMON: Final[Mapping[str, Any]] = {
    "client.id": "sage",
    # A broker that comes back is found within a second, and a dead one is not hammered.
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1000,
    # While all brokers are away the default, "rebootstrap", starts a thread per address, client and try, and queues an
    # error each time for whoever does not poll just then: memory and processor time grow for as long as that lasts
    # (librdkafka's issue 5546). Addresses are resolved again at each try without it.
    "metadata.recovery.strategy": "none",
    # Idle connections that the broker closes are routine.
    "log.connection.close": False,
    # Statistics and SASL callbacks cost nothing when unused; metadata of new topics must not take minutes.
    "topic.metadata.refresh.interval.ms": 60_000,
}

_CONSUMER: Final[Mapping[str, Any]] = {
    # With the default of 1000 the fetcher sleeps a second whenever its queue is full: a third of the speed.
    "fetch.queue.backoff.ms": 10,
    "fetch.wait.max.ms": 100,
    "max.poll.interval.ms": 300_000,
    "allow.auto.create.topics": False,
}

_CLASSIC: Final[Mapping[str, Any]] = {
    # The brokers' usual minimum: a dead worker's partitions move after 6 s.
    "session.timeout.ms": 6000,
    "heartbeat.interval.ms": 1500,
    "partition.assignment.strategy": COOPERATIVE,
}

_PRODUCER: Final[Mapping[str, Any]] = {
    # Each millisecond is one of every hop's; under load batches fill anyway.
    "linger.ms": 1,
    "message.max.bytes": DEFAULT_MESSAGE_MAX_BYTES,
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 262_144,
}

_FIXED_CONSUMER: Final[Mapping[str, Any]] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "isolation.level": "read_committed",
}

_FIXED_PRODUCER: Final[Mapping[str, Any]] = {
    "acks": "all",
    "enable.idempotence": True,
    "partitioner": "murmur2_random",
}

_CLASSIC_ONLY: Final = frozenset(
    {"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy", "group.protocol.type"}
)
"""Settings that KIP-848 moves to the broker; librdkafka refuses them there."""

_CONSUMER_ONLY_PREFIXES: Final = ("fetch.", "queued.", "auto.offset.", "group.", "session.", "heartbeat.", "max.poll.")
_PRODUCER_ONLY: Final = frozenset(
    {"acks", "linger.ms", "batch.size", "batch.num.messages", "compression.type", "compression.codec",
     "compression.level", "delivery.timeout.ms", "message.timeout.ms", "retries", "message.send.max.retries",
     "queue.buffering.max.messages", "queue.buffering.max.kbytes", "queue.buffering.max.ms", "request.timeout.ms",
     "transaction.timeout.ms", "sticky.partitioning.linger.ms", FAILURES_ONLY}
)  # fmt: skip
_CONSUMER_ONLY: Final = frozenset(
    {"partition.assignment.strategy", "check.crcs", "coordinator.query.interval.ms", "client.rack",
     "allow.auto.create.topics", "isolation.level", "enable.partition.eof"}
)  # fmt: skip

_SECRET: Final = re.compile(
    r"password|secret|token|jaas|\.pem$|oauthbearer\.config|private|passphrase|kinit\.cmd", re.IGNORECASE
)


def is_secret(name: str) -> bool:
    """Whether a setting of this name is masked wherever it is shown."""
    return bool(_SECRET.search(name))


def masked(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with secrets as ``***``, for messages and ``repr``."""
    return {
        name: HIDDEN if is_secret(name) else without_userinfo(value) if isinstance(value, str) else value
        for name, value in config.items()
    }


def check_user_config(config: Mapping[str, Any], *, where: str | None = None) -> dict[str, Any]:
    """The user's configuration, checked; its secrets are hidden from now on wherever something quotes them.

    Raises:
        InvalidTopology: a setting that SAGE's guarantees hang on has another value than SAGE's.
    """
    fixed = {**_FIXED_CONSUMER, **_FIXED_PRODUCER}
    for name, value in config.items():
        if name in fixed and not _same(value, fixed[name]):
            raise InvalidTopology(
                f"kafka setting {name!r}: SAGE's guarantees need {fixed[name]!r}; found {value!r}; remove it",
                where=where,
            )
    remember_secret(*(str(value) for name, value in config.items() if is_secret(name) and not _is_plain(value)))
    return dict(config)


def consumer_config(
    bootstrap_servers: str,
    user: Mapping[str, Any],
    call: Mapping[str, Any],
    *,
    group: str,
    read_from: Literal["earliest", "latest"],
    protocol: GroupProtocol,
    assignor: str,
) -> dict[str, Any]:
    """Settings of one consumer.

    Args:
        bootstrap_servers: ``host:port``, separated by commas.
        user: the settings that all clients share.
        call: settings of this one client; they win over the user's.
        group: the group's name.
        read_from: where to start without a committed offset.
        protocol: ``consumer`` is KIP-848.
        assignor: the classic protocol's assignor, unless ``call`` or ``user`` names another.
    """
    config: dict[str, Any] = {**_COMMON, **_CONSUMER, "bootstrap.servers": bootstrap_servers}
    if protocol == "classic":
        config |= {**_CLASSIC, "partition.assignment.strategy": assignor}
    config |= {name: value for name, value in {**user, **call}.items() if name not in _PRODUCER_ONLY}
    remote = config.pop("group.remote.assignor", None)
    if protocol == "consumer":
        for name in _CLASSIC_ONLY:
            config.pop(name, None)
        if remote is not None:
            config["group.remote.assignor"] = remote
    elif remote is not None:
        # The same wish in the older protocol's words: "range" co-partitions in both.
        config["partition.assignment.strategy"] = "range" if remote == "range" else COOPERATIVE
    return config | {
        **_FIXED_CONSUMER,
        "group.id": group,
        "group.protocol": protocol,
        "auto.offset.reset": read_from,
    }


def producer_config(
    bootstrap_servers: str, user: Mapping[str, Any], call: Mapping[str, Any], *, transactional_id: str | None
) -> dict[str, Any]:
    """Settings of one producer; arguments as for ``consumer_config``."""
    config = {**_COMMON, **_PRODUCER, "bootstrap.servers": bootstrap_servers}
    config |= {name: value for name, value in {**user, **call}.items() if not _for_consumers_only(name)}
    # Whether successes are reported is for the caller to say: who waits for each would wait for ever without.
    config[FAILURES_ONLY] = call.get(FAILURES_ONLY, False)
    config |= _FIXED_PRODUCER
    if transactional_id is not None:
        # A dead producer's open transaction holds its readers back until this time-out.
        config.setdefault("transaction.timeout.ms", 10_000)
        config["transactional.id"] = transactional_id
    return config


def admin_config(bootstrap_servers: str, user: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an admin client: the connection's only."""
    shared = {
        name: value for name, value in user.items() if name not in _PRODUCER_ONLY and not _for_consumers_only(name)
    }
    return {**_COMMON, **shared, "bootstrap.servers": bootstrap_servers}


def is_cooperative(config: Mapping[str, Any]) -> bool:
    """Whether rebalances of a consumer with these settings are incremental."""
    return bool(config["group.protocol"] == "consumer" or config["partition.assignment.strategy"] == COOPERATIVE)


_ADDRESS = re.compile(
    r"((?P<protocol>[a-z_]+)://)?(\[(?P<six>[0-9a-f:.%]+)\]|(?P<host>[^\[\]:/@\s]+))(:(?P<port>[0-9]{1,5}))?",
    re.ASCII | re.IGNORECASE,
)
_PROTOCOLS = frozenset({"plaintext", "ssl", "sasl_plaintext", "sasl_ssl"})
_DEFAULT_PORT, _LAST_PORT = "9092", 65_535


def bootstrap_addresses(bootstrap_servers: str) -> list[tuple[str, int]]:
    """The ``(host, port)`` pairs of a ``bootstrap.servers`` text; the port defaults to 9092.

    Raises:
        InvalidTopology: there are none, or an entry is no ``host:port``, with one of Kafka's protocols or none before.
    """
    found = []
    for entry in filter(None, (part.strip() for part in bootstrap_servers.split(","))):
        address = _ADDRESS.fullmatch(entry)
        port = int((address and address["port"]) or _DEFAULT_PORT)
        if address is None or not 0 < port <= _LAST_PORT or not entry.isprintable():
            raise InvalidTopology(f"bootstrap servers: {without_userinfo(entry)!a} is not host:port")
        if address["protocol"] is not None and address["protocol"].lower() not in _PROTOCOLS:
            raise InvalidTopology(f"bootstrap servers: {entry!r} is no address of Kafka; write host:port")
        found.append((address["six"] or address["host"], port))
    if not found:
        raise InvalidTopology("bootstrap servers: there is no address; write host:port,...")
    return found


def _for_consumers_only(name: str) -> bool:
    return name in _CONSUMER_ONLY or name.startswith(_CONSUMER_ONLY_PREFIXES)


def _is_plain(value: object) -> bool:
    """Whether a setting named like a secret holds none: a switch, a number, an address."""
    text = str(value).lower()
    return text in {"true", "false"} or text.isdecimal() or text.startswith(("http://", "https://"))


def _same(found: object, wanted: object) -> bool:
    if str(found).lower() == str(wanted).lower():
        return True
    return wanted == "all" and str(found) == "-1"
