"""The comparisons of scripts/benchmark.py."""
