"""How users write against the package; mypy reads it, and nobody runs it."""
