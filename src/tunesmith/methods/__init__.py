"""Which parameters learn: one file a method."""
