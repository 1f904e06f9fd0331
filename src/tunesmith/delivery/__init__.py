"""What is handed on: a tuned model in the form that others load, proven to be the one that was trained."""
