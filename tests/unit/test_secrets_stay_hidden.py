"""The ways on which words of an exception, or a configuration, leave the process: none shows a secret.

Each test uses a secret of its own, since what is hidden belongs to the process.
"""

from __future__ import annotations

import http.client
import io
import logging
from typing import Any

import pytest
from pydantic import BaseModel, Field

from sage.cli.flags import Flags
from sage.cli.log import log_to
from sage.cli.terminal import Terminal
from sage.cluster.control_topics import LOG_PARTITIONS, ensure_control_topics
from sage.cluster.deployable import refuse_undeployable
from sage.cluster.log_records import LogRecord
from sage.cluster.names import ControlTopics
from sage.cluster.status import Check, StageStatus, TopologyStatus
from sage.cluster.worker.log_handler import TopicHandler
from sage.errors import InvalidTopology, Unreachable
from sage.graph import StreamBuilder
from sage.kafka.clients import ConfluentClients
from sage.kafka.config import masked
from sage.llm.chat.openai_model import OpenAIChatModel
from sage.memory.milvus_errors import shown
from sage.model.partition import TopicPartition
from sage.plan.encoding import plan_json
from sage.plan.planner import compile_plan
from sage.runtime.retries.dead_letters import dead_letter
from sage.spec.component import Operator
from sage.spec.config import normalise_config, reveal
from sage.testing.broker import InMemoryClients
from tests.unit.cluster.pipelines import asking
from tests.unit.runtime.messages import message
from tests.unit.tracing.spans import Message, Recorded


class Service(BaseModel):
    key: str = Field(json_schema_extra={"secret": True})


class Call(Operator[Any, Any]):
    """A step that needs a key."""

    class Config(BaseModel):
        service: Service | None = None
        url: str = ""
        named: dict[str, Service] = {}

    def process(self, value: Any, ctx: Any) -> Any:
        return value


def revealed(secret: str) -> str:
    """The secret, as a worker resolves it for a step."""
    found = reveal(Call.Config, {"service": {"key": "${KEY}"}}, environ={"KEY": secret})
    return str(found["service"]["key"])


