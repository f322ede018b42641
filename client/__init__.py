"""The client: a person's way to the two services, and to what they tell about their calls."""
