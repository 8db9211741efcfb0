#!/usr/bin/env bash
# Build Jaeger from the module proxy, once, and print where it is. The tests use it as a real trace store.
#
# SAGE_JAEGER names another binary, or where to put this one. Several processes may call this at once.
set -euo pipefail
cd "$(dirname "$0")"

version=$(sed -n 's|^require github.com/jaegertracing/jaeger v||p' go.mod)
target=${SAGE_JAEGER:-$HOME/.cache/sage-tests/jaeger-$version/jaeger}
wanted=$(sed -n 's/^go //p' go.mod)

if [ ! -x "$target" ]; then
  if ! command -v go >/dev/null; then
    echo "Jaeger $version: Go is not installed (it builds it); install Go $wanted or newer" >&2
    exit 3
  fi
  found=$(go env GOVERSION | sed 's/^go//')
  if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -1)" != "$wanted" ] && [ "$(go env GOTOOLCHAIN)" = local ]; then
    echo "Jaeger $version: needs Go $wanted or newer to build, found $found" >&2
    exit 3
  fi
  mkdir -p "$(dirname "$target")"
  exec 9>"$target.lock"
  flock 9
  if [ ! -x "$target" ]; then
    echo "building Jaeger $version with Go $found into $(dirname "$target") (5 minutes on two cores, once)" >&2
    # The versions and hashes of all modules are in go.sum, so that no database of checksums has to be reached.
    GOSUMDB=off GOFLAGS="-buildvcs=false -mod=readonly" nice -n 10 \
      go build -o "$target.part" github.com/jaegertracing/jaeger/cmd/jaeger
    mv "$target.part" "$target"
  fi
fi
echo "$target"
