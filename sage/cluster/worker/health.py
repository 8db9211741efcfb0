"""A worker's endpoints: ``/healthz``, ``/readyz``, ``/metrics``.

The first two say nothing but how it is. Metrics name topologies and topics: beyond this machine they are given only to
who shows the token.
"""

from __future__ import annotations

import hmac
import ipaddress
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from sage.cluster.status import StageStatus
from sage.cluster.worker.identity import resident_bytes
from sage.cluster.worker.worker import Worker
from sage.errors import PortTaken

_STAGE_COUNTERS: Final = ("read", "written", "retried", "skipped", "dead", "restarts")

EXPOSED: Final = {
    "sage_records_read_total": "Records read by a stage since it was started here.",
    "sage_records_written_total": "Records written by a stage since it was started here.",
    "sage_records_retried_total": "Tries after the first.",
    "sage_records_skipped_total": "Records given up by on_error: skip.",
    "sage_records_dead_total": "Records that became dead letters.",
    "sage_stage_restarts_total": "How often a stage was started anew after a failure.",
    "sage_stage_running": "1 where a stage does here what is desired, such as to rest.",
    "sage_stage_paused": "1 where a stage is a member here, and rests as it was told.",
    "sage_stage_partitions": "Partitions that a stage has here.",
    "sage_stage_latency_seconds": "Seconds of work per record since the last look.",
    "sage_worker_ready": "1 where this worker takes work on.",
    "process_resident_memory_bytes": "Resident memory.",
    "kafka_consumergroup_lag": "Records that wait in a partition that is assigned here.",
}

_GAUGES: Final = frozenset(name for name in EXPOSED if not name.endswith("_total"))

_AS_DESIRED: Final = frozenset({"running", "paused", "drained", "held"})
"""States that nobody needs to be woken for."""

TOKEN_VARIABLE: Final = "SAGE_METRICS_TOKEN"

Labels = Mapping[str, str]
Sample = tuple[str, Labels, float]


class Health:
    """An HTTP server on a thread of its own.

    Args:
        worker: whose health it is.
        host: where it listens.
        port: 0 takes a free one; see ``port``.
        token: what a reader of metrics must show as a bearer token; empty asks for none on a loopback address, and
            refuses metrics elsewhere.

    Raises:
        PortTaken: another process has the port.
    """

    def __init__(self, worker: Worker, host: str, port: int, token: str = "") -> None:
        answers: dict[str, Callable[[], tuple[int, str]]] = {
            "/healthz": lambda: _verdict(worker.is_alive, "its loop stands still"),
            "/readyz": lambda: _verdict(worker.is_ready, "it does not take work on now"),
            "/metrics": lambda: (200, "".join(exposition(samples_of(worker)))),
        }

        def may_read(shown: str) -> bool:
            if not token:
                return _is_loopback(host)
            return hmac.compare_digest(shown.encode(), f"Bearer {token}".encode())

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = answers.get(self.path.partition("?")[0])
                if answer is None:
                    code, text = 404, "see /healthz, /readyz and /metrics\n"
                elif answer is answers["/metrics"] and not may_read(self.headers.get("Authorization", "")):
                    code, text = 401, f"metrics are shown for `Authorization: Bearer` with {TOKEN_VARIABLE}\n"
                else:
                    code, text = answer()
                body = text.encode()
                self.send_response(code)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Probes come each second: they are not news."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise PortTaken(
                f"port {port} can't be listened on: {error.strerror}; give another --health-port"
            ) from error
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="worker-health", daemon=True).start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: who knows where it leads
        return False


def _verdict(good: bool, problem: str) -> tuple[int, str]:
    return (200, "ok\n") if good else (503, f"{problem}\n")


def samples_of(worker: Worker) -> Iterator[Sample]:
    """All that a worker measures. Labels never are keys or trace ids."""
    yield "sage_worker_ready", {"worker": worker.identity.worker}, float(worker.is_ready)
    yield "process_resident_memory_bytes", {}, float(resident_bytes())
    for name, host in worker.hosts.items():
        for unit in host.units:
            for status in unit.statuses():
                yield from _stage(name, status)
    for (group, place), lag in worker.lags.items():
        labels = {"consumergroup": group, "topic": place.topic, "partition": str(place.partition)}
        yield "kafka_consumergroup_lag", labels, float(lag)


def _stage(topology: str, status: StageStatus) -> Iterator[Sample]:
    labels = {"topology": topology, "operator": status.stage}
    for counter in _STAGE_COUNTERS:
        name = "sage_stage_restarts_total" if counter == "restarts" else f"sage_records_{counter}_total"
        yield name, labels, float(getattr(status, counter))
    yield "sage_stage_running", labels, float(status.state in _AS_DESIRED)
    yield "sage_stage_paused", labels, float(status.state == "paused")
    yield "sage_stage_partitions", labels, float(len(status.partitions))
    for quantile, seconds in status.latency.items():
        yield "sage_stage_latency_seconds", {**labels, "quantile": f"0.{quantile[1:]}"}, seconds


def exposition(samples: Iterator[Sample]) -> Iterator[str]:
    """The text that Prometheus reads."""
    by_name: dict[str, list[tuple[Labels, float]]] = {}
    for name, labels, value in samples:
        by_name.setdefault(name, []).append((labels, value))
    for name, found in by_name.items():
        yield f"# HELP {name} {EXPOSED[name]}\n# TYPE {name} {'gauge' if name in _GAUGES else 'counter'}\n"
        for labels, value in found:
            shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
            yield f"{name}{{{shown}}} {value!r}\n" if shown else f"{name} {value!r}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
