#!/usr/bin/env bash
# Print where the schemas of Compose files and of KEDA's objects are: they are part of two Go modules, fetched once from
# the Go module proxy and held to the hashes below. Exit code 3: they are not to be had.
set -euo pipefail

fetched() {
  local module=$1 sum=$2 found
  if ! found=$(GOSUMDB=off GOFLAGS=-mod=mod go mod download -json "$module"); then
    echo "$module cannot be fetched" >&2
    return 3
  fi
  if [ "$(sed -n 's/^\t"Sum": "\(.*\)",$/\1/p' <<<"$found")" != "$sum" ]; then
    echo "$module is not what it was: its hash is not $sum" >&2
    return 1
  fi
  sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' <<<"$found"
}

if ! command -v go >/dev/null; then
  echo "schemas of Compose and KEDA: Go is not installed (it fetches them)" >&2
  exit 3
fi
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
compose=$(fetched github.com/compose-spec/compose-go/v2@v2.16.1 h1:xuEQu32ghB2AK023Beumm//K8bz8u1AHC9P0zKp8jlw=)
keda=$(fetched github.com/kedacore/keda/v2@v2.21.0 h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=)
echo "$compose/schema/compose-spec.json"
echo "$keda/config/crd/bases/keda.sh_scaledobjects.yaml"
