"""What a model writes while it learns, and what that is worth."""
