"""Deployments as the control topic holds them, small enough to read."""

from __future__ import annotations

from typing import Any

from sage.cluster.deployment import Deployment


def stage(
    name: str, reads: str = "", writes: str = "", *, partitions: int | None = 4, config: Any = None, **more: Any
) -> dict[str, Any]:
    """A stage of a stored plan: what the units are made of, and something that can change."""
    return {
        "name": name,
        "execution": "sync" if reads else "source",
        "inputs": [{"topic": topic, "partitions": partitions} for topic in reads.split() if topic],
        "outputs": [{"topic": topic} for topic in writes.split() if topic],
        "steps": [name],
        "config": config,
        "options": more.pop("options", {}),
        "reasons": [],
        **more,
    }


def deployment(version: int, *stages: dict[str, Any], name: str = "qa", **more: Any) -> Deployment:
    """Version ``version`` of a topology of these stages."""
    tasks = {each["name"]: ["0", "1"] for each in stages if each["execution"] == "source"}
    steps = [{"name": each["name"], "config": each["config"]} for each in stages]
    plan = {"name": name, "guarantee": "at_least_once", "steps": steps, "source_tasks": tasks}
    plan["stages"] = [{field: value for field, value in each.items() if field != "config"} for each in stages]
    return Deployment(name, version, plan, **more)
