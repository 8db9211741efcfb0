"""Partitions that no worker has, though their stage runs: nobody who works is behind there, so nobody says so."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from sage.cluster.cluster_view import ClusterView
from sage.cluster.deployment import Deployment
from sage.cluster.progress import StageProgress, stages_on
from sage.model.partition import TopicPartition
from sage.operations.groups import partition_lags
from sage.ports import Admin, TopicInfo

GRACE: Final = 60.0
"""Seconds in which a group finds a new owner: brokers wait 45 s for one that died, and a revoke takes a few more."""

_NAMED: Final = 5


def not_owned(
    admin: Admin, view: ClusterView, deployment: Deployment, progress: Collection[StageProgress]
) -> dict[str, str]:
    """Stage -> which of its partitions have records, and for ``GRACE`` seconds no worker that has them.

    Args:
        admin: of the brokers.
        view: what workers say.
        deployment: the version that shall run, and not rest.
        progress: how far it is; a stage that is not where it shall be is left out.
    """
    seconds = view.settled(deployment.name)
    if seconds < GRACE:
        return {}
    runs = {each.stage for each in progress if each.is_done and _runs(view, deployment, each)}
    stages = [stage for stage in deployment.plan["stages"] if stage["group"] and stage["name"] in runs]
    infos = admin.describe(sorted({one["topic"] for stage in stages for one in stage["inputs"]})) if stages else {}
    found = {}
    for stage in stages:
        places = _missing(view, deployment.name, stage, infos)
        behind = partition_lags(admin, stage["group"], places) if places else {}
        if behind:
            found[stage["name"]] = _problem(behind, seconds, stage["group"])
    return found


def _runs(view: ClusterView, deployment: Deployment, progress: StageProgress) -> bool:
    """Whether all its workers say that it runs: one that rests or ends need not have its partitions."""
    states = {
        said.state
        for worker in progress.wanted
        for said in stages_on(view.live[worker].topologies, deployment.name)
        if said.stage == progress.stage
    }
    return states == {"running"}


def _missing(
    view: ClusterView, name: str, stage: Mapping[str, Any], infos: Mapping[str, TopicInfo]
) -> list[TopicPartition]:
    """The partitions of a stage's inputs that no live worker has."""
    owned = {
        place
        for seen in view.live.values()
        for said in stages_on(seen.topologies, name)
        if said.stage == stage["name"]
        for place in said.partitions
    }
    found = (infos[one["topic"]] for one in stage["inputs"] if one["topic"] in infos)
    places = {TopicPartition(info.name, number) for info in found for number in range(info.partitions)}
    return sorted(place for place in places if f"{place.topic}:{place.partition}" not in owned)


def _problem(behind: Mapping[TopicPartition, int], seconds: float, group: str) -> str:
    places = ", ".join(map(str, list(behind)[:_NAMED]))
    more = f" and {len(behind) - _NAMED} more" if len(behind) > _NAMED else ""
    lag = sum(behind.values())
    waiting = "1 record waits" if lag == 1 else f"{lag} records wait"
    return (
        f"{places}{more}: no worker has had {'it' if len(behind) == 1 else 'them'} for {seconds:.0f} s, and {waiting} "
        f"there; see `sage groups describe {group}`"
    )
