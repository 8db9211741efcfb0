"""``sage doctor``: what is right and wrong on this machine."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from sage.cli.flags import UsageError
from sage.cli.options import DEFAULT_DATA_DIR, BootstrapServers, DataDir, KafkaConfig
from sage.cli.terminal import Terminal, terminal
from sage.operations.rights import Role

if TYPE_CHECKING:
    from sage.operations.doctor import Finding


def doctor(
    *,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    prefix: Annotated[
        str | None,
        Parameter(help="Check instead what this account may do for topologies whose names begin so; see --role."),
    ] = None,
    role: Annotated[
        Role | None, Parameter(help="With --prefix: what the account is for; else what it could be is shown.")
    ] = None,
    fix: Annotated[
        bool, Parameter(help="Start dead services again, pull missing models, close files that are open to others.")
    ] = False,
) -> int:
    """Check Python, packages, disk, ports, services, Kafka and models, and say what to do. Exits 1 when one fails.

    With --fix it types the commands that it would else advise, and checks again; it installs and deletes nothing.
    """
    from sage import app
    from sage.operations.doctor import World, diagnose, rights
    from sage.wiring.contexts import contexts_path

    if role is not None and prefix is None:
        raise UsageError("doctor: --role goes with --prefix, for example `sage doctor --prefix qa --role worker`")
    if fix and prefix is not None:
        raise UsageError("doctor: --fix does not go with --prefix: rights are given by an administrator")

    shown = terminal()
    world = World(
        data_dir=data_dir,
        brokers=lambda: app.brokers(bootstrap_servers, data_dir, kafka_config),
        broker_facts=app.broker_facts,
        models=app.local_models,
        settings=contexts_path(os.environ),
    )
    findings = _shown(diagnose(world) if prefix is None else rights(world, prefix, role))
    if fix and _fixed(findings):
        findings = _shown(diagnose(world))
    failed = sum(finding.state == "fail" for finding in findings)
    if shown.is_structured:
        shown.data([asdict(finding) for finding in findings])
    elif failed:
        shown.note(f"{failed} of {len(findings)} checks failed")
    return 1 if failed else 0


def _shown(found: Iterable[Finding]) -> list[Finding]:
    shown = terminal()
    findings: list[Finding] = []
    for finding in found:
        findings.append(finding)
        if not shown.is_structured:
            shown.line(_line(shown, finding))
    return findings


def _fixed(findings: Iterable[Finding]) -> bool:
    """Type what would help, each command once; whether there was any."""
    from sage.operations.doctor_fixes import commands, run

    shown = terminal()
    wanted = commands(findings)
    if not wanted:
        shown.note("nothing here that --fix can mend")
    for command in wanted:
        shown.note(f"$ {shlex.join(command)}")
        code = run(command)
        if code:
            shown.note(f"ended with exit code {code}")
    return bool(wanted)


def _line(shown: Terminal, finding: Finding) -> str:
    styles = {"ok": shown.good, "info": shown.dim, "warn": shown.warning, "fail": shown.bad}
    state = styles[finding.state](f"{finding.state:<4}")
    advice = f"; {finding.advice}" if finding.advice else ""
    return f"{state}  {finding.check:<15}  {finding.found}{advice}"
