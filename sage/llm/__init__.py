"""Models: chat services, local weights with their server, and embedders."""
