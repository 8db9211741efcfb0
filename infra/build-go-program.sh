#!/usr/bin/env bash
# Build a program from the Go module proxy, once, and print where it is.
#
#   build-go-program.sh FOLDER MODULE PACKAGE NAME TARGET
#
# FOLDER has the go.mod and go.sum that name MODULE and, with their hashes, all that it needs. Several processes may
# call this at once. Exit code 3: Go is missing or too old.
set -euo pipefail
folder=$1 module=$2 package=$3 name=$4 target=$5
cd "$folder"
version=$(sed -n "s|^require $module v||p" go.mod)
wanted=$(sed -n 's/^go //p' go.mod)
target=${target:-$HOME/.cache/sage-tests/${name,,}-$version/${name,,}}

if [ ! -x "$target" ]; then
  if ! command -v go >/dev/null; then
    echo "$name $version: Go is not installed (it builds it); install Go $wanted or newer" >&2
    exit 3
  fi
  found=$(go env GOVERSION | sed 's/^go//')
  if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -1)" != "$wanted" ] && [ "$(go env GOTOOLCHAIN)" = local ]; then
    echo "$name $version: needs Go $wanted or newer to build, found $found" >&2
    exit 3
  fi
  mkdir -p "$(dirname "$target")"
  exec 9>"$target.lock"
  flock 9
  if [ ! -x "$target" ]; then
    echo "building $name $version with Go $found into $(dirname "$target") (some minutes on two cores, once)" >&2
    # The versions and hashes of all modules are in go.sum, so that no database of checksums has to be reached.
    GOSUMDB=off GOFLAGS="-buildvcs=false -mod=readonly" nice -n 10 go build -trimpath -o "$target.part" "$package"
    mv "$target.part" "$target"
  fi
fi
echo "$target"
