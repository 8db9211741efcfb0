"""``sage topology plan``: what a topology becomes, and what deploying it would change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sage.cli.commands.topology import Target
from sage.cli.commands.topology_deploy import compiled_plan
from sage.cli.flags import UsageError
from sage.cli.options import DEFAULT_DATA_DIR, BootstrapServers, DataDir, KafkaConfig
from sage.cli.terminal import Column, terminal

if TYPE_CHECKING:
    from sage.operations.saved_plans import Comparison
    from sage.plan.plan import Plan

_EXIT_CHANGES = 2


def _joined(values: Any) -> str:
    return values if isinstance(values, str) else ", ".join(map(str, values)) or "-"


_STAGES = (
    Column("stage"),
    Column("steps", wide=True, show=_joined),
    Column("execution", "RUNS AS"),
    Column("reads", show=_joined),
    Column("writes", show=_joined),
    Column("concurrency", right=True),
    Column("reasons", "WHY", wide=True, show=_joined),
)

_TOPICS = (
    Column("topic"),
    Column("partitions", right=True),
    Column("config", show=lambda config: ", ".join(f"{name}={value}" for name, value in config.items())),
)


def plan(
    target: Target,
    /,
    *,
    save: Annotated[
        Path | None, Parameter(help="A file for `sage topology deploy --plan`, which deploys just this.")
    ] = None,
    detailed_exitcode: Annotated[
        bool, Parameter(name="--detailed-exitcode", help="Exit 0 where nothing would change, 2 where something would.")
    ] = False,
    offline: Annotated[bool, Parameter(help="Don't compare with what is deployed.")] = False,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> int:
    """Show what deploying a topology would change: what is made, changed, re-keyed, and what that does to order and
    state.

    Where it is not deployed, or no broker is known: the stages and topics that it becomes. `-o wide` shows both, `-o
    json` is the whole compiled plan with its `diff`.
    """
    if offline and (save is not None or detailed_exitcode):
        raise UsageError(
            "topology plan: --save and --detailed-exitcode compare with what is deployed, --offline does not"
        )
    compiled = compiled_plan(target)
    must = save is not None or detailed_exitcode or bootstrap_servers is not None
    found = None if offline else _compared(compiled, bootstrap_servers, kafka_config, data_dir, must=must)
    shown = terminal()
    if shown.is_structured:
        shown.data({**compiled.to_json(), "diff": found.diff.to_json() if found is not None else None})
    else:
        if found is not None:
            _show_diff(found)
        if found is None or found.diff.created or shown.flags.output == "wide":
            _show_tables(compiled)
    if found is not None and save is not None:
        from sage.operations.saved_plans import save as write

        write(save, found)
        shown.note(f"saved; `sage topology deploy --plan {save}` deploys just this")
    return _EXIT_CHANGES if detailed_exitcode and found is not None and not found.diff.is_empty else 0


def _compared(
    compiled: Plan, bootstrap_servers: str | None, kafka_config: Path | None, data_dir: Path, *, must: bool
) -> Comparison | None:
    """The comparison; ``None`` where no broker is known or answers, which is an error only where it ``must``."""
    from sage import app
    from sage.errors import Unreachable
    from sage.operations.saved_plans import compare

    shown = terminal()
    try:
        brokers = app.brokers(bootstrap_servers, data_dir, kafka_config)
        shown.progress(f"comparing with what is deployed on {brokers.address}")
        return compare(brokers.clients(), brokers.control_topics, compiled)
    except Unreachable as error:
        if must:
            raise
        if error.where is not None or "cannot reach" in error.message:
            shown.note(f"not compared with what is deployed: {error.message}")
        return None


def _show_diff(found: Comparison) -> None:
    shown = terminal()
    if found.diff.is_empty:
        shown.line(f"no changes: {found.plan.name} v{found.version} is this")
        return
    if found.diff.created:
        shown.note(f"{found.plan.name} is not deployed: {found.diff.summary()}")
        return
    for line in found.diff.text().splitlines():
        shown.line(_coloured(line))
    if found.diff.needs:
        shown.note(f"refused by deploy without {', '.join(sorted(found.diff.needs))}")


def _coloured(line: str) -> str:
    shown = terminal()
    style = {"+": shown.good, "-": shown.bad, "~": shown.warning, ">": shown.warning}.get(line[:1])
    return line if style is None else f"{style(line[0])}{line[1:]}"


def _show_tables(compiled: Plan) -> None:
    from sage.operations.topologies import partitions_of, stage_rows

    shown = terminal()
    shown.rows(stage_rows(compiled), _STAGES)
    shown.line()
    topics: list[dict[str, Any]] = [
        {"topic": topic.name, "partitions": partitions_of(compiled, topic), "config": dict(topic.config)}
        for topic in compiled.topics
    ]
    shown.rows(topics, _TOPICS, empty="it makes no topics")
