"""Dead letters written by hand, as the runtime writes them."""

from __future__ import annotations

from sage.model import dead_letter_headers as names
from sage.model.record import Headers
from sage.ports import RawMessage, TopicSpec
from sage.testing.broker import InMemoryClients


def letter_headers(
    *,
    step: str = "generate",
    stage: str | None = None,
    error: str = "builtins.KeyError",
    message: str = "'documents'",
    partition: int = 0,
    offset: int = 0,
    replays: int | None = None,
    own: Headers = (("traceparent", b"00-1-2-01"),),
) -> list[tuple[str, bytes | None]]:
    """The headers of a dead letter of topology ``qa``; ``stage=""`` leaves its header out."""
    headers: list[tuple[str, bytes | None]] = list(own)
    if replays is not None:
        headers.append((names.REPLAYS, b"%d" % replays))
    headers += [
        (names.TOPIC, b"qa.prompt"),
        (names.PARTITION, b"%d" % partition),
        (names.OFFSET, b"%d" % offset),
        (names.CONNECTOR, b"qa"),
        (names.STAGE, step.encode()),
        (names.EXCEPTION, error.encode()),
        (names.MESSAGE, message.encode()),
        (names.STACKTRACE, b"Traceback"),
    ]
    if stage != "":
        headers.append((names.FAILED_STAGE, (stage or step).encode()))
    return [*headers, (names.ATTEMPTS, b"5")]


def bury(
    clients: InMemoryClients,
    value: bytes | None,
    headers: Headers | None = None,
    *,
    key: bytes | None = b"k",
    timestamp: int | None = 1_700_000_000_000,
    transaction: bool = False,
) -> None:
    """Write one dead letter of topology ``qa``; in a ``transaction`` a marker takes the offset after it."""
    clients.admin().create([TopicSpec("qa.dlq", 1)])
    producer = clients.producer(transactional_id="burying" if transaction else None)
    if transaction:
        producer.init_transactions()
        producer.begin_transaction()
    producer.produce("qa.dlq", value, key, letter_headers() if headers is None else headers, timestamp)
    if transaction:
        producer.commit_transaction()
    assert producer.flush(5) == 0
    producer.close()


def retry_topics(clients: InMemoryClients, *steps: str, partitions: int = 2) -> None:
    """Make the retry topics of these stages of ``qa``."""
    clients.admin().create([TopicSpec(f"qa.{step}.retry", partitions) for step in steps or ("generate",)])


def values(clients: InMemoryClients, topic: str = "qa.generate.retry") -> list[bytes | None]:
    """What stands on a topic."""
    return [message.value() for message in clients.messages(topic)]


def headers_of(message: RawMessage) -> dict[str, str]:
    """A record's headers as text."""
    return {name: (value or b"").decode() for name, value in message.headers() or ()}
