"""A server's run, from its ports to its drain, and its health."""
