"""End-to-end tests: the programs as processes, seen from outside alone."""
