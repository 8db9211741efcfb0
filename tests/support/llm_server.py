"""A chat service for tests of failures: real HTTP on this machine, told by ``mode`` how to behave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

Mode = Literal[
    "ok", "whole", "hang", "unauthorized", "limited", "quota", "unknown_model", "refused", "failing", "garbage",
    "empty", "broken_off",
]  # fmt: skip


@dataclass
class FakeOpenAI:
    """An OpenAI-compatible server on a free port: ``with FakeOpenAI() as service: service.base_url``.

    Attributes:
        mode: what chat calls get: ``ok`` streams, ``whole`` answers in one piece though asked to stream,
            ``hang`` never answers, ``unauthorized`` 401, ``limited`` 429 with Retry-After, ``quota`` 429
            insufficient_quota, ``unknown_model`` 404, ``refused`` 400, ``failing`` 503, ``garbage`` HTML with 200,
            ``empty`` no choices, ``broken_off`` closes half-way. Settable while it runs.
        reply: the answer's text, or a function of the request's JSON.
        models: what ``/models`` lists; with ``lists_models=False`` there is no such page.
        retry_after: seconds in the Retry-After header of ``limited``.
        fail_first: so many calls get ``mode``, later ones are ``ok``; ``None`` is all.
        calls: the JSON of every chat call, in order.
        keyed_calls: the same, each with its Idempotency-Key header.
        keys: the Authorization header of every request.
        when_called: called for every chat call, before it is answered.
    """

    mode: Mode = "ok"
    reply: str | Callable[[dict[str, Any]], str] = "Twenty days."
    models: tuple[str, ...] = ("fake-model",)
    lists_models: bool = True
    retry_after: float = 0.2
    fail_first: int | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)
    keyed_calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    disconnects: int = 0
    when_called: Callable[[], object] = lambda: None

    def __enter__(self) -> FakeOpenAI:
        self._stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def base_url(self) -> str:
        """Where the protocol begins."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def text_for(self, request: dict[str, Any]) -> str:
        """The answer to one request."""
        return self.reply(request) if callable(self.reply) else self.reply

    def mode_now(self) -> Mode:
        """How the call just counted is treated."""
        if self.fail_first is not None and len(self.calls) > self.fail_first:
            return "ok"
        return self.mode

    def wait_while_hanging(self, gone: Callable[[], bool]) -> None:
        """Hold a call until the client is gone or the server stops."""
        while not self._stopping.wait(0.02):
            if gone():
                self.disconnects += 1
                return


_ERRORS: dict[str, tuple[int, str, str]] = {
    "unauthorized": (401, "invalid_api_key", "Incorrect API key provided: sk-sec***ret."),
    "limited": (429, "rate_limit_exceeded", "Rate limit reached."),
    "quota": (429, "insufficient_quota", "You exceeded your current quota."),
    "unknown_model": (404, "model_not_found", "The model does not exist."),
    "refused": (400, "context_length_exceeded", "This model's maximum context length is 10 tokens."),
    "failing": (503, "overloaded", "The server is overloaded."),
}


def _handler(service: FakeOpenAI) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            service.keys.append(self.headers.get("Authorization", ""))
            if service.mode == "hang":
                return self._hang()
            if service.mode == "unauthorized":
                return self._error("unauthorized")
            if not service.lists_models:
                return self._json(404, {"detail": "Not Found"})
            if self.path == "/v1/models":
                return self._json(
                    200, {"object": "list", "data": [{"id": m, "object": "model"} for m in service.models]}
                )
            if self.path.removeprefix("/v1/models/") in service.models:
                return self._json(200, {"id": self.path.removeprefix("/v1/models/"), "object": "model"})
            return self._error("unknown_model")

        def do_POST(self) -> None:
            service.keys.append(self.headers.get("Authorization", ""))
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            service.when_called()
            service.calls.append(request)
            service.keyed_calls.append((self.headers.get("Idempotency-Key", ""), request))
            mode = service.mode_now()
            if mode in _ERRORS:
                return self._error(mode)
            if mode == "hang":
                return self._hang()
            if mode == "garbage":
                return self._send(200, "text/html", b"<html>Welcome to the proxy</html>")
            if mode in {"whole", "empty"}:
                return self._whole(request, empty=mode == "empty")
            return self._stream(request, broken_off=mode == "broken_off")

        def _whole(self, request: dict[str, Any], *, empty: bool) -> None:
            message = {"role": "assistant", "content": service.text_for(request)}
            choices = [] if empty else [{"index": 0, "message": message, "finish_reason": "stop"}]
            usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
            self._json(200, {"id": "whole-1", "object": "chat.completion", "created": 1, "model": request["model"],
                             "choices": choices, "usage": usage})  # fmt: skip

        def _stream(self, request: dict[str, Any], *, broken_off: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            words = service.text_for(request).split(" ")
            for position, word in enumerate(words):
                self._event(request, {"content": word if position == 0 else f" {word}"}, None)
            if not broken_off:
                self._event(request, {}, "stop")
                self._event(request, None, None)
                self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True

        def _event(self, request: dict[str, Any], delta: dict[str, str] | None, finish: str | None) -> None:
            chunk: dict[str, Any] = {
                "id": "chunk-1", "object": "chat.completion.chunk", "created": 1, "model": request["model"],
            }  # fmt: skip
            chunk["choices"] = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
            if delta is None:
                chunk["usage"] = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.flush()

        def _hang(self) -> None:
            self.connection.settimeout(0.01)

            def gone() -> bool:
                try:
                    return not self.connection.recv(1)
                except TimeoutError:
                    return False
                except OSError:
                    return True

            service.wait_while_hanging(gone)
            self.close_connection = True

        def _error(self, kind: str) -> None:
            status, code, text = _ERRORS[kind]
            extra = {"Retry-After": f"{service.retry_after:g}"} if kind == "limited" else {}
            self._json(status, {"error": {"message": text, "type": code, "code": code}}, extra)

        def _json(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
            self._send(status, "application/json", json.dumps(body).encode(), headers)

        def _send(self, status: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Stay silent: tests count ``service.calls``."""

    return Handler
