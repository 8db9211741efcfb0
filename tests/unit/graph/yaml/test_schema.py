from types import ModuleType
from typing import Any

from sage.graph.yaml import topology_schema
from sage.spec.registry import Entry, Registry


def _references(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        own = {schema["$ref"]} if isinstance(schema.get("$ref"), str) else set()
        return own.union(*map(_references, schema.values())) if schema else own
    return set().union(*map(_references, schema)) if isinstance(schema, list) and schema else set()


def test_the_schema_holds_the_configurations_of_components(pieces: ModuleType) -> None:
    schema = topology_schema(pieces.REGISTRY)
    step = schema["$defs"]["step"]
    assert "dense_retriever" in step["properties"]["operator"]["anyOf"][0]["enum"]
    rules = {
        (k, rule["if"]["properties"][k]["const"]): rule["then"]
        for rule in step["allOf"]
        for k in rule["if"]["properties"]
    }
    config = rules["operator", "dense_retriever"]["properties"]["config"]
    assert set(config["properties"]) == {"collection", "top_k", "filter"}
    assert config["additionalProperties"] is False
    assert rules["operator", "dense_retriever"]["required"] == ["config"]
    assert rules["source", "topic"]["properties"]["config"]["required"] == ["topic"]
    assert rules["operator", "openai_generator"]["properties"]["config"]["properties"]["api_key"]["secret"] is True


def test_every_reference_in_the_schema_leads_somewhere(pieces: ModuleType) -> None:
    schema = topology_schema(pieces.REGISTRY)
    for reference in _references(schema):
        assert reference.removeprefix("#/$defs/") in schema["$defs"]


def test_a_component_that_cannot_be_imported_is_left_open() -> None:
    schema = topology_schema(Registry([Entry("operator", "lost", "not_installed_anywhere:Lost")]))
    step = schema["$defs"]["step"]
    assert "lost" in step["properties"]["operator"]["anyOf"][0]["enum"]
    assert all("lost" not in str(rule) for rule in step["allOf"])
