"""A topology's lag as KEDA's triggers: workers come and go with what waits for them."""

from __future__ import annotations

from typing import Any

from sage.operations.exports.kubernetes import object_name
from sage.operations.exports.workload import Workload
from sage.plan.plan import Plan

LAG_PER_WORKER = 100
"""Records that one worker may have before it: seconds of work for a model, milliseconds for a map."""


def scaled_object(plan: Plan, *, brokers: str = "kafka:9092", lag: int = LAG_PER_WORKER) -> dict[str, Any]:
    """A ScaledObject for the StatefulSet that ``kubernetes`` gives; its triggers fit the Helm chart's values too.

    Args:
        brokers: as seen from KEDA.
        lag: records per worker, of each stage.
    """
    name = object_name(plan.name)
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name},
            "minReplicaCount": 1,
            "maxReplicaCount": Workload.of(plan).most,
            "pollingInterval": 15,
            "cooldownPeriod": 300,
            "triggers": [
                {
                    "type": "kafka",
                    "metadata": {
                        "bootstrapServers": brokers,
                        "consumerGroup": stage.group,
                        "topic": stage_input.topic,
                        "lagThreshold": str(lag),
                        "offsetResetPolicy": "earliest",
                    },
                }
                for stage in plan.stages
                for stage_input in stage.inputs
            ],
        },
    }
