"""From text to checked records, and back. Knows nothing of tuning."""
