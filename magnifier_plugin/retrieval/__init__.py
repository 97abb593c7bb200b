"""Trained networks applied to image folders: features, search, regions of hits."""
