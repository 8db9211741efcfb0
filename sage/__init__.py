"""SAGE: actor-based stream processing over Kafka for LLM, RAG and agent pipelines."""
