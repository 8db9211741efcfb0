"""Chat models on this machine: where their weights are, and the server that answers for them."""
