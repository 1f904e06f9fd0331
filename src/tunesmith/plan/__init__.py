"""What a run will take, and what is wise, before anything is loaded; and how far that was right."""
