"""What the commands that talk to a cluster's control topics share: options, access, waiting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from sage.cli.flags import UsageError
from sage.cli.terminal import terminal

if TYPE_CHECKING:
    from sage.cluster.deployer import Deployer
    from sage.cluster.progress import StageProgress
    from sage.operations.cluster import Cluster

TopologyName = Annotated[str, Parameter(name="NAME", help="The topology's name.")]

Wait = Annotated[bool, Parameter(help="Wait until the workers have done it.")]

Timeout = Annotated[str, Parameter(help="How long to wait at most (30s, 5m); then exit 5.", show_default=True)]

DEFAULT_TIMEOUT = "2m"


def deployer_of(bootstrap_servers: str | None, data_dir: Path, kafka_config: Path | None) -> Deployer:
    """Writes what is desired, on the brokers that the options lead to."""
    from sage import app
    from sage.cluster.deployer import Deployer

    found = app.brokers(bootstrap_servers, data_dir, kafka_config)
    return Deployer(found.clients(), found.control_topics)


def cluster_of(bootstrap_servers: str | None, data_dir: Path, kafka_config: Path | None, name: str = "") -> Cluster:
    """Reads what is desired and done there.

    Raises:
        NotFound: nothing was ever deployed there; about ``name``, where one was asked for.
    """
    from sage import app
    from sage.errors import NotFound
    from sage.operations.cluster import Cluster, not_deployed

    found = app.brokers(bootstrap_servers, data_dir, kafka_config)
    try:
        return Cluster(found.clients(), found.control_topics)
    except NotFound as error:
        if not name:
            raise
        raise not_deployed(found.address, name) from error


def seconds_of(text: str, verb: str, option: str = "--timeout", *, least: float = 0) -> float:
    """A duration as typed; a bare number is seconds. Raises UsageError, also for less than ``least``."""
    from sage.model.duration import seconds

    try:
        found = seconds(float(text) if text.replace(".", "", 1).isdecimal() else text)
    except ValueError as error:
        raise UsageError(f"{verb}: {option}: {error}") from error
    if found < least:
        raise UsageError(f"{verb}: {option} is {least:g}s or more; found {text}")
    return found


def wait_settled(deployer: Deployer, name: str, timeout: float) -> None:
    """Wait until the workers are where the pointer says, with progress on the terminal. Raises as it does."""
    deployer.wait_settled(name, timeout, show=progress_shown())


def progress_shown() -> Callable[[Sequence[StageProgress]], None]:
    """Shows the progress of stages: one line on a terminal, else a line for each stage that gets there."""
    shown = terminal()
    told: set[str] = set()

    def show(stages: Sequence[StageProgress]) -> None:
        if not stages:
            return
        done = [each.stage for each in stages if each.is_done]
        for stage in done:
            if stage not in told:
                told.add(stage)
                shown.note(f"  {stage} {len(told)}/{len(stages)}")
        waiting = next((each for each in stages if not each.is_done), None)
        if waiting is not None:
            detail = waiting.problem or f"{len(waiting.ready)} of {len(waiting.wanted)} workers"
            shown.progress(f"{len(done)}/{len(stages)} stages; {waiting.stage}: {detail}")

    return show
