"""``sage groups``: who reads what, how far behind, and from where it shall go on."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sage.cli.commands.topics import clients_of
from sage.cli.flags import UsageError
from sage.cli.options import DEFAULT_DATA_DIR, BootstrapServers, DataDir, KafkaConfig, Yes
from sage.cli.terminal import Column, terminal

if TYPE_CHECKING:
    from sage.operations.group_reset import Reset
    from sage.operations.groups import Group

GroupName = Annotated[str, Parameter(name="GROUP", help="The group's name: `<topology>.<step>`.")]

_LIST = (
    Column("name", "GROUP"),
    Column("members", right=True),
    Column("lag", right=True),
    Column("topics", show=lambda topics: ", ".join(topics) or "-"),
)

_PARTITIONS = (
    Column("topic"),
    Column("partition", right=True),
    Column("committed", right=True),
    Column("end", right=True),
    Column("lag", right=True),
    Column("client", "OWNED BY"),
)


def list_groups(
    prefix: Annotated[str, Parameter(name="PREFIX", help="Only groups that begin with it.")] = "",
    /,
    *,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List the groups with their members and their lag over all partitions."""
    from sage.operations import groups

    found = groups.list_groups(clients_of(bootstrap_servers, data_dir, kafka_config), prefix=prefix)
    rows = [{"name": one.name, "members": one.members, "lag": one.lag, "topics": dict(one.topics)} for one in found]
    terminal().rows(rows, _LIST, empty=f"no groups that begin with {prefix}" if prefix else "no groups")


def describe(
    group: GroupName,
    /,
    *,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show a group's lag: per partition, per topic and in total. Lag ends at what is committed, as readers see it."""
    from sage.operations import groups

    found = groups.describe_group(clients_of(bootstrap_servers, data_dir, kafka_config), group)
    shown = terminal()
    if shown.is_structured:
        shown.data(_as_dict(found))
        return
    shown.rows([asdict(one) for one in found.partitions], _PARTITIONS, empty=f"{group} has read nothing")
    if not found.partitions:
        return
    shown.line()
    totals = [{"topic": topic, "lag": lag} for topic, lag in found.topics.items()]
    shown.rows([*totals, {"topic": "total", "lag": found.lag}], (Column("topic"), Column("lag", right=True)))
    shown.note(f"{found.members} member{'' if found.members == 1 else 's'}")


def reset(
    group: GroupName,
    /,
    *,
    to: Annotated[
        str,
        Parameter(
            help="earliest, latest, an offset, +N or -N records from where it is, a duration such as 2h (that long "
            "ago), or a time such as 2026-01-31T12:00.",
            allow_leading_hyphen=True,
        ),
    ],
    topic: Annotated[
        list[str] | None,
        Parameter(
            name=["--topic", "-t"], help="This topic alone; may be repeated. Else all but the retry topic.",
            consume_multiple=False,
        ),
    ] = None,
    execute: Annotated[bool, Parameter(help="Do it. Without this it is only shown.")] = False,
    yes: Yes = False,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:  # fmt: skip
    """Move a group's offsets. Shows what would change; --execute does it. The group must have no members."""
    from sage.operations import group_reset

    try:
        target = group_reset.Target.parse(to)
    except ValueError as error:
        raise UsageError(f"groups reset: --to {error}") from error
    clients = clients_of(bootstrap_servers, data_dir, kafka_config)
    planned = group_reset.plan_reset(clients, group, target, topic or ())
    shown = terminal()
    if execute:
        changed = sum(move.after != move.before for move in planned.moves)
        if changed:
            shown.confirm(
                f"Move {changed} offset{'' if changed == 1 else 's'} of {group}? {_consequence(planned)}.", yes=yes
            )
        group_reset.execute(clients, planned)
    _show(planned, done=execute)


def _show(planned: Reset, *, done: bool) -> None:
    shown = terminal()
    if shown.is_structured:
        shown.data({**asdict(planned), "executed": done, "read_again": planned.again, "never_read": planned.skipped})
        return
    columns = (
        Column("topic"),
        Column("partition", right=True),
        Column("before", right=True),
        Column("after", right=True),
        Column("end", right=True),
    )
    shown.rows([asdict(move) for move in planned.moves], columns)
    shown.note(f"{_consequence(planned)}{'' if done else '; nothing was changed: add --execute'}")
    for left in planned.left:
        shown.note(f"{left} stays as it is; name it with --topic to move it too")
    if planned.has_state:
        shown.note(f"{planned.group} keeps state, which stays: records that are read again change it again")


def _consequence(planned: Reset) -> str:
    parts = []
    if planned.again:
        parts.append(f"{_records(planned.again)} read once more")
    if planned.skipped:
        parts.append(f"{_records(planned.skipped)} never read")
    return ", ".join(parts) or "no record read twice or left out"


def _records(count: int) -> str:
    return f"{count} record{'' if count == 1 else 's'}"


def _as_dict(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "members": group.members,
        "lag": group.lag,
        "topics": dict(group.topics),
        "partitions": [asdict(one) for one in group.partitions],
    }
