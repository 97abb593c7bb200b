"""The 8 body regions of MagnifierNet and the 24 body parts of DensePose: names, numbers, tables.

These numbers are defined only here. A "part" is one of DensePose's 24, a "region" one of the 8 that
MagnifierNet pools (sections 3.1 and 4.1); most parts have a side, left or right, regions have none.
"""

from types import MappingProxyType

import numpy as np

REGIONS = (
    "background",
    "head",
    "upper arm",
    "lower arm",
    "chest",
    "upper leg",
    "lower leg",
    "foot",
)
NUM_REGIONS = len(REGIONS)
BACKGROUND = REGIONS.index("background")
# A pixel without a label, ignored by the mask loss; the value used by Cityscapes and VOC.
UNKNOWN = 255


def _region_ids(*names: str) -> tuple[int, ...]:
    return tuple(REGIONS.index(name) for name in names)


# U_torso and L_torso of MagnifierNet, section 4.1.
UPPER_REGIONS = _region_ids("head", "upper arm", "lower arm", "chest")
LOWER_REGIONS = _region_ids("upper leg", "lower leg", "foot")
BODY_REGIONS = UPPER_REGIONS + LOWER_REGIONS

# One colour per region, for palette PNGs and overlays; distinguishable by colour-blind readers.
REGION_COLOURS = (
    (0, 0, 0),
    (240, 228, 66),
    (230, 159, 0),
    (213, 94, 0),
    (0, 158, 115),
    (86, 180, 233),
    (0, 114, 178),
    (204, 121, 167),
)

# DensePose's fine parts; id 0 is the background. Torso, arms and legs have two charts each: front
# and back, or inner and outer.
PARTS = (
    "background",
    "torso back",
    "torso front",
    "right hand",
    "left hand",
    "left foot",
    "right foot",
    "right upper leg back",
    "left upper leg back",
    "right upper leg front",
    "left upper leg front",
    "right lower leg back",
    "left lower leg back",
    "right lower leg front",
    "left lower leg front",
    "left upper arm inner",
    "right upper arm inner",
    "left upper arm outer",
    "right upper arm outer",
    "left lower arm inner",
    "right lower arm inner",
    "left lower arm outer",
    "right lower arm outer",
    "head right",
    "head left",
)
NUM_PARTS = len(PARTS) - 1

# Part (without side and chart) → region. The paper lists no hands: here they belong to the lower
# arm, or to the background (`part_to_region(hands="background")`).
_REGION_OF = MappingProxyType(
    {
        "background": "background",
        "torso": "chest",
        "hand": "lower arm",
        "foot": "foot",
        "upper leg": "upper leg",
        "lower leg": "lower leg",
        "upper arm": "upper arm",
        "lower arm": "lower arm",
        "head": "head",
    }
)


_SIDES = frozenset({"left", "right"})
_CHARTS = frozenset({"back", "front", "inner", "outer"})


def _without(part: str, words: frozenset[str]) -> str:
    return " ".join(word for word in part.split() if word not in words)


def _limb(part: str) -> str:
    """A part's name without its side and chart: "left upper arm inner" → "upper arm"."""
    return _without(part, _SIDES | _CHARTS)


def _mirrored(part: str) -> str:
    swap = {"left": "right", "right": "left"}
    return " ".join(swap.get(word, word) for word in part.split())


def _read_only(values: list[int]) -> np.ndarray:
    table = np.array(values, dtype=np.uint8)
    table.setflags(write=False)
    return table


def part_to_region(hands: str = "lower arm") -> np.ndarray:
    """The table that maps DensePose's part ids to region ids.

    Args:
        hands: the region that hands count as, "lower arm" or "background".
    Returns:
        uint8 [25], values 0..7; entry 0 (no part) is the background.
    Raises:
        ValueError: hands is neither of the two.
    """
    if hands not in ("lower arm", "background"):
        raise ValueError(f"hands: expected 'lower arm' or 'background', got {hands!r}")
    region_of = {**_REGION_OF, "hand": hands}
    return _read_only([REGIONS.index(region_of[_limb(part)]) for part in PARTS])


# uint8 [25], indexed by part id: its region, and the part on the other side of the body.
PART_TO_REGION = part_to_region()
MIRRORED_PART = _read_only([PARTS.index(_mirrored(part)) for part in PARTS])

# DSA-reID merges the parts twice (Fig. 4): left with right, 24 → 13, then back with front (arms:
# inner with outer), 13 → 8. The first entry is part 1: these tables leave out the background.
SIDELESS_PARTS = tuple(dict.fromkeys(_without(part, _SIDES) for part in PARTS[1:]))
MERGED_PARTS = tuple(dict.fromkeys(_limb(part) for part in SIDELESS_PARTS))
# uint8 [24], values 0..12, and uint8 [13], values 0..7.
PART_TO_SIDELESS = _read_only([SIDELESS_PARTS.index(_without(part, _SIDES)) for part in PARTS[1:]])
SIDELESS_TO_MERGED = _read_only([MERGED_PARTS.index(_limb(part)) for part in SIDELESS_PARTS])
