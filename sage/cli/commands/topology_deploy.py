"""``sage topology deploy`` and ``rollback``: which version runs on the workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sage.cli.commands.control import DEFAULT_TIMEOUT, Timeout, TopologyName, deployer_of, seconds_of, wait_settled
from sage.cli.flags import UsageError
from sage.cli.options import AT_LEAST_ONE, DEFAULT_DATA_DIR, BootstrapServers, DataDir, KafkaConfig
from sage.cli.terminal import terminal

if TYPE_CHECKING:
    from sage.cluster.deployer import Deployer
    from sage.cluster.deploying import Deployed
    from sage.plan.diff import PlanDiff
    from sage.plan.plan import Plan

Repartition = Annotated[
    bool, Parameter(help="Topics may get more partitions: what is in them is finished first, state goes along.")
]
SavedPlan = Annotated[Path | None, Parameter(help="A file that `sage topology plan --save` wrote.")]
Wait = Annotated[bool, Parameter(help="Have the workers check it before, and wait until every stage runs on them.")]
AllowOrphans = Annotated[bool, Parameter(help="Groups, state and records of steps that are gone may be left behind.")]
AllowStateChange = Annotated[bool, Parameter(help="State that is stored may be read by another model.")]

TargetOrNone = Annotated[
    str | None,
    Parameter(name="TARGET", help="A YAML file, file.py:attribute, package.module:attribute, or a file.py; or --plan."),
]


def deploy(
    target: TargetOrNone = None,
    /,
    *,
    plan: SavedPlan = None,
    wait: Wait = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
    message: Annotated[str, Parameter(name=["--message", "-m"], help="What to say of it in `history`.")] = "",
    repartition: Repartition = False,
    allow_orphans: AllowOrphans = False,
    allow_state_change: AllowStateChange = False,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Have the cluster's workers run a topology. The same again changes nothing.

    Shows what changes. What would lose data, state or order is refused without its flag; when two deploy at once, one
    wins and the other is told.
    """
    from sage.operations.saved_plans import load

    if (target is None) == (plan is None):
        raise UsageError("topology deploy: give a TARGET or --plan FILE, for example `sage topology deploy rag.yaml`")
    limit = seconds_of(timeout, "topology deploy")
    allowed = _allowed(repartition, allow_orphans, allow_state_change)
    if plan is not None:
        compiled, expected = load(plan)
    else:
        compiled, expected = compiled_plan(str(target)), None
    deployer = deployer_of(bootstrap_servers, data_dir, kafka_config)
    proposal = deployer.propose(compiled)
    revision = proposal.expected if expected is None else expected
    shown = terminal()
    if not shown.is_structured:
        shown.note(_indented(proposal.diff.summary() if proposal.diff.created else _text(proposal.diff, allowed)))
    if wait and not proposal.diff.is_empty and not proposal.diff.needs - allowed:
        shown.progress("the workers check it")
        found, revision = deployer.check_on_workers(compiled, expected=revision, timeout=limit)
        for problem in found.problems:
            shown.note(f"  not everywhere: {problem}")
    done = deployer.deploy(
        compiled, expected=revision, message=message, timeout=limit, say=shown.progress,
        allow=allowed,
    )  # fmt: skip
    _finish(deployer, done, wait=wait, timeout=limit, verb="deployed")


def rollback(
    name: TopologyName,
    /,
    *,
    to: Annotated[
        int | None, Parameter(help="The version; else the one that ran before.", validator=AT_LEAST_ONE)
    ] = None,
    wait: Annotated[bool, Parameter(help="Wait until every stage runs on its workers.")] = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
    allow_orphans: AllowOrphans = False,
    allow_state_change: AllowStateChange = False,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Have an earlier version run again. Offsets stay; state that it can't read is refused without its flag."""
    limit = seconds_of(timeout, "topology rollback")
    deployer = deployer_of(bootstrap_servers, data_dir, kafka_config)
    shown = terminal()
    allowed = _allowed(False, allow_orphans, allow_state_change)
    done = deployer.rollback(name, to, timeout=limit, say=shown.progress, allow=allowed)
    if not shown.is_structured:
        shown.note(_indented(_text(done.diff, allowed)))
    _finish(deployer, done, wait=wait, timeout=limit, verb="rolled back to")


def compiled_plan(target: str) -> Plan:
    """The plan of what ``target`` names, as a deploy stores it: sources say how they can be split."""
    from sage import app

    found = app.load_target(target, environ=os.environ)
    return app.environment_for(found, bootstrap_servers=None, data_dir=DEFAULT_DATA_DIR).plan()


def _allowed(repartition: bool, orphans: bool, state_change: bool) -> frozenset[str]:
    flags = {"--repartition": repartition, "--allow-orphans": orphans, "--allow-state-change": state_change}
    return frozenset(flag for flag, given in flags.items() if given)


def _finish(deployer: Deployer, done: Deployed, *, wait: bool, timeout: float, verb: str) -> None:
    shown = terminal()
    name, version = done.deployment.name, done.deployment.version
    if wait:
        wait_settled(deployer, name, timeout)
    if shown.is_structured:
        shown.data(_as_dict(done))
    elif done.unchanged:
        shown.line(f"{name} v{version} runs already; nothing changed")
    else:
        paused = " (paused)" if done.desired.state == "paused" else ""
        shown.line(f"{verb} {name} v{version}{paused}")


def _as_dict(done: Deployed) -> dict[str, Any]:
    return {
        "name": done.deployment.name,
        "version": done.deployment.version,
        "state": done.desired.state,
        "revision": done.desired.revision,
        "unchanged": done.unchanged,
        "diff": done.diff.to_json(),
    }


def _text(diff: PlanDiff, allowed: frozenset[str]) -> str:
    """What changes; a flag that was given is not asked for once more."""
    text = diff.text()
    for flag in allowed:
        text = text.replace(f"; needs {flag}", f"; allowed by {flag}")
    return text


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
