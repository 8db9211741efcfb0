"""A real Jaeger, and what its API says of a trace."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_until

BUILD = Path(__file__).parents[3] / "infra" / "jaeger" / "build.sh"

_CONFIG = """
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {{receivers: [otlp], processors: [], exporters: [jaeger_storage_exporter]}}
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
extensions:
  jaeger_storage: {{backends: {{memory: {{memory: {{max_traces: 100000}}}}}}}}
  jaeger_query:
    storage: {{traces: memory}}
    http: {{endpoint: "127.0.0.1:{query}"}}
    grpc: {{endpoint: "127.0.0.1:{query_grpc}"}}
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{otlp}"}}}}}}
exporters:
  jaeger_storage_exporter: {{trace_storage: memory}}
"""


@dataclass(frozen=True)
class JaegerSpan:
    """One span as Jaeger's API gives it.

    Attributes:
        parent: the parent's span id; empty for a root.
        links: the span ids that it refers to beside its parent.
        tags: attributes by name, with ``span.kind``, ``error`` and the like.
    """

    trace_id: str
    span_id: str
    name: str
    service: str
    parent: str
    links: tuple[str, ...]
    tags: Mapping[str, Any]
    start_us: int
    duration_us: int


class Jaeger:
    """A Jaeger process with memory storage on free ports; ``stop`` it."""

    def __init__(self, binary: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sage-jaeger-")
        folder = Path(self._folder.name)
        self._otlp, self._query, query_grpc = _free_ports(3)
        config, self._log = folder / "config.yaml", folder / "jaeger.log"
        config.write_text(_CONFIG.format(otlp=self._otlp, query=self._query, query_grpc=query_grpc))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([binary, "--config", config], stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until(self._answers, timeout=60, what="Jaeger answers")
        except BaseException:
            self.stop()
            raise

    @property
    def environ(self) -> dict[str, str]:
        """The standard variables that make a process export every trace to this Jaeger, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._otlp}",
            "OTEL_TRACES_SAMPLER": "parentbased_always_on",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }

    @property
    def address(self) -> str:
        """The query API, for people."""
        return f"http://127.0.0.1:{self._query}"

    def trace(self, trace_id: str) -> list[JaegerSpan]:
        """The spans of a trace that have arrived, by start; empty while there is none."""
        try:
            answer = self._get(f"/api/traces/{trace_id}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise
        return [span for trace in answer["data"] for span in _spans(trace)]

    def wait_for_trace(
        self, trace_id: str, complete: Callable[[Sequence[JaegerSpan]], bool], timeout: float = 30.0
    ) -> list[JaegerSpan]:
        """The spans of a trace once ``complete`` says that all have arrived."""
        last: list[JaegerSpan] = []

        def arrived() -> bool:
            last[:] = self.trace(trace_id)
            return complete(last)

        try:
            wait_until(arrived, timeout=timeout, what=f"trace {trace_id} is complete")
        except AssertionError as error:
            found = "\n".join(f"  {span.service}: {span.name}" for span in last)
            raise AssertionError(f"{error}; it has:\n{found}") from None
        return last

    def traces(self, service: str, *, limit: int = 1000) -> list[list[JaegerSpan]]:
        """All traces with a span of ``service``."""
        query = urllib.parse.urlencode({"service": service, "limit": limit, "lookback": "1h"})
        return [_spans(trace) for trace in self._get(f"/api/traces?{query}")["data"]]

    def stop(self) -> None:
        """End the process and remove its files."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._folder.cleanup()

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"Jaeger ended: {self._log.read_text()[-2000:]}")
        try:
            self._get("/api/services")
        except (OSError, ValueError):
            return False
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._otlp)) == 0

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.address}{path}", timeout=10) as response:
            return json.load(response)


def jaeger_binary() -> Path:
    """Jaeger's program, built when it is not there yet.

    Raises:
        RuntimeError: it can't be built here; says why.
    """
    if named := os.environ.get("SAGE_JAEGER"):
        return Path(named)
    done = subprocess.run([BUILD], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(
            done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"build ended {done.returncode}"
        )
    return Path(done.stdout.strip())


def _spans(trace: Mapping[str, Any]) -> list[JaegerSpan]:
    services = {name: process["serviceName"] for name, process in trace["processes"].items()}
    return sorted((_span(each, services) for each in trace["spans"]), key=lambda span: span.start_us)


def _span(span: Mapping[str, Any], services: Mapping[str, str]) -> JaegerSpan:
    references = span.get("references") or []
    parents = [each["spanID"] for each in references if each["refType"] == "CHILD_OF"]
    return JaegerSpan(
        trace_id=span["traceID"],
        span_id=span["spanID"],
        name=span["operationName"],
        service=services[span["processID"]],
        parent=parents[0] if parents else "",
        links=tuple(each["spanID"] for each in references if each["refType"] != "CHILD_OF"),
        tags={tag["key"]: tag["value"] for tag in span["tags"]},
        start_us=span["startTime"],
        duration_us=span["duration"],
    )


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
