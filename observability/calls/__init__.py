"""What a call is, and how observers are told of it."""
