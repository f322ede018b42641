"""The client: a person's way to the two services, and to what they report about their calls."""
