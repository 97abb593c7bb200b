"""MagnifierNet and DSA-reID as first-class citizens of torchreid."""
