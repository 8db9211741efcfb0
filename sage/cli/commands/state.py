"""``sage state``: what stateful steps keep."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter

from sage.cli.commands.topics import clients_of
from sage.cli.flags import UsageError
from sage.cli.options import COUNT, DEFAULT_DATA_DIR, BootstrapServers, DataDir, KafkaConfig
from sage.cli.terminal import terminal


def show(
    topology: Annotated[str, Parameter(name="NAME", help="The topology's name.")],
    step: Annotated[str, Parameter(name="STEP", help="The step whose state it is.")],
    key: Annotated[str, Parameter(name="KEY", help="As text; other scalars as JSON; 0x... for bytes.")],
    /,
    *,
    partition: Annotated[int | None, Parameter(help="Look in this partition alone.", validator=COUNT)] = None,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show what a step keeps for a key, as last committed, with its timers; no worker needs to run."""
    from sage.operations.state import show_state

    shown = terminal()
    clients = clients_of(bootstrap_servers, data_dir, kafka_config)
    entry = show_state(clients, topology, step, _key(key), partition=partition)
    fields = asdict(entry)
    if shown.is_structured:
        if isinstance(entry.key, bytes):
            fields["key"] = f"0x{entry.key.hex()}"
        shown.data(fields)
        return
    shown.details(
        {
            "key": f"0x{entry.key.hex()}" if isinstance(entry.key, bytes) else entry.key,
            "state": "forgotten" if entry.is_forgotten else _text(entry.state),
            "timers": [f"{name} at {_time(at)}" for name, at in entry.timers.items()],
            "changed": _time(entry.changed),
            "changelog": f"partition {entry.partition}, offset {entry.offset}",
        }
    )


def _key(typed: str) -> str | bytes:
    if not typed.startswith("0x"):
        return typed
    try:
        return bytes.fromhex(typed[2:])
    except ValueError as error:
        raise UsageError(f"state show: KEY {typed!r} begins with 0x and is not hexadecimal") from error


def _text(state: object) -> str:
    import json

    return json.dumps(state, ensure_ascii=False)


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()
