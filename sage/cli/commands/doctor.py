"""``sage doctor``: what is right and wrong on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sage.cli.options import DEFAULT_DATA_DIR, BootstrapServers, DataDir, KafkaConfig
from sage.cli.terminal import Terminal, terminal

if TYPE_CHECKING:
    from sage.operations.doctor import Finding


def doctor(
    *,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> int:
    """Check Python, packages, disk, ports, services, Kafka and models, and say what to do. Exits 1 when one fails."""
    from sage import app
    from sage.operations.doctor import World, diagnose

    shown = terminal()
    world = World(
        data_dir=data_dir,
        brokers=lambda: app.brokers(bootstrap_servers, data_dir, kafka_config),
        broker_facts=app.broker_facts,
        models=app.local_models,
    )
    findings: list[Finding] = []
    for finding in diagnose(world):
        findings.append(finding)
        if not shown.is_structured:
            shown.line(_line(shown, finding))
    failed = sum(finding.state == "fail" for finding in findings)
    if shown.is_structured:
        shown.data([asdict(finding) for finding in findings])
    elif failed:
        shown.note(f"{failed} of {len(findings)} checks failed")
    return 1 if failed else 0


def _line(shown: Terminal, finding: Finding) -> str:
    styles = {"ok": shown.good, "info": shown.dim, "warn": shown.warning, "fail": shown.bad}
    state = styles[finding.state](f"{finding.state:<4}")
    advice = f"; {finding.advice}" if finding.advice else ""
    return f"{state}  {finding.check:<12}  {finding.found}{advice}"
