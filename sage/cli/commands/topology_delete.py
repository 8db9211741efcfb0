"""``sage topology delete``: take a topology off the cluster, and its data where that is asked for."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from sage.cli.commands.control import DEFAULT_TIMEOUT, Timeout, TopologyName, deployer_of, seconds_of
from sage.cli.options import DEFAULT_DATA_DIR, BootstrapServers, DataDir, KafkaConfig, Yes
from sage.cli.terminal import terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sage.cluster.purging import Purged

_SHOWN = 8


def delete(
    name: TopologyName,
    /,
    *,
    purge: Annotated[
        bool, Parameter(help="Its topics, groups, state and versions too: nothing of it is left.")
    ] = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
    yes: Yes = False,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Stop a topology and take it off the lists. Its topics, offsets and state stay, unless --purge; asks first."""
    limit = seconds_of(timeout, "topology delete")
    deployer = deployer_of(bootstrap_servers, data_dir, kafka_config)
    log = deployer.look()
    try:
        pointer = log.pointers.get(name)
        if pointer is None or (pointer.state == "deleted" and not purge):
            log.current(name)  # says what is wrong
    finally:
        log.close()
    shown = terminal()
    found = deployer.purgeable(name) if purge else None
    question = f"Delete {name}?" if found is None else f"Delete {name} with {_counted(found)}, for good?"
    if found is not None:
        _list(found.topics)
    shown.confirm(question, yes=yes)
    at_rest = True
    if pointer is not None and pointer.state != "deleted":
        shown.progress("waiting for its workers to leave")
        at_rest = deployer.delete(name, patience=limit).at_rest or not pointer.version
    if found is not None:
        found = deployer.purge(name, limit)
    if shown.is_structured:
        shown.data(
            {"name": name, "deleted": True, "at_rest": at_rest, "purged": None if found is None else asdict(found)}
        )
    elif found is None:
        shown.line(f"deleted {name}; its topics, offsets and state stay (`--purge` removes them)")
        if not at_rest:
            shown.note(
                f"after {timeout} a worker is still leaving: what it finishes now is done again by a deploy that comes "
                "after Kafka has forgotten the offsets (offsets.retention.minutes, 7 days)"
            )
    else:
        shown.line(f"deleted {name} with {_counted(found)}")


def _list(topics: Sequence[str]) -> None:
    shown = terminal()
    for topic in topics[:_SHOWN]:
        shown.note(f"  - {topic}")
    if len(topics) > _SHOWN:
        shown.note(f"  and {len(topics) - _SHOWN} more topics")


def _counted(found: Purged) -> str:
    parts = [(len(found.topics), "topic"), (len(found.groups), "group"), (len(found.versions), "version")]
    return ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for count, what in parts)
