"""What the tests stand on, and none of them: servers, callers, what records their calls, programs, receivers."""
