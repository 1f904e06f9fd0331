"""What an answer is worth: one file a way of scoring."""
