"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) on lists of neighbours, in bounded memory."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from magnifier_plugin.evaluation.encoding import encode, expand_locally
from magnifier_plugin.evaluation.rounded import bfloat16_is_fast
from magnifier_plugin.evaluation.sources import FeatureSource, MatrixSource

Array = np.ndarray | Tensor
GIB = 2**30


def rerank(
    query_features: Array,
    gallery_features: Array,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    *,
    form: str = "torchreid",
    memory: float = 0.5,
    search: str = "auto",
) -> Array:
    features = _features(query_features, gallery_features)
    _check_parameters(k1, k2, lambda_value, form, memory, num_rows=sum(map(len, features)))
    in_bfloat16 = search == "bfloat16" or (search == "auto" and bfloat16_is_fast(features[0].device))
    memory = int(memory * GIB)
    source = FeatureSource(*features, form, in_bfloat16, memory)
    return _rerank(source, k1, k2, lambda_value, memory)


def _rerank(distances, k1, k2, lambda_value, memory):
    nearest = distances.nearest(max(k1 + 1, k2))
    encoding = encode(nearest, distances.between, k1, memory)
    encoding = expand_locally(encoding, nearest, k2)
    result = distances.to_gallery().mul_(lambda_value)
    for queries, shared in _shared_weights(encoding, distances.num_queries, memory):
        jaccard = 1 - shared / (2 - shared)
        result[queries].add_(jaccard, alpha=1 - lambda_value)
    return result


def _shared_weights(
    encoding: Tensor, num_queries: int, memory: int
) -> Iterator[tuple[slice, Tensor]]:
    """Sums of minima of the encodings of queries and gallery images, through an inverted index.

    Yields:
        A range of queries, and float32 [b, G].
    """
    num_rows = len(encoding)
    rows, columns = encoding.indices()
    values = encoding.values()
    split = int(torch.searchsorted(rows, num_queries))
    # The gallery by column: entries[start[c]:start[c + 1]] weigh column c.
    by_column = columns[split:].argsort(stable=True)
    gallery, weights = rows[split:][by_column] - num_queries, values[split:][by_column]
    count = torch.bincount(columns[split:], minlength=num_rows)
    start = count.cumsum(0) - count

    pairs = count[columns[:split]]  # of each entry of a query
    ends = pairs.cumsum(0)
    queries = rows[:split]
    per_query = torch.zeros(num_queries, dtype=torch.int64, device=rows.device)
    per_query = per_query.index_add_(0, queries, pairs).cumsum(0)

    first = 0
    while first < num_queries:
        done = per_query[first - 1] if first else 0
        stop = int(torch.searchsorted(per_query, done + memory // 64, right=True))
        stop = min(max(stop, first + 1), first + max(1, memory // (16 * (num_rows - num_queries))), num_queries)
        a, b = torch.searchsorted(queries, torch.tensor([first, stop], device=rows.device)).tolist()
        entry = torch.repeat_interleave(pairs[a:b]) + a
        place = torch.arange(len(entry), device=rows.device) + (start[columns[:split]] - ends + pairs)[entry] + done
        shared = values.new_zeros(stop - first, num_rows - num_queries)
        target = (queries[entry] - first) * shared.shape[1] + gallery[place]
        shared.view(-1).index_add_(0, target, torch.minimum(values[entry], weights[place]))
        yield slice(first, stop), shared
        first = stop


def _features(*features):
    return [torch.as_tensor(f).float() for f in features]


def _check_parameters(k1, k2, lambda_value, form, memory, num_rows):
    pass
