"""Internals of k-reciprocal re-ranking."""
