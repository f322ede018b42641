"""Tests of the package, apart from how a call may end: that is tests/conformance."""
