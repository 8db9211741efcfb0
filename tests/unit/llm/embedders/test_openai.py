from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from sage.errors import (
    DimensionMismatch,
    NotFound,
    RateLimited,
    RecordFailure,
    TransientFailure,
    Unauthorized,
    Unreachable,
)
from sage.llm.embedders import OpenAIEmbedder

Answer = tuple[int, dict[str, Any], dict[str, str]]


class Service:
    """An embeddings endpoint that answers as told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.answer: Callable[[dict[str, Any]], Answer] = self.vectors
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                service.asked.append(body)
                service.keys.append(self.headers.get("authorization"))
                status, data, headers = service.answer(body)
                content = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def vectors(body: dict[str, Any]) -> Answer:
        rows = [
            {"object": "embedding", "index": place, "embedding": [float(len(text)), 1.0, 0.0]}
            for place, text in enumerate(body["input"])
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return 200, {"object": "list", "data": rows[::-1], "model": body["model"], "usage": usage}, {}

    def refuse(self, status: int, **headers: str) -> None:
        error = {"error": {"message": "sk-secret and the texts", "type": "x", "code": None}}
        self.answer = lambda body: (status, error, headers)


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_rows_come_in_the_order_of_the_texts_at_unit_length(service: Service) -> None:
    vectors = OpenAIEmbedder("m", base_url=service.url).encode(["a", "bbbb"])
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(2))
    assert vectors[1][0] / vectors[1][1] == pytest.approx(4.0)


def test_prefixes_go_by_kind_and_the_key_goes_along(service: Service) -> None:
    embedder = OpenAIEmbedder("m", base_url=service.url, api_key="k", query_prefix="query: ", passage_prefix="doc: ")
    embedder.encode(["x"], kind="query")
    embedder.encode(["x"])
    assert [body["input"] for body in service.asked] == [["query: x"], ["doc: x"]]
    assert service.keys == ["Bearer k", "Bearer k"]


def test_the_dimension_is_asked_once_where_nobody_says_it(service: Service) -> None:
    embedder = OpenAIEmbedder("m", base_url=service.url)
    assert (embedder.dim, embedder.dim) == (3, 3)
    assert len(service.asked) == 1
    assert embedder.encode([]).shape == (0, 3)


def test_many_texts_go_in_several_requests(service: Service) -> None:
    assert OpenAIEmbedder("m", base_url=service.url).encode(["x"] * 600).shape == (600, 3)
    assert [len(body["input"]) for body in service.asked] == [256, 256, 88]


def test_another_length_than_said_is_refused(service: Service) -> None:
    with pytest.raises(DimensionMismatch, match="3 numbers, not 5"):
        OpenAIEmbedder("m", base_url=service.url, dim=5).encode(["x"])


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, Unauthorized),
        (403, Unauthorized),
        (404, NotFound),
        (400, RecordFailure),
        (413, RecordFailure),
        (408, TransientFailure),
        (500, TransientFailure),
        (503, TransientFailure),
    ],
)
def test_a_refusal_becomes_one_line_without_the_services_words(
    service: Service, status: int, error: type[Exception]
) -> None:
    service.refuse(status)
    with pytest.raises(error) as caught:
        OpenAIEmbedder("m", base_url=service.url, api_key="sk-secret").encode(["x"])
    assert type(caught.value) is error
    assert str(status) in str(caught.value)
    assert "sk-secret" not in str(caught.value)
    assert len(service.asked) == 1, "trying again is the step's business"


def test_a_service_that_asks_to_wait_says_how_long(service: Service) -> None:
    service.refuse(429, **{"retry-after": "7"})
    with pytest.raises(RateLimited) as caught:
        OpenAIEmbedder("m", base_url=service.url).encode(["x"])
    assert caught.value.retry_after == 7.0


def test_a_short_answer_is_worth_another_try(service: Service) -> None:
    service.answer = lambda body: Service.vectors({**body, "input": body["input"][:1]})
    with pytest.raises(TransientFailure, match="1 vectors for 2 texts"):
        OpenAIEmbedder("m", base_url=service.url).encode(["a", "b"])


def test_nobody_there_is_unreachable(service: Service) -> None:
    service.server.server_close()
    service.server.shutdown()
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
        OpenAIEmbedder("m", base_url=service.url, timeout=5).encode(["x"])
