"""The options of DSA-reID: allowed values and combinations."""

import math
from collections.abc import Sequence

from magnifier_plugin.models.backbone import BACKBONES

LOSSES = ("dsa", "triplet", "softmax")
STREAMS = ("MF", "DSAG")
BRANCHES = {"global": "G", "local": "L"}
FUSIONS = ("add", "concat")
TEST_FEATURES: dict[str, tuple[str, ...]] = {
    "f": tuple(BRANCHES),
    "z": tuple(BRANCHES),
    "z_G": ("global",),
    "z_L": ("local",),
}


def built_streams(streams: Sequence[str], loss: str) -> tuple[str, ...]:
    """The streams that are built, in a fixed order; with torchreid's losses only the MF-Stream."""
    return tuple(name for name in STREAMS if name in streams) if loss == "dsa" else ("MF",)


def check_values(
    loss: str,
    backbone: str,
    streams: Sequence[str],
    branches: Sequence[str],
    fusion: str,
    test_features: str,
    width: float,
) -> None:
    """Raise a ValueError if `DSAReID` does not support an option's value."""
    if loss not in LOSSES:
        raise ValueError(f"loss: DSA-reID supports {', '.join(LOSSES)}; got {loss!r}")
    for key, value, known in (
        ("backbone", backbone, BACKBONES),
        ("fusion", fusion, FUSIONS),
        ("test_features", test_features, tuple(TEST_FEATURES)),
    ):
        if value not in known:
            raise ValueError(f"dsa.{key}: expected one of {', '.join(known)}; got {value!r}")
    for key, values, known in (
        ("streams", streams, STREAMS),
        ("branches", branches, tuple(BRANCHES)),
    ):
        listed = isinstance(values, Sequence) and not isinstance(values, str)
        if not listed or not values or not all(value in known for value in values):
            raise ValueError(
                f"dsa.{key}: expected a list of {', '.join(known)}, at least one; got {values!r}"
            )
    number = isinstance(width, int | float) and not isinstance(width, bool)
    if not number or not 0 < width < math.inf:
        raise ValueError(f"dsa.width: expected a number above 0; got {width!r}")


def check_combination(
    loss: str,
    streams: Sequence[str],
    branches: Sequence[str],
    fusion: str,
    test_features: str,
    pretrained_head: bool,
) -> None:
    """Raise a ValueError if valid values contradict each other."""
    built = built_streams(streams, loss)
    if not set(TEST_FEATURES[test_features]) & set(branches):
        raise ValueError(
            f"dsa.test_features: {test_features} expects {TEST_FEATURES[test_features][0]!r} in "
            f"dsa.branches; got {list(branches)}"
        )
    if test_features == "f" and "MF" not in built:
        raise ValueError(
            f"dsa.test_features: f expects 'MF' in dsa.streams; got {list(streams)}; test z, z_G "
            "or z_L, which need the textures of query and gallery"
        )
    if fusion == "concat" and loss == "dsa" and len(built) < len(STREAMS):
        raise ValueError(
            f"dsa.fusion: concat expects {list(STREAMS)} in dsa.streams; got {list(streams)}"
        )
    if pretrained_head and ("MF" not in built or "global" not in branches):
        raise ValueError(
            "dsa.pretrained_head: expected 'MF' in dsa.streams and 'global' in dsa.branches; got "
            f"{list(streams)} and {list(branches)}"
        )
