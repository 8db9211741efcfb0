"""The local model server: ``python -m sage.llm.local.server --model local/smollm2 --port 18080``.

An OpenAI-compatible service on this machine, in the foreground, until SIGTERM or SIGINT. It holds nothing that
could be lost, so it ends at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage.errors import NotFound, PortTaken, SageError
from sage.llm.local.request_log import RequestLog
from sage.llm.local.weights import weights_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HOST = "127.0.0.1"
CONTEXT_TOKENS = 4096
"""Prompt and answer of one call at most."""

ANSWER_TOKENS = 256
"""An answer's length where the call sets no ``max_tokens``: small models may repeat themselves without an end."""

SLOTS = 1
"""Answers written at the same time. With more, or with a prompt cache, one question gets another answer now and then,
since sums are taken in another order beside other work; one at a time, answers repeat exactly."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to end; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sage.llm.local.server", description=__doc__)
    parser.add_argument("--model", default="local/smollm2", help="the local model to serve")
    parser.add_argument("--port", type=int, default=0, help="the port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--slots", type=int, default=SLOTS, help="answers written at the same time")
    options = parser.parse_args(arguments)
    try:
        serve(options.model, options.port, options.slots)
    except SageError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def serve(model: str, port: int, slots: int = SLOTS) -> None:
    """Load the weights, listen, and wait for a signal.

    Raises:
        SageError: weights or engine missing, or the port is taken.
    """
    weights = weights_of(model)
    _check_port(port)
    # Threads that wait must sleep. Spinning, which is the default, is faster by a tenth on an idle machine, and slower
    # by a factor of forty when brokers and other processes want the same cores (1 token/s against 45, on two cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # for the engine's threads too: they are this thread's to take
    log = _redirect_engine_log()
    server = _start_engine(weights, model, port, slots)
    log(f"{model} listens on {server.listening_address}/v1, {slots} slots of {CONTEXT_TOKENS} tokens")
    signal.sigwait(signals)
    log("ended by a signal")
    os._exit(0)  # the engine would first finish the answers in flight, for clients that are gone


def _start_engine(weights: Path, model: str, port: int, slots: int) -> Any:
    try:
        import xllamacpp as imported
    except ImportError as error:
        raise NotFound('xllamacpp is not installed. Local models need it: pip install "sage-streams[local]"') from error
    xllamacpp: Any = imported  # a compiled module without stubs
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.model_alias = {model}
    parameters.hostnames = [HOST]
    parameters.port = port
    parameters.n_parallel = slots
    parameters.n_ctx = CONTEXT_TOKENS * slots
    parameters.n_predict = ANSWER_TOKENS
    parameters.cache_prompt = False  # see SLOTS
    parameters.cache_ram_mib = 0
    parameters.fit_params = False
    cores = os.cpu_count() or 2
    # One core writes as many tokens as two here: small models wait for memory. Reading a prompt does scale.
    parameters.cpuparams.n_threads = max(1, cores // 2)
    parameters.cpuparams_batch.n_threads = cores
    # Calls beyond the slots wait inside, each on a thread; health checks must still get one.
    parameters.n_threads_http = 128
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.cors_origins = f"http://{HOST}"
    try:
        return xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise NotFound(f"{weights} can't be loaded ({error}). Delete it, and `sage up` fetches it again") from error


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PortTaken(f"port {port} is taken on {HOST}. Choose another, or stop what listens there") from error


def _redirect_engine_log() -> Callable[[str], None]:
    """Send what the engine writes to file descriptor 2 through a ``RequestLog``; returns the writer of that log.

    Python's own ``sys.stderr`` goes on to the real one, so that errors and tracebacks never take the detour.
    """
    real = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace", buffering=1)
    sys.stderr = real
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)

    def write(line: str) -> None:
        with suppress(OSError):  # whoever read the log is gone; serving goes on
            real.write(f"{line}\n")

    requests = RequestLog(write)

    def pump() -> None:
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                requests.feed(line.rstrip("\n"))

    threading.Thread(target=pump, name="engine-log", daemon=True).start()
    return requests.say


if __name__ == "__main__":
    sys.exit(main())
