"""Programs that the tests start, for what can be set up once in a process only."""
