"""What ``sage dlq`` does: reading the dead letters of a topology."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sage.errors import NotFound
from sage.model import dead_letter_headers as names
from sage.model.names import dead_letter_topic
from sage.operations.reading import partitions_of, read_last
from sage.operations.topics import as_dict
from sage.ports import KafkaClients, RawMessage


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter.

    Attributes:
        id: ``partition:offset`` in the dead-letter topic, as ``sage dlq show`` takes it.
        step: the step that gave it up.
        error: the exception's class, without its module.
        message: what the exception said.
        source: where the record was read, ``topic-partition@offset``.
        attempts: how often it was tried.
        timestamp: milliseconds since the epoch, of the record itself.
        record: key, value and headers as they were.
        trace: the stack trace.
        stage: the stage of that step, whose retry topic a replay goes to.
        replays: how often it was replayed before it died again.
    """

    id: str
    step: str
    error: str
    message: str
    source: str
    attempts: int
    timestamp: int | None
    record: dict[str, Any]
    trace: str
    stage: str = "?"
    replays: int = 0

    @property
    def reason(self) -> str:
        """``KeyError 'documents'``: the class and the first line of what it said."""
        said = self.message.strip().splitlines()
        return f"{self.error}: {said[0]}" if said else self.error


def list_letters(
    clients: KafkaClients,
    topology: str,
    *,
    limit: int | None = 100,
    wanted: Callable[[Letter], bool] | None = None,
) -> list[Letter]:
    """The last ``limit`` dead letters (``None``: all) of a topology, oldest first; of those that are ``wanted``.

    Raises:
        NotFound: no topology of that name has run on these brokers.
    """
    topic = dead_letter_topic(topology)
    admin = clients.admin()
    try:
        advice = f"no topology named {topology} has run on {clients.address}; see `sage topics list`"
        partitions = partitions_of(admin, topic, advice=advice)
        # Which ones are wanted shows only when they are read, so a filter reads them all.
        found, _ = read_last(clients, admin, partitions, limit if wanted is None else None)
    finally:
        admin.close()
    found.sort(key=lambda one: (one.timestamp()[1], one.offset()))
    letters = [letter_of(message) for message in found]
    if wanted is not None:
        letters = [letter for letter in letters if wanted(letter)]
    return letters if limit is None else letters[-limit:]


def show(clients: KafkaClients, topology: str, letter_id: str | None) -> Letter:
    """One dead letter by its id, or the newest one.

    Raises:
        NotFound: there is none, or none with that id.
    """
    letters = list_letters(clients, topology, limit=None)
    if letter_id is None:
        if not letters:
            raise NotFound(f"topology {topology} has no dead letters")
        return letters[-1]
    wanted = letter_id if ":" in letter_id else f"0:{letter_id}"
    for letter in letters:
        if letter.id == wanted:
            return letter
    raise NotFound(f"topology {topology} has no dead letter {letter_id}; see `sage dlq list {topology}`")


def summary(letters: Sequence[Letter]) -> str:
    """``3 dead: 2 KeyError at step prompt, 1 DecodeFailure at step retrieve``."""
    counts = Counter((letter.step, letter.error) for letter in letters)
    parts = [f"{count} {error} at step {step}" for (step, error), count in counts.most_common()]
    return f"{len(letters)} dead: {', '.join(parts)}" if parts else "no dead letters"


def letter_of(message: RawMessage) -> Letter:
    """The dead letter that a record of the dead-letter topic is."""
    headers: dict[str, str] = {}
    kept: list[list[Any]] = []
    for name, value in as_dict(message)["headers"]:
        if is_own_header(name):
            headers[name] = value or ""
        else:
            kept.append([name, value])
    plain = as_dict(message)
    source = f"{headers.get(names.TOPIC, '?')}-{headers.get(names.PARTITION, '?')}@{headers.get(names.OFFSET, '?')}"
    step = headers.get(names.STAGE, "?")
    return Letter(
        id=f"{message.partition()}:{message.offset()}",
        step=step,
        error=headers.get(names.EXCEPTION, "?").rpartition(".")[2],
        message=headers.get(names.MESSAGE, ""),
        source=source,
        attempts=_number(headers.get(names.ATTEMPTS), 1),
        timestamp=plain["timestamp"],
        record={"key": plain["key"], "value": plain["value"], "headers": kept},
        trace=headers.get(names.STACKTRACE, ""),
        stage=headers.get(names.FAILED_STAGE, step),
        replays=_number(headers.get(names.REPLAYS), 0),
    )


def is_own_header(name: str) -> bool:
    """Whether a dead letter's header is about its death, and not the record's own."""
    return name.startswith(names.PREFIX) or name in {names.ATTEMPTS, names.REPLAYS, names.FAILED_STAGE}


def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdecimal() else default
