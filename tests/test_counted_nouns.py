"""Counts in messages: one identity, two identities."""

import numpy as np
import pytest

from magnifier_plugin.evaluation.ranking import evaluate_ranking
from magnifier_plugin.evaluation.summary import describe
from magnifier_plugin.wording import many


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "identity", "1 identity"),
        (2000, "identity", "2,000 identities"),
        (0, "query", "0 queries"),
        (2, "batch", "2 batches"),
        (1, "batch", "1 batch"),
        (4, "epoch", "4 epochs"),
        (3, "process", "3 processes"),
        (2, "image", "2 images"),
    ],
)
def test_many(count, noun, text):
    assert many(count, noun) == text


@pytest.mark.parametrize(
    ("queries", "text"),
    [
        ([1, 5], "1 query without a match left out: 1 whose identity is not in the gallery"),
        ([1, 5, 6], "2 queries without a match left out: 2 whose identity is not"),
    ],
)
def test_queries_left_out(queries, text):
    distances = np.zeros((len(queries), 1))
    ranking = evaluate_ranking(distances, queries, [1], [0] * len(queries), [1])
    assert text in describe("Results", ranking, [1])
