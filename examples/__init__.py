"""Programs to read and to run: how the package comes into an existing service."""
