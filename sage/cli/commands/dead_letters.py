"""``sage dlq``: records that a topology could not process."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter

from sage.cli.commands.topics import clients_of
from sage.cli.options import AT_LEAST_ONE, DEFAULT_DATA_DIR, BootstrapServers, DataDir, KafkaConfig
from sage.cli.terminal import Column, terminal

TopologyName = Annotated[str, Parameter(name="TOPOLOGY", help="The topology's name.")]

Filters = Annotated[
    list[str] | None,
    Parameter(
        name=["--filter", "-f"],
        help="step=, stage=, error=, message=, source= or key= and a pattern with * and ?; or a text that the "
        "reason holds. May be repeated: all must hold.",
    ),
]

_COLUMNS = (
    Column("id"),
    Column("step"),
    Column("error"),
    Column("attempts", wide=True, right=True),
    Column("replays", wide=True, right=True),
    Column("source", "READ AT"),
    Column("message"),
)


def list_letters(
    topology: TopologyName,
    /,
    *,
    limit: Annotated[int, Parameter(name=["--limit", "-n"], help="The last so many.", validator=AT_LEAST_ONE)] = 100,
    only: Filters = None,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List a topology's dead letters: the step that gave each up, why, and where it was read."""
    from sage.operations import dead_letters
    from sage.operations.letter_filter import LetterFilter

    shown = terminal()
    wanted = LetterFilter.parse(only).matches if only else None
    clients = clients_of(bootstrap_servers, data_dir, kafka_config)
    letters = dead_letters.list_letters(clients, topology, limit=limit, wanted=wanted)
    if not shown.is_structured:
        shown.line(dead_letters.summary(letters))
        if not letters:
            return
    rows = [{key: value for key, value in asdict(letter).items() if key != "trace"} for letter in letters]
    shown.rows(rows, _COLUMNS)


def show(
    topology: TopologyName,
    letter: Annotated[str | None, Parameter(name="ID", help="As `sage dlq list` shows it; else the newest.")] = None,
    /,
    *,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show one dead letter whole: the record as it was, the error, the stack trace."""
    from sage.operations import dead_letters

    shown = terminal()
    found = dead_letters.show(clients_of(bootstrap_servers, data_dir, kafka_config), topology, letter)
    if shown.is_structured:
        shown.data(asdict(found))
        return
    shown.details(
        {
            "id": found.id,
            "step": found.step,
            "error": found.reason,
            "read at": found.source,
            "attempts": found.attempts,
            "replays": found.replays,
            "time": _time(found.timestamp),
            "key": found.record["key"],
            "value": found.record["value"],
            "headers": [f"{name}={value}" for name, value in found.record["headers"]],
        }
    )
    if found.trace:
        shown.line()
        shown.line(found.trace.rstrip())


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()
