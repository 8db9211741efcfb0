"""Kafka: the ports over confluent-kafka (its only importer), and the launchers of brokers."""
