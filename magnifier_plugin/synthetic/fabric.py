"""The colour of every point of a dressed person: the garment that covers it, and its pattern.

Patterns follow the body: they are functions of the surface coordinates s and w (charts.py).
"""

import numpy as np

from magnifier_plugin.synthetic.body import Garment, Solid
from magnifier_plugin.synthetic.charts import SEGMENTS, Surface
from magnifier_plugin.synthetic.skeleton import SIDES, Build, length_of
from magnifier_plugin.synthetic.wardrobe import BOTTOMS, COLOURS, SLEEVES, Wardrobe

_TORSO = SEGMENTS.index("torso")
_HEAD = SEGMENTS.index("head")
# Upper, lower, upper, lower: `_limits` depends on this order.
_ARMS = [SEGMENTS.index(f"{side} {limb} arm") for side in SIDES for limb in ("upper", "lower")]
_LEGS = [SEGMENTS.index(f"{side} {limb} leg") for side in SIDES for limb in ("upper", "lower")]

# Length of cloth, in metres, along s from 0 to 1 and along w from 0 to 1, on an average body.
_ALONG = np.array([Build.height * length_of(name) for name in SEGMENTS], dtype=np.float32)
_AROUND = np.full(len(SEGMENTS), 0.16, dtype=np.float32)
_AROUND[_LEGS], _AROUND[_TORSO] = 0.24, 0.46
# A limit that no s reaches.
_ALL = 9.0
# Position of a band: the end of the segments' names, and the range of s.
_BANDS = {
    "head": ("head", 0.7, _ALL),
    "upper arm": ("upper arm", 0.25, 0.85),
    "lower arm": ("lower arm", 0.3, 0.9),
    "chest": ("torso", 0.2, 0.48),
    "upper leg": ("upper leg", 0.35, 0.85),
    "lower leg": ("lower leg", 0.25, 0.75),
    "foot": ("foot", -_ALL, _ALL),
}
# s of the torso at which the top ends.
_HEM = {"shirt": 0.79, "jacket": 0.82, "coat": _ALL}

# s of the head at which the collar ends; the chin is at about 0.2.
_COLLAR = {"shirt": 0.03, "jacket": 0.11, "coat": 0.13}


