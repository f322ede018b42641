"""The package's promises, apart from how a call may end: that is tests/conformance."""
