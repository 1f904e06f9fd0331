"""Who draws the answers that a model learns from."""
