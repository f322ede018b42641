"""Histograms and counters of calls, and /metrics."""
