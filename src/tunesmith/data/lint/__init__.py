"""What is wrong with data: the rules, a file for each kind."""
