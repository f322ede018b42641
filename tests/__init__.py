"""The tests: what the project promises, shown on real servers and sockets."""
