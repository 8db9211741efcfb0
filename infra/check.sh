#!/usr/bin/env bash
# Check everything in infra/ and docker-compose.yml without Docker or Kubernetes: `make lint` calls it.
#
#   check.sh BIN [--strict]    BIN: the folder of the programs of requirements/infra.txt
#
# Each check prints one line; the first that fails ends it. Helm is built with Go, once; where Go or systemd-analyze is
# missing it says what was not checked, and with --strict, or SAGE_CHECK_STRICT=1, that is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(cd "$1" && pwd)
strict=${SAGE_CHECK_STRICT:-}
if [ "${2:-}" = --strict ]; then strict=1; fi
kubernetes=1.34

not_checked() {
  echo "$1: NOT CHECKED ($2)"
  if [ -n "$strict" ]; then
    echo "everything must be checked here: install what is missing" >&2
    exit 1
  fi
}

"$bin/hadolint" --config infra/image/hadolint.yaml infra/image/Dockerfile
echo "Dockerfile: good"

"$bin/yamllint" --strict --config-file infra/yamllint.yaml docker-compose.yml infra
echo "YAML: good"

rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
if helm=$(infra/helm/tools/build.sh); then
  for values in infra/helm/sage/ci/*.yaml; do
    "$helm" lint --quiet --strict infra/helm/sage --values "$values"
    "$helm" template release infra/helm/sage --values "$values" --kube-version "$kubernetes.0" --namespace sage \
      >"$rendered/$(basename "$values")"
  done
  if "$helm" template release infra/helm/sage --kube-version "$kubernetes.0" >/dev/null 2>&1; then
    echo "the chart renders without brokers: it must ask for them" >&2
    exit 1
  fi
  # Of the Prometheus operator's kinds there are no schemas here: those are only rendered. KEDA's come below.
  "$bin/kubernetes-validate" --strict --no-warn -k "$kubernetes" "$rendered"/*.yaml >/dev/null
  echo "Helm chart: good"
  "$bin/python" infra/check_promises.py "$rendered"
  echo "Promises of chart, image, unit and Compose file: kept"
else
  not_checked "Helm chart" "see above"
fi

sage=${SAGE:-.venv/bin/sage}
exports=$rendered/exports
mkdir "$exports"
if [ -x "$sage" ]; then
  for topology in $(grep -l '^steps:' topologies/sage_topologies/*/*.yaml); do
    for form in compose k8s keda; do
      "$sage" topology export "$topology" --quiet --format "$form" --to "$exports/$(basename "$topology" .yaml)-$form.yaml"
    done
  done
  "$bin/kubernetes-validate" --strict --no-warn -k "$kubernetes" "$exports"/*-k8s.yaml >/dev/null
  echo "sage topology export --format k8s: good"
else
  not_checked "sage topology export" "no $sage"
fi

if schemas=$(infra/schemas/fetch.sh); then
  mapfile -t schema <<<"$schemas"
  shopt -s nullglob
  "$bin/python" infra/check_promises.py --schemas "${schema[@]}" docker-compose.yml "$rendered"/*.yaml \
    "$exports"/*-compose.yaml "$exports"/*-keda.yaml
  echo "Compose files and ScaledObjects, by their schemas: good"
else
  not_checked "Compose files and ScaledObjects" "see above"
fi

"$bin/python" - <<'PYTHON'
import json, pathlib, promql_parser, yaml

rules = yaml.safe_load(pathlib.Path("infra/prometheus/alerts.yml").read_text())
panels = json.loads(pathlib.Path("infra/grafana/dashboards/sage.json").read_text())["panels"]
queries = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
queries += [target["expr"].replace("$topology", "a|b") for panel in panels for target in panel["targets"]]
for query in queries:
    promql_parser.parse(query)
print(f"PromQL: {len(queries)} queries are good")
PYTHON

if command -v systemd-analyze >/dev/null; then
  # The program is not installed on the machine that checks; all else must be right.
  units=$rendered/units
  mkdir -p "$units/sage-worker@8081.service.d"
  cp infra/systemd/sage-worker@.service "$units"
  cp infra/systemd/login.conf "$units/sage-worker@8081.service.d"
  for instance in 8081 18081; do # with the drop-in, and without
    if systemd-analyze verify "$units/sage-worker@$instance.service" 2>&1 | grep -v 'is not executable' >&2; then
      exit 1
    fi
  done
  echo "systemd unit, with and without login: good"
else
  not_checked "systemd unit" "no systemd-analyze here"
fi