def _limits(wardrobe: Wardrobe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each segment: the s at which a garment ends, and the garments before and after that s."""
    limit = np.full(len(SEGMENTS), -_ALL, dtype=np.float32)
    before = np.full(len(SEGMENTS), Garment.SKIN, dtype=np.intp)
    after = np.full(len(SEGMENTS), Garment.SKIN, dtype=np.intp)
    limit[_HEAD], before[_HEAD] = _COLLAR[wardrobe.top], Garment.TOP
    limit[_TORSO], before[_TORSO], after[_TORSO] = _HEM[wardrobe.top], Garment.TOP, Garment.BOTTOM
    for segments, length, garment in (
        (_ARMS, SLEEVES[wardrobe.sleeve], Garment.TOP),
        (_LEGS, BOTTOMS[wardrobe.bottom], Garment.BOTTOM),
    ):
        for i, segment in enumerate(segments):
            lower = i % 2
            limit[segment] = length - lower if length < 2 or not lower else _ALL
            before[segment] = garment
    if wardrobe.top == "coat":  # a thigh that pushes the coat's skirt forward stays covered
        for thigh in _LEGS[::2]:
            limit[thigh], before[thigh], after[thigh] = 0.5, Garment.TOP, Garment.BOTTOM
    for side in SIDES:
        foot = SEGMENTS.index(f"{side} foot")
        limit[foot], before[foot] = _ALL, Garment.SHOES
    # A sleeveless shirt still covers the shoulder's cap.
    for segment in _ARMS[::2]:
        limit[segment] = max(limit[segment], 0.05)
    return limit, before, after


def garments(
    surface: Surface, solid: np.ndarray, solids: list[Solid], wardrobe: Wardrobe
) -> np.ndarray:
    """The garment that covers each point.

    Args:
        surface: the points' surface coordinates.
        solid: int [N], index of the solid that each point is on.
        solids: the list that `solid` indexes.
        wardrobe: what the person wears.
    Returns:
        int [N], values of Garment.
    """
    limit, before, after = _limits(wardrobe)
    segment, s = surface.segment, surface.s
    garment = np.where(s < limit[segment], before[segment], after[segment])
    own = np.array([-1 if one.garment is None else one.garment for one in solids])[solid]
    np.copyto(garment, own, where=own >= 0)
    _put_on_torso(garment, surface, (segment == _TORSO) & (own < 0), wardrobe)
    _put_on_head(garment, surface, (segment == _HEAD) & (own < 0), wardrobe)
    return garment


def _put_on_torso(
    garment: np.ndarray, surface: Surface, torso: np.ndarray, wardrobe: Wardrobe
) -> None:
    """Adds the opening of a jacket and the straps of bags, in place."""
    _, s, w, half = surface
    front = torso & (half == 0)
    if wardrobe.top == "jacket":
        gap = np.abs(w - 0.5) < 0.05 + 0.08 * s
        garment[front & gap & (garment == Garment.TOP)] = Garment.INNER
    if wardrobe.bag == "backpack":
        strap = np.abs(np.abs(w - 0.5) - 0.2) < 0.04
        garment[front & strap & (s < 0.42)] = Garment.BAG
    if wardrobe.bag == "shoulder bag":
        strap = np.abs(w - 0.22 - 0.8 * s) < 0.035
        garment[torso & strap & (s < 0.8)] = Garment.BAG


def _put_on_head(
    garment: np.ndarray, surface: Surface, head: np.ndarray, wardrobe: Wardrobe
) -> None:
    """Adds hair above the hairline, eyes, eyebrows and mouth, in place."""
    _, s, w, _ = surface
    if wardrobe.hairstyle != "bald":
        garment[head & (s > 0.86 - 0.12 * w)] = Garment.HAIR
    eyes = (np.abs(s - 0.58) < 0.022) & (np.abs(w - 0.135) < 0.045)
    brows = (np.abs(s - 0.645) < 0.012) & (np.abs(w - 0.135) < 0.07)
    mouth = (np.abs(s - 0.385) < 0.013) & (w < 0.075)
    garment[head & (eyes | brows | mouth)] = Garment.DARK


def _pattern(name: str, surface: Surface) -> np.ndarray:
    """How much a pattern shows its second colour at each point, float32 [N] in [0, 1]."""
    segment, s, w, half = surface
    along = s * _ALONG[segment]
    around = np.where(half == 0, w, -w) * _AROUND[segment]
    torso = segment == _TORSO
    if name == "stripes":
        return ((along / 0.075) % 1 < 0.42).astype(np.float32)
    if name == "checks":
        bands = ((along / 0.085) % 1 < 0.4).astype(np.float32)
        return 0.5 * (bands + ((around / 0.085) % 1 < 0.4))
    if name == "logo":
        front = (half == 0) & (((w - 0.5) / 0.15) ** 2 + ((s - 0.33) / 0.105) ** 2 < 1)
        back = (half == 1) & (np.abs(w - 0.5) < 0.19) & (np.abs(s - 0.24) < 0.06)
        return (torso & (front | back)).astype(np.float32)
    if name == "blocks":
        return (torso & (s > 0.42)).astype(np.float32)
    if name == "sleeves":
        return np.isin(segment, _ARMS).astype(np.float32)
    if name == "side stripe":
        return ((w < 0.1) & np.isin(segment, _LEGS)).astype(np.float32)
    return np.zeros(len(s), dtype=np.float32)


def _palette(wardrobe: Wardrobe) -> np.ndarray:
    """The colour of each garment, float32 [garments, 3], 0..1."""
    skin = np.array(wardrobe.skin)
    colours = {
        Garment.SKIN: skin,
        Garment.TOP: COLOURS[wardrobe.top_colour],
        Garment.BOTTOM: COLOURS[wardrobe.bottom_colour],
        Garment.SHOES: COLOURS[wardrobe.shoes],
        Garment.HAIR: wardrobe.hair,
        Garment.BAG: COLOURS[wardrobe.bag_colour],
        Garment.INNER: COLOURS[wardrobe.top_detail],
        Garment.DARK: 0.3 * skin,
    }
    return np.array([colours[garment] for garment in Garment], dtype=np.float32) / 255


def paint(surface: Surface, garment: np.ndarray, wardrobe: Wardrobe) -> np.ndarray:
    """The colours of the points, before lighting.

    Args:
        surface: the points' surface coordinates.
        garment: int [N], the garment that covers each point.
        wardrobe: what the person wears.
    Returns:
        float32 [3, N], sRGB in [0, 1].
    """
    palette = _palette(wardrobe)
    colour = np.take(np.ascontiguousarray(palette.T), garment, axis=1)
    for kind, pattern, detail in (
        (Garment.TOP, wardrobe.top_pattern, wardrobe.top_detail),
        (Garment.BOTTOM, wardrobe.bottom_pattern, wardrobe.bottom_detail),
    ):
        if pattern == "plain":
            continue
        worn = np.flatnonzero(garment == kind)
        share = _pattern(pattern, Surface(*(part[worn] for part in surface)))
        first, second = palette[kind], np.array(COLOURS[detail], dtype=np.float32) / 255
        colour[:, worn] = first[:, None] + share * (second - first)[:, None]
    if wardrobe.band != "none":
        banded = _band(surface, wardrobe.band) & (garment != Garment.BAG)
        colour[:, banded] = np.array(COLOURS[wardrobe.band_colour], dtype=np.float32)[:, None] / 255
    return colour


def _band(surface: Surface, region: str) -> np.ndarray:
    """Which points a band around a region covers, bool [N]."""
    ending, start, end = _BANDS[region]
    segments = [SEGMENTS.index(name) for name in SEGMENTS if name.endswith(ending)]
    return np.isin(surface.segment, segments) & (surface.s > start) & (surface.s < end)
