"""What a call is, and how it is reported to observers."""
