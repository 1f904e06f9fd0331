"""From names to rows: which files a place has, what is in them, which format that is."""
