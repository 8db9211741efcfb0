"""A topology as Kubernetes objects: its file, its workers, and what keeps some of them through a drain of nodes.

For workers that host any topology there is the Helm chart; these run one.
"""

from __future__ import annotations

from typing import Any

from sage.operations.exports.workload import DATA, DRAIN_SECONDS, FOLDER, IMAGE, Workload
from sage.plan.plan import Plan


def kubernetes(
    plan: Plan, *, image: str = IMAGE, replicas: int = 1, brokers: str = "kafka:9092"
) -> list[dict[str, Any]]:
    """The objects as plain values: ConfigMap, StatefulSet and its Service, PodDisruptionBudget.

    Args:
        image: with SAGE and the steps' code.
        replicas: pods; more than the partitions of the widest input only wait.
        brokers: as seen from the pods.
    """
    work = Workload.of(plan)
    name = object_name(plan.name)
    labels = {"app.kubernetes.io/name": "sage", "app.kubernetes.io/instance": name}
    meta = {"name": name, "labels": labels}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {work.file_name: work.text}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"clusterIP": "None", "selector": labels},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": meta,
            "spec": {
                "serviceName": name,
                "replicas": replicas,
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": _pod(work, name, image, brokers)},
            },
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": meta,
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}},
        },
    ]


def kubernetes_list(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Objects as one, for JSON: what ``kubectl get -o json`` gives and ``kubectl apply`` takes."""
    return {"apiVersion": "v1", "kind": "List", "items": objects}


def object_name(topology: str) -> str:
    """A name that Kubernetes takes: topologies may have ``_``, objects may not."""
    return f"sage-{topology.replace('_', '-').strip('-')}"[:52].rstrip("-")


def _pod(work: Workload, name: str, image: str, brokers: str) -> dict[str, Any]:
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": DRAIN_SECONDS + 10,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "worker",
                "image": image,
                "args": [*work.arguments, "--instance-id=$(POD_NAME)"],
                "env": [
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "SAGE_BOOTSTRAP_SERVERS", "value": brokers},
                    *(_from_secret(name, each, each in work.optional) for each in work.variables),
                ],
                "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "topology", "mountPath": FOLDER, "readOnly": True},
                    {"name": "data", "mountPath": DATA},
                    {"name": "tmp", "mountPath": "/tmp"},
                ],
            }
        ],
        "volumes": [
            {"name": "topology", "configMap": {"name": name}},
            {"name": "data", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def _from_secret(name: str, variable: str, is_optional: bool) -> dict[str, Any]:
    """Every variable comes from one Secret, which is the user's to make."""
    place = {"name": name, "key": variable, **({"optional": True} if is_optional else {})}
    return {"name": variable, "valueFrom": {"secretKeyRef": place}}
