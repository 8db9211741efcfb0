"""Brokers that SAGE can start: the embedded one for users, Apache Kafka for tests and benchmarks."""
