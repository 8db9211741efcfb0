"""The verbs that change how a deployed topology runs: each writes what is desired, and workers go there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from sage.cli.commands.control import (
    DEFAULT_TIMEOUT,
    Timeout,
    TopologyName,
    Wait,
    deployer_of,
    seconds_of,
    wait_settled,
)
from sage.cli.flags import UsageError
from sage.cli.options import DEFAULT_DATA_DIR, LARGEST, BootstrapServers, DataDir, KafkaConfig
from sage.cli.terminal import terminal

if TYPE_CHECKING:
    from sage.cluster.deployer import Deployer
    from sage.cluster.desired import Desired


def scale(
    name: TopologyName,
    counts: Annotated[
        tuple[str, ...], Parameter(name="STEP=N", help="How many workers host the step's stage; several may be given.")
    ],
    /,
    *,
    wait: Wait = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Say how many workers host a step. More than it has partitions are of no use."""
    wanted: dict[str, int] = {}
    for text in counts:
        step, found, number = text.partition("=")
        if not found or not step or not number.isdecimal():
            raise UsageError(f"topology scale: STEP=N wants a step and a number; found {text!r}")
        if len(number) > len(str(LARGEST)) or int(number) > LARGEST:
            raise UsageError(f"topology scale: N is {LARGEST} or less; found {text!r}")
        wanted[step] = int(number)
    if not wanted:
        raise UsageError("topology scale: STEP=N is missing, for example `sage topology scale qa generate=3`")
    limit = seconds_of(timeout, "topology scale")
    deployer = deployer_of(bootstrap_servers, data_dir, kafka_config)
    _finish(deployer, deployer.scale(name, wanted), limit if wait else None)


def pause(
    name: TopologyName,
    /,
    *,
    wait: Wait = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Have it stand still. Workers stay members of its groups, and offsets stay."""
    limit = seconds_of(timeout, "topology pause")
    deployer = deployer_of(bootstrap_servers, data_dir, kafka_config)
    _finish(deployer, deployer.pause(name), limit if wait else None)


def resume(
    name: TopologyName,
    /,
    *,
    wait: Wait = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Have it run again after pause, drain or stop, from where it was."""
    limit = seconds_of(timeout, "topology resume")
    deployer = deployer_of(bootstrap_servers, data_dir, kafka_config)
    _finish(deployer, deployer.resume(name), limit if wait else None)


def restart(
    name: TopologyName,
    steps: Annotated[tuple[str, ...], Parameter(name="STEP", help="These steps alone; else all.")] = (),
    /,
    *,
    wait: Wait = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Start its steps anew, one worker after the other, without loss."""
    limit = seconds_of(timeout, "topology restart")
    deployer = deployer_of(bootstrap_servers, data_dir, kafka_config)
    _finish(deployer, deployer.restart(name, steps), limit if wait else None)


def drain(
    name: TopologyName,
    /,
    *,
    wait: Wait = False,
    timeout: Timeout = DEFAULT_TIMEOUT,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Have its sources give nothing more, what is on its way be finished, and its workers leave. `resume` goes on."""
    limit = seconds_of(timeout, "topology drain")
    deployer = deployer_of(bootstrap_servers, data_dir, kafka_config)
    _finish(deployer, deployer.drain(name), limit if wait else None)


def wait(
    name: TopologyName,
    /,
    *,
    timeout: Timeout = DEFAULT_TIMEOUT,
    bootstrap_servers: BootstrapServers = None,
    kafka_config: KafkaConfig = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Wait until the workers are where the last command wanted them. Exits 5 when the time is over."""
    limit = seconds_of(timeout, "topology wait")
    deployer = deployer_of(bootstrap_servers, data_dir, kafka_config)
    log = deployer.look()
    try:
        current = log.current(name)
    finally:
        log.close()
    _finish(deployer, current, limit)


def _finish(deployer: Deployer, desired: Desired, timeout: float | None) -> None:
    if timeout is not None:
        wait_settled(deployer, desired.name, timeout)
    shown = terminal()
    settled = timeout is not None or desired.at_rest
    if shown.is_structured:
        shown.data(
            {
                "name": desired.name, "version": desired.version, "state": desired.state,
                "scale": dict(desired.scale), "revision": desired.revision, "settled": settled,
            }
        )  # fmt: skip
        return
    state = desired.state if settled or desired.state == "running" else f"shall be {desired.state}"
    detail = f" ({desired.reason})" if desired.reason.partition(" ")[0] in {"scale", "restart"} else ""
    shown.line(f"{desired.name} v{desired.version} {state}{detail}")
    if desired.state == "drained" and not settled:
        shown.note(
            f"it is still finishing its work; `sage topology wait {desired.name}` says when, and writes down where"
        )
