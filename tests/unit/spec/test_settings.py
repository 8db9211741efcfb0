import pytest

from sage.spec.options import MOST_PARTITIONS, Options, RetryPolicy
from sage.spec.schema import model_schema
from sage.spec.settings import MemoryConfig, check_kafka, check_options


def test_options_are_checked_all_at_once() -> None:
    _, options, problems = check_options({"concurency": 2, "retry": {"attemps": 3}, "timeout": "soon"})
    assert options == Options()
    assert {".".join(map(str, problem.path)): problem.message for problem in problems} == {
        "concurency": "unknown option; did you mean concurrency?",
        "retry.attemps": "unknown option; did you mean attempts?",
        "timeout": "'soon' is not a duration; write seconds, or a number with ms, s, m, h or d",
    }


def test_good_options_keep_what_was_set() -> None:
    name, options, problems = check_options(
        {"name": "a", "parallelism": 3, "timeout": "2m", "retry": {"attempts": 2}}, named=True
    )
    assert (name, problems) == ("a", [])
    assert options.model_fields_set == {"partitions", "timeout", "retry"}
    assert (options.partitions, options.timeout, options.retry) == (3, 120.0, RetryPolicy(attempts=2))


@pytest.mark.parametrize("spelling", ["partitions", "parallelism"])
def test_partitions_have_an_upper_bound_that_kafka_could_take(spelling: str) -> None:
    _, options, problems = check_options({spelling: MOST_PARTITIONS})
    assert (options.partitions, problems) == (MOST_PARTITIONS, [])
    _, _, (problem,) = check_options({spelling: 99_999_999_999})
    assert problem.message == "input should be less than or equal to 100000; found 99999999999"
    whole = model_schema(Options)["properties"]["partitions"]["anyOf"][0]
    assert (whole["minimum"], whole["maximum"]) == (1, MOST_PARTITIONS)


def test_kafka_is_an_allow_list() -> None:
    problems = check_kafka(
        {"linger.ms": 2, "group.id": "x", "sasl.password": "x", "lingr.ms": 1, "acks": {}, "isolation.level": "x"}
    )
    told = {problem.path[0]: problem.message for problem in problems}
    assert told["group.id"] == told["isolation.level"] == "is set by SAGE, since delivery hangs on it; remove it"
    assert told["sasl.password"] == "belongs to the worker; pass it with --kafka-config"
    assert told["lingr.ms"] == "can't be set by a topology; did you mean linger.ms?"
    assert told["acks"] == "must be a plain value; found {}"
    assert "linger.ms" not in told


def test_schemas_allow_variables_and_hide_secrets() -> None:
    schema = model_schema(MemoryConfig)
    assert schema["properties"]["token"]["secret"] is True
    assert schema["additionalProperties"] is False
    dim = schema["$defs"]["EmbeddingConfig"]["properties"]["dim"]
    assert dim["anyOf"]
    partitions = model_schema(Options)["properties"]["partitions"]["anyOf"]
    assert {"type": "string", "pattern": r"\$\{"} in partitions
