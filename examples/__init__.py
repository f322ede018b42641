"""Programs to read and to run: how the package comes into a service of somebody else's."""
