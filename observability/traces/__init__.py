"""A span for each call, and its way to the collector."""
