"""A topology as a Docker Compose file: its workers, against brokers that are there."""

from __future__ import annotations

from typing import Any

from sage.operations.exports.workload import DATA, DRAIN_SECONDS, FOLDER, IMAGE, Workload
from sage.plan.plan import Plan

_BROKERS = "${SAGE_BOOTSTRAP_SERVERS:?set it to the brokers, as seen from the containers}"


def compose(plan: Plan, *, image: str = IMAGE, replicas: int = 1) -> dict[str, Any]:
    """The file as plain values; Compose takes the variables from its own environment or ``.env``.

    Args:
        image: with SAGE and the steps' code.
        replicas: worker containers.
    """
    work = Workload.of(plan)
    given = {name: f"${{{name}:-}}" if name in work.optional else f"${{{name}:?}}" for name in work.variables}
    return {
        "name": f"sage-{work.name}",
        "services": {
            "worker": {
                "image": image,
                "command": work.arguments,
                "environment": {"SAGE_BOOTSTRAP_SERVERS": _BROKERS, **given},
                "configs": [{"source": "topology", "target": f"{FOLDER}/{work.file_name}"}],
                "tmpfs": ["/tmp", f"{DATA}:uid=10001,gid=10001"],
                "read_only": True,
                "cap_drop": ["ALL"],
                "security_opt": ["no-new-privileges:true"],
                "stop_grace_period": f"{DRAIN_SECONDS + 10}s",
                "restart": "unless-stopped",
                "deploy": {"replicas": replicas},
            }
        },
        # A dollar sign of the topology is not Compose's to replace.
        "configs": {"topology": {"content": work.text.replace("$", "$$")}},
    }
