"""From files to batches: read, render, lay out."""
