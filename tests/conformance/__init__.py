"""What is reported of a call is true, whatever happens to it: every outcome, on every way, on both sides."""
