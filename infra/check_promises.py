"""What image, chart, unit and Compose file promise, held to the files themselves: ``check.sh`` calls it.

- ``check_promises.py RENDERED``: the chart's objects, one file for each of ci/*.yaml; and what stands here
- ``check_promises.py --schemas COMPOSE KEDA FILE...``: each file by its own schema
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).parents[1]
CLUSTER = {"worker", "kafka", "milvus", "jaeger", "prometheus", "grafana"}
HARDENED = {
    "DynamicUser": "yes",
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "RestrictNamespaces": "yes",
    "CapabilityBoundingSet": "",
}


def drain_seconds() -> int:
    """What a worker takes to drain where nobody says otherwise."""
    text = (ROOT / "sage/cli/commands/worker.py").read_text(encoding="utf-8")
    return int(re.findall(r'drain_timeout: DrainTimeout = "(\d+)s"', text)[0])


def chart(objects: list[dict[str, Any]], values: dict[str, Any]) -> Iterator[str]:
    """What the chart's objects lack."""
    by_kind = {each["kind"]: each for each in objects}
    workers = by_kind["StatefulSet"]["spec"]
    pod = workers["template"]["spec"]
    (container,) = pod["containers"]
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz"), ("startupProbe", "/healthz")):
        if container.get(probe, {}).get("httpGet", {}).get("path") != path:
            yield f"no {probe} of {path}"
    if pod["securityContext"].get("runAsNonRoot") is not True or not pod["securityContext"].get("runAsUser"):
        yield "its pods may run as root"
    inside = container["securityContext"]
    if inside.get("allowPrivilegeEscalation") is not False or inside.get("capabilities") != {"drop": ["ALL"]}:
        yield "its containers may gain rights"
    if inside.get("readOnlyRootFilesystem") is not True:
        yield "its containers can write to the image"
    resources = container["resources"]
    if not {"cpu", "memory"} <= resources["requests"].keys() or "memory" not in resources["limits"]:
        yield "its containers have no bounds"
    drain = int(re.findall(r"--drain-timeout=(\d+)s", " ".join(container["args"]))[0])
    if pod["terminationGracePeriodSeconds"] <= drain:
        yield "its pods are killed while they drain"
    selected = workers["selector"]["matchLabels"].items()
    budget = by_kind.get("PodDisruptionBudget", {}).get("spec", {})
    if budget.get("selector", {}).get("matchLabels", {}).items() != selected or not budget.get("maxUnavailable"):
        yield "no PodDisruptionBudget of the workers"
    yield from scaling(by_kind, enabled=values.get("autoscaling", {}).get("enabled", False))


def scaling(by_kind: dict[str, dict[str, Any]], *, enabled: bool) -> Iterator[str]:
    """By lag where that is asked for, and then by nothing else."""
    if not enabled:
        if "ScaledObject" in by_kind or not by_kind["StatefulSet"]["spec"].get("replicas"):
            yield "it scales though nobody asked"
        return
    spec = by_kind.get("ScaledObject", {}).get("spec", {})
    if spec.get("scaleTargetRef", {}).get("name") != by_kind["StatefulSet"]["metadata"]["name"]:
        yield "no ScaledObject of the workers"
    if not [each for each in spec.get("triggers", ()) if each["type"] == "kafka" and each["metadata"]["lagThreshold"]]:
        yield "no trigger by lag"
    if "replicas" in by_kind["StatefulSet"]["spec"]:
        yield "an upgrade of the chart would undo the scaling"


def dockerfile() -> Iterator[str]:
    """What the image lacks."""
    text = (ROOT / "infra/image/Dockerfile").read_text(encoding="utf-8")
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    if len(stages) < 2 or " AS build" not in stages[0]:
        yield "it has one stage"
    users = re.findall(r"^USER (\S+)$", stages[-1], re.MULTILINE)
    if not users or users[-1].split(":")[0] in {"root", "0"}:
        yield "it runs as root"
    bill = re.search(r"^COPY --from=build \S*sbom\S* ", stages[-1], re.MULTILINE)
    if "cyclonedx-py environment" not in stages[0] or not bill:
        yield "it has no bill of materials"
    yield from (f"packages come in without their hashes: {each}" for each in unhashed(text))
    if re.search(r"\bpip\b", re.sub(r"^\s*#.*$", "", stages[-1], flags=re.MULTILINE)):
        yield "packages come in in the last stage"
    if not re.search(r"^HEALTHCHECK ", stages[-1], re.MULTILINE):
        yield "it has no health check"


