"""From the name of a model to its numbers: found, loaded, asked."""