def failure(secret: str) -> Exception:
    """What a library says that quotes what it was given."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", 1)
        connection.putrequest("GET", "/")
        connection.putheader("Authorization", f"Bearer {secret}\n")
    except Exception as error:
        assert secret in str(error), "the library does not quote it any more: find another that does"
        return error
    raise AssertionError("it was refused")


def test_dead_letters_hide_it_in_message_and_trace() -> None:
    secret = revealed("sk-dead-letter-0001")
    letter = dead_letter(
        message({}), failure(secret), topology="qa", stage="ask", step="ask", code="qa.Ask", worker="w1", attempts=1,
        topic="qa.dlq",
    )  # fmt: skip
    assert secret.encode() not in b"".join(value or b"" for _, value in letter.headers)
    assert b"Bearer ***" in (dict(letter.headers)["__connect.errors.exception.message"] or b"")


def test_spans_hide_it() -> None:
    secret = revealed("sk-span-0002")
    recorded = Recorded()
    span = recorded.tracer.process("qa.in", Message(), group="qa.ask", step="ask")
    span.fail(failure(secret))
    span.end()
    (ended,) = recorded.spans
    assert "***" in (ended.status.description or "")
    assert secret not in ended.to_json()


def test_status_records_hide_it() -> None:
    secret = revealed("sk-status-0003")
    stage = StageStatus("ask", 1, "backing-off", problem=f"refused: Bearer {secret}")
    said = TopologyStatus("w1", "qa", (stage,), (Check(1, (f"no service takes {secret}",), "unready"),))
    assert secret.encode() not in said.encode()
    assert TopologyStatus.decode(said.encode()).stages[0].problem == "refused: Bearer ***"


def test_lines_and_tracebacks_of_the_terminal_hide_it() -> None:
    secret = revealed("sk-terminal-0004")
    written = io.StringIO()
    terminal = Terminal(Flags(debug=True), err=written)
    log_to(terminal)
    try:
        logging.getLogger("sage.runtime").warning("stopped", exc_info=failure(secret))
    finally:
        log_to(Terminal(Flags()))
    assert "Bearer ***" in written.getvalue()
    assert secret not in written.getvalue()


def test_the_logs_topic_hides_it() -> None:
    secret = revealed("sk-log-topic-0005")
    clients, topics = InMemoryClients(), ControlTopics()
    ensure_control_topics(clients, topics)
    handler = TopicHandler(clients, topics, "w1")
    record = logging.LogRecord("sage.step.qa.ask", logging.ERROR, __file__, 1, "it said %s", (secret,), None)
    record.exc_info = (type(error := failure(secret)), error, error.__traceback__)
    handler.emit(record)
    handler.close()
    reader = clients.consumer(None)
    reader.assign({TopicPartition(topics.logs, number): -2 for number in range(LOG_PARTITIONS)})
    (found,) = reader.poll(10, 1.0)
    assert secret.encode() not in (found.value() or b"")
    line = LogRecord.decode(found.value() or b"")
    assert "***" in line.message
    assert "***" in line.trace


@pytest.mark.parametrize(
    "config", [{"service": {"key": 77_001_234}}, {"service": 77_001_234}, {"named": {"a": {"key": 77_001_234}}}]
)
def test_what_is_wrong_with_a_secret_is_told_without_it(config: dict[str, Any]) -> None:
    found, problems = normalise_config(Call, config, environ={})
    assert found == {}
    assert problems
    if config != {"service": 77_001_234}:  # that one is no secret, but stands where its holder should
        assert not any("77001234" in problem.message for problem in problems)


def test_a_plan_with_a_secret_written_out_is_refused_without_showing_it() -> None:
    with pytest.raises(InvalidTopology, match="api_key is a secret written out") as refused:
        refuse_undeployable(asking(config={"api_key": "sk-literal-0006"}))
    assert "sk-literal-0006" not in str(refused.value)


@pytest.mark.parametrize("given", ["http://ann:horse-0007@host/v1", "${ADDRESS}"])
def test_an_address_with_a_password_is_refused_for_the_control_topic_and_masked_in_plans(given: str) -> None:
    env = StreamBuilder("qa", environ={"ADDRESS": "http://ann:horse-0007@host/v1"})
    env.from_topic("qa-in").map(Call, {"url": given}, name="call").to("qa-out")
    plan = compile_plan(env.build())
    assert "horse-0007" not in str(plan_json(plan))
    with pytest.raises(InvalidTopology, match="url is an address with a user or a password in it") as refused:
        refuse_undeployable(plan)
    assert "horse-0007" not in str(refused.value)


def test_the_memorys_address_too() -> None:
    env = StreamBuilder("qa", memory={"uri": "http://root:Milvus-0008@host:19530"}, environ={})
    env.from_topic("qa-in").map(Call, {}, name="call").to("qa-out")
    with pytest.raises(InvalidTopology, match="uri is an address with a user or a password in it"):
        refuse_undeployable(compile_plan(env.build()))
    assert shown("http://root:Milvus-0008@host:19530") == "http://host:19530"


async def test_a_model_service_that_is_away_is_named_without_its_user() -> None:
    model = OpenAIChatModel("http://ann:horse-0009@127.0.0.1:1/v1", "sk-model-0009")
    with pytest.raises(Unreachable) as refused:
        await model.check("gpt")
    await model.close()
    for text in (str(refused.value), repr(model)):
        assert "horse-0009" not in text
        assert "sk-model-0009" not in text


def test_properties_of_clients_are_masked_by_name_and_in_addresses() -> None:
    properties = {
        "sasl.password": "horse-0010", "ssl.key.password": "horse-0010", "ssl.key.pem": "horse-0010",
        "ssl.keystore.password": "horse-0010", "sasl.oauthbearer.client.secret": "horse-0010",
        "sasl.oauthbearer.config": "horse-0010", "sasl.oauthbearer.assertion.private.key.passphrase": "horse-0010",
        "sasl.oauthbearer.assertion.private.key.pem": "horse-0010", "https.proxy": "http://ann:horse-0010@proxy",
        "sasl.kerberos.kinit.cmd": "echo horse-0010 | kinit",
    }  # fmt: skip
    assert "horse-0010" not in str(masked(properties))
    clients = ConfluentClients("127.0.0.1:1", {"sasl.password": "horse-0010", "sasl.username": "ann"})
    assert "horse-0010" not in repr(clients)
    assert "ann" in repr(clients)


def test_what_librdkafka_quotes_of_a_property_is_hidden() -> None:
    clients = ConfluentClients("127.0.0.1:1", {"security.protocol": "SSL", "ssl.key.pem": "horse-0011"})
    with pytest.raises(InvalidTopology) as refused:
        clients.admin()
    assert "horse-0011" not in str(refused.value)
