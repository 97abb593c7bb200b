"""Trained networks on images of any folder: features, search, regions of hits."""
