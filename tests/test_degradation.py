"""Degraded label maps: eroded and dilated bodies."""

import naive_maps
import numpy as np
import pytest

from magnifier_plugin.masks.degradation import dilate, erode, scaled_radius
from magnifier_plugin.regions import UNKNOWN


def random_labels(seed):
    """A blob of several regions on background, with an unknown patch."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((24, 14), np.uint8)
    labels[3:20, 4:11] = rng.integers(1, 8, (17, 7))
    labels[22:, 5:9] = 7
    labels[8:10, 2:6] = UNKNOWN
    return labels


@pytest.mark.parametrize("radius", [1.0, 1.5, 2.0, 3.2])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_a_loop(seed, radius):
    labels = random_labels(seed)
    before = labels.copy()
    eroded, dilated = erode(labels, radius), dilate(labels, radius)
    np.testing.assert_array_equal(eroded, naive_maps.eroded(labels, radius))
    for row, column in np.argwhere(dilated != labels):
        assert dilated[row, column] in naive_maps.nearest(labels, row, column, radius)
    grown = {tuple(place) for place in np.argwhere(dilated != labels)}
    assert grown == naive_maps.grown(labels, radius)
    np.testing.assert_array_equal(labels, before)
    for changed in (eroded, dilated):
        assert changed.dtype == np.uint8
        np.testing.assert_array_equal(changed == UNKNOWN, labels == UNKNOWN)


def test_a_body_at_the_images_edge_is_not_eroded_there():
    labels = np.zeros((6, 4), np.uint8)
    labels[3:, :] = 6
    assert erode(labels, 1)[:, 0].tolist() == [0, 0, 0, 0, 6, 6]


@pytest.mark.parametrize("change", [erode, dilate])
@pytest.mark.parametrize("value", [0, 5, UNKNOWN])
def test_a_map_of_one_label_does_not_change(change, value):
    labels = np.full((5, 3), value, np.uint8)
    np.testing.assert_array_equal(change(labels, 2), labels)


def test_the_radius_follows_the_height():
    assert [scaled_radius(2, height) for height in (256, 384, 128, 64)] == [2, 3, 1, 1]
