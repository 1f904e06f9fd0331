"""Methods held against each other on a user's own data: the same rows, steps and measurements for each."""