def unhashed(text: str) -> Iterator[str]:
    """The commands of pip that would take what no hash names: not locked, and not built here."""
    for command in re.split(r"&&|\|\||;|\n", text.replace("\\\n", " ")):
        words = command.split()
        tools = [place for place, word in enumerate(words) if word.rpartition("/")[2] in {"pip", "pip3"}]
        if not tools or not {"install", "wheel", "download"} & set(words[tools[0] :]):
            continue
        options = {word for word in words if word.startswith("-")}
        named = [word for word in words[tools[0] + 2 :] if not word.startswith("-")]
        built_here = "--no-deps" in options and all(each.startswith("/wheels/") for each in named)
        builds_this = {"--no-deps", "--no-build-isolation"} <= options and set(named) <= {"/wheels", "."}
        if "--require-hashes" not in options and not built_here and not builds_this:
            yield " ".join(words)


def unit() -> Iterator[str]:
    """What the service lacks."""
    text = (ROOT / "infra/systemd/sage-worker@.service").read_text(encoding="utf-8")
    found = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    if found.get("Restart") != "always" or found.get("KillSignal") != "SIGTERM":
        yield "it is not started again, or not asked to drain"
    if int(found.get("TimeoutStopSec", "0")) <= drain_seconds():
        yield f"it is killed while it drains ({drain_seconds()} s)"
    for name, value in HARDENED.items():
        if found.get(name) != value:
            yield f"{name} is not {value!r}"
    if not re.search(r" --health-port=%i ", found.get("ExecStart", "")):
        yield "its health port is not its instance, so that some instance has none"
    yield from credentials(found)


def credentials(unit: dict[str, str]) -> Iterator[str]:
    """Whether the brokers' password can stay readable by root alone, and the service does without one."""
    text = (ROOT / "infra/systemd/login.conf").read_text(encoding="utf-8")
    found = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    if found.get("LoadCredential") != "client.properties:/etc/sage/client.properties":
        yield "the drop-in doesn't hand the brokers' password over as a credential"
    if found.get("Environment") != "SAGE_LOGIN=--kafka-config=%d/client.properties":
        yield "the drop-in names another file than the credential"
    if " $SAGE_LOGIN " not in unit.get("ExecStart", "") or "LoadCredential" in unit:
        yield "it needs the drop-in, or makes nothing of it"


def compose() -> Iterator[str]:
    """What the cluster in containers lacks."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    if missing := CLUSTER - services.keys():
        yield f"no {', '.join(sorted(missing))}"
    for name, service in services.items():
        # The collector's image has no program that could ask it.
        if name != "otel" and not service.get("healthcheck", {}).get("test"):
            yield f"{name} has no health check"
        if not all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ())):
            yield f"{name} is open to other machines"
    grace = services.get("worker", {}).get("stop_grace_period", "0s")
    if int(grace.removesuffix("s")) <= drain_seconds():
        yield "workers are killed while they drain"


def by_schema(compose_schema: Path, keda_schema: Path, files: list[Path]) -> Iterator[str]:
    """What a Compose file or a ScaledObject says that its schema doesn't know."""
    definition = yaml.safe_load(keda_schema.read_text(encoding="utf-8"))
    keda = {each["name"]: each["schema"]["openAPIV3Schema"] for each in definition["spec"]["versions"]}["v1alpha1"]
    schemas = {"ScaledObject": keda, None: json.loads(compose_schema.read_text(encoding="utf-8"))}
    for file in files:
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if (schema := schemas.get(document.get("kind"))) is None:
                continue  # Kubernetes' own: another program checks those
            for error in jsonschema.validators.validator_for(schema)(schema).iter_errors(document):
                yield f"{file.name}: {error.json_path}: {error.message}"


def promises(rendered: Path) -> Iterator[str]:
    """All that is not as it shall be."""
    for file in sorted((ROOT / "infra/helm/sage/ci").glob("*.yaml")):
        objects = [each for each in yaml.safe_load_all((rendered / file.name).read_text(encoding="utf-8")) if each]
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        yield from (f"chart with {file.name}: {each}" for each in chart(objects, values))
    yield from (f"Dockerfile: {each}" for each in dockerfile())
    yield from (f"systemd unit: {each}" for each in unit())
    yield from (f"docker-compose.yml: {each}" for each in compose())


def main(arguments: list[str]) -> int:
    """Print what is wrong; 1 where something is."""
    if arguments[0] == "--schemas":
        schemas, files = arguments[1:3], arguments[3:]
        wrong = list(by_schema(Path(schemas[0]), Path(schemas[1]), [Path(each) for each in files]))
    else:
        wrong = list(promises(Path(arguments[0])))
    for each in wrong:
        print(each, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
