"""Who is told when a run has ended: one file a format of messages."""
