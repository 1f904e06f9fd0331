"""Files to rows: one file a kind."""
