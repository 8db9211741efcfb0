#!/usr/bin/env bash
# A front to the Makefile: ./setup.sh [minimal|local|full]
#
#   minimal  SAGE alone, for clusters that have Kafka, Milvus and a model service
#   local    with an embedded broker, embedded memory and small models (the default)
#   full     with all that tests, checks and benchmarks need
set -euo pipefail
cd "$(dirname "$0")"

case "${1:-local}" in
  minimal) target=install ;;
  local) target=local ;;
  full) target=dev ;;
  -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "setup.sh: unknown kind of installation: $1; use minimal, local or full" >&2; exit 2 ;;
esac

command -v make >/dev/null || { echo "setup.sh: make is not installed; on Debian and Ubuntu: apt-get install make" >&2; exit 1; }
make --no-print-directory "$target"
echo
echo "Done. Activate it with:  source .venv/bin/activate"
[ "$target" = install ] || echo "Then try:                sage demo"
