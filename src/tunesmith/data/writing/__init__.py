"""Rows written anew: converted, cleaned, split."""
