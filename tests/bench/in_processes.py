"""The topology that ``sage topology run --processes 2`` runs in the benchmark; its topics come from the environment."""

from __future__ import annotations

import os

from sage import LocalEnvironment
from tests.bench.programs import add_field

environment = LocalEnvironment(f"bench-{os.environ['BENCH_TARGET']}")
environment.from_topic(os.environ["BENCH_SOURCE"]).map(add_field).to(os.environ["BENCH_TARGET"])
