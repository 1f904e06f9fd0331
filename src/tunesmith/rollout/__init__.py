"""Answers that a model gives while it learns, and how good they are."""
