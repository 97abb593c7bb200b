"""The charts of DensePose: the part of each point on the body, and its U and V.

Each body segment (a limb, the torso, the head) has its own coordinates: s runs along it from 0 to
1, and w runs around it from 0 to 1 over one half and again over the other. Where s and w begin:

    segment         s from, to       half 0, half 1    w from, to
    torso           neck, crotch     front, back       the body's left, its right
    arms and legs   body, hand/foot  front, back       outside, inside
    foot            heel, toe        outside, inside   top, sole
    head            neck, crown      left, right       face, back of the head

Each half is one chart (for hands and feet, both halves together are one), whose U and V are affine
functions of s and w. Their directions are those of DensePose's output, which
`tests/test_synthetic_labels.py` checks.
"""

from typing import NamedTuple

import numpy as np

from magnifier_plugin.regions import PARTS

# U or V as a function of (s, w): constant, factor of s, factor of w.
_ALONG = (0.0, 1.0, 0.0)
_AGAINST = (1.0, -1.0, 0.0)
_AROUND = (0.0, 0.0, 1.0)
_BACKWARD = (1.0, 0.0, -1.0)
_FIRST_HALF = (0.5, 0.0, -0.5)
_SECOND_HALF = (0.5, 0.0, 0.5)

# Limb → for each half: the chart's name, U, V.
_LIMBS = {
    "upper arm": (("inner", _ALONG, _BACKWARD), ("outer", _ALONG, _BACKWARD)),
    "lower arm": (("inner", _AGAINST, _AROUND), ("outer", _ALONG, _BACKWARD)),
    "upper leg": (("front", _AGAINST, _AROUND), ("back", _ALONG, _BACKWARD)),
    "lower leg": (("front", _ALONG, _BACKWARD), ("back", _AGAINST, _BACKWARD)),
}
# U is mirrored between left and right hands and feet but not between limbs: one row for each side.
_ENDS = {
    "left hand": (("", _SECOND_HALF, _ALONG), ("", _FIRST_HALF, _ALONG)),
    "right hand": (("", _FIRST_HALF, _ALONG), ("", _SECOND_HALF, _ALONG)),
    "left foot": (("", _ALONG, _SECOND_HALF), ("", _ALONG, _FIRST_HALF)),
    "right foot": (("", _AGAINST, _SECOND_HALF), ("", _AGAINST, _FIRST_HALF)),
}
_SEGMENTS = {
    "torso": (("front", _ALONG, _AROUND), ("back", _ALONG, _AROUND)),
    "head": (("left", _AROUND, _ALONG), ("right", _BACKWARD, _ALONG)),
    **{f"{side} {limb}": halves for limb, halves in _LIMBS.items() for side in ("left", "right")},
    **_ENDS,
}

# All tables of segments, here and in other modules, are in this order.
SEGMENTS = tuple(_SEGMENTS)


class Surface(NamedTuple):
    """The surface coordinates of N samples on the body."""

    segment: np.ndarray
    """int [N], index into SEGMENTS."""
    s: np.ndarray
    """float32 [N], position along the segment, in [0, 1] except beyond its ends."""
    w: np.ndarray
    """float32 [N], position around one half of it, in [0, 1]."""
    half: np.ndarray
    """int [N], 0 or 1."""


_PART = np.array(
    [
        [PARTS.index(f"{name} {half[0]}".strip()) for half in halves]
        for name, halves in _SEGMENTS.items()
    ],
    dtype=np.uint8,
)
_UV = np.array([[half[1:] for half in halves] for halves in _SEGMENTS.values()], dtype=np.float32)


def to_iuv(surface: Surface) -> np.ndarray:
    """DensePose's labels of samples on the body.

    Args:
        surface: the samples' segments and coordinates.
    Returns:
        uint8 [N, 3] in the order I (1..24), U, V (0..255 for 0..1).
    """
    affine = _UV[surface.segment, surface.half]  # [N, (U, V), (constant, s, w)]
    uv = affine[..., 0] + affine[..., 1] * surface.s[:, None] + affine[..., 2] * surface.w[:, None]
    uv = np.rint(np.clip(uv, 0, 1) * 255).astype(np.uint8)
    part = _PART[surface.segment, surface.half]
    return np.concatenate([part[:, None], uv], axis=1)
