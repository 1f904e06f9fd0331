"""Tokens on the disk: one part a source, all of them for a run."""
