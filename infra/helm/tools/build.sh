#!/usr/bin/env bash
# Build Helm once and print where it is: `make lint` checks the chart with it. SAGE_HELM names another binary.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/../../build-go-program.sh" "$here" helm.sh/helm/v3 helm.sh/helm/v3/cmd/helm Helm "${SAGE_HELM:-}"
