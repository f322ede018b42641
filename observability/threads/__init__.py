"""What runs beside the calls, and what a fork and the end of the process do to it."""
