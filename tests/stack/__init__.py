"""
The viewing stack, proven with the real programs.

These tests need what tools/install.py installs, and minutes: they run when they are asked for by their path,
as `make stack-test` and `make compose-test` do, and are left out otherwise.
"""
