"""What is learnt: one file an objective."""
