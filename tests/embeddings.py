"""Random embeddings for the tests of re-ranking."""

import numpy as np


def clustered(rng, num_queries, num_gallery, dim=16, spread=0.5):
    """float32 [Q, D] and [G, D], rows of norm 1, about five images per identity."""
    num_rows = num_queries + num_gallery
    centres = rng.normal(size=(max(1, num_rows // 5), dim))
    features = centres[rng.integers(0, len(centres), num_rows)]
    features = features + spread * rng.normal(size=features.shape)
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    return features[:num_queries], features[num_queries:]


def duplicated(rng, num_queries, num_gallery, dim=3):
    """float32 [Q, D] and [G, D] of small integers: many ties, and no rounding."""
    features = rng.integers(0, 3, (num_queries + num_gallery, dim)).astype(np.float32)
    return features[:num_queries], features[num_queries:]
