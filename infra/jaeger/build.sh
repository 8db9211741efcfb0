#!/usr/bin/env bash
# Build Jaeger once and print where it is: the tests use it as a real trace store. SAGE_JAEGER names another binary, or
# where to put this one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/../build-go-program.sh" "$here" github.com/jaegertracing/jaeger github.com/jaegertracing/jaeger/cmd/jaeger \
  Jaeger "${SAGE_JAEGER:-}"
