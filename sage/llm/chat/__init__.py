"""Chat services that speak the OpenAI protocol: one client, one error table, one place that chooses the service."""
