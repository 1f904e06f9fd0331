"""Which program computes attention."""
