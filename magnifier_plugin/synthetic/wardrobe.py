"""An identity: build, skin, hair and clothes; and its near-twin, which differs in one detail."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from magnifier_plugin.regions import BODY_REGIONS, REGIONS
from magnifier_plugin.synthetic.skeleton import Build

# sRGB, 0..255: colours of clothes in daylight, none fully saturated.
COLOURS = {
    "black": (34, 34, 38),
    "charcoal": (66, 68, 74),
    "grey": (132, 134, 138),
    "silver": (186, 188, 190),
    "white": (232, 232, 228),
    "cream": (226, 214, 186),
    "beige": (192, 170, 134),
    "brown": (104, 72, 50),
    "khaki": (132, 122, 84),
    "olive": (84, 92, 54),
    "green": (44, 122, 74),
    "teal": (26, 116, 124),
    "sky": (126, 174, 212),
    "blue": (46, 92, 172),
    "denim": (70, 92, 128),
    "navy": (36, 44, 82),
    "purple": (98, 62, 128),
    "pink": (216, 134, 156),
    "red": (184, 44, 46),
    "burgundy": (108, 32, 48),
    "orange": (216, 118, 44),
    "yellow": (222, 186, 62),
}
SKINS = ((242, 206, 182), (228, 184, 152), (206, 156, 120), (168, 118, 84), (116, 78, 56))
HAIRS = ((30, 26, 26), (30, 26, 26), (58, 40, 30), (96, 66, 42), (158, 122, 76), (150, 148, 146))

TOPS = ("shirt", "shirt", "shirt", "jacket", "coat")
PATTERNS = ("plain", "stripes", "checks", "logo", "blocks", "sleeves")
SLEEVES = {"none": 0.0, "short": 0.72, "long": 2.0}  # 1 is the elbow, 2 the wrist
BOTTOMS = {
    "trousers": 2.0,
    "cropped": 1.55,
    "shorts": 0.85,
    "skirt": 0.8,
}  # 1 the knee, 2 the ankle
BOTTOM_PATTERNS = ("plain", "side stripe", "checks")
WIDTHS = ("slim", "straight", "wide")
HAIRSTYLES = ("bald", "short", "bob", "long", "ponytail")
BAGS = ("none", "backpack", "shoulder bag", "handbag")
BANDS = ("none", *(REGIONS[region] for region in BODY_REGIONS))

_BOTTOM_COLOURS = ("black", "charcoal", "grey", "denim", "navy", "beige", "khaki", "brown", "white")
_SHOE_COLOURS = ("black", "white", "brown", "grey", "red", "navy")
# Two colours that are nearer than this (Euclidean, sRGB) look the same through a bad camera.
_DISTINCT = 90.0


@dataclass(frozen=True)
class Wardrobe:
    """What all images of an identity have in common; colours are names in COLOURS."""

    build: Build = field(default_factory=Build)
    skin: tuple[int, int, int] = SKINS[1]
    """sRGB."""
    hair: tuple[int, int, int] = HAIRS[0]
    """sRGB."""
    hairstyle: str = "short"
    """One of HAIRSTYLES."""
    top: str = "shirt"
    """One of TOPS."""
    top_colour: str = "blue"
    top_pattern: str = "plain"
    """One of PATTERNS."""
    top_detail: str = "white"
    """Colour of the pattern, or of the shirt under a jacket; else not visible."""
    sleeve: str = "long"
    """A name in SLEEVES."""
    bottom: str = "trousers"
    """A name in BOTTOMS."""
    bottom_colour: str = "charcoal"
    bottom_pattern: str = "plain"
    """One of BOTTOM_PATTERNS."""
    bottom_detail: str = "white"
    """Colour of the pattern; not visible if the pattern is plain."""
    width: str = "straight"
    """Width of the trousers, one of WIDTHS."""
    shoes: str = "black"
    """Colour."""
    bag: str = "none"
    """One of BAGS."""
    bag_colour: str = "brown"
    band: str = "none"
    """The body region around which a band of cloth is worn; one of BANDS."""
    band_colour: str = "red"
    """Not visible without a band."""


def _pick(rng: np.random.Generator, choices, weights=None):
    weights = None if weights is None else np.array(weights) / sum(weights)
    return choices[int(rng.choice(len(choices), p=weights))]


def _distinct(rng: np.random.Generator, choices, *others: str) -> str:
    """Draws a colour that looks different from all the others."""
    rest = [
        name
        for name in choices
        if all(np.linalg.norm(np.subtract(COLOURS[name], COLOURS[o])) >= _DISTINCT for o in others)
    ]
    return _pick(rng, rest)


def random_wardrobe(rng: np.random.Generator) -> Wardrobe:
    """Draws a random person: build, skin, hair and clothes.

    Args:
        rng: the generator of all random choices.
    Returns:
        The wardrobe.
    """
    names = tuple(COLOURS)
    curvy = rng.random() < 0.5
    build = Build(
        height=round(float(np.clip(rng.normal(1.66 if curvy else 1.75, 0.065), 1.5, 1.95)), 3),
        girth=round(float(np.clip(rng.normal(1.0, 0.08), 0.86, 1.25)), 3),
        shoulders=round(rng.uniform(0.88, 0.98) if curvy else rng.uniform(0.98, 1.1), 3),
        hips=round(rng.uniform(1.0, 1.12) if curvy else rng.uniform(0.9, 1.02), 3),
    )
    top = _pick(rng, TOPS)
    top_colour = _pick(rng, names)
    patterns = PATTERNS if top == "shirt" else ("plain", "plain", "blocks", "logo")
    bottom = _pick(rng, tuple(BOTTOMS), (6, 1, 1.5, 2 if curvy else 0))
    bottom_colour = _pick(rng, _BOTTOM_COLOURS if bottom != "skirt" else names)
    return Wardrobe(
        build=build,
        skin=_pick(rng, SKINS),
        hair=_pick(rng, HAIRS),
        hairstyle=_pick(rng, HAIRSTYLES, (0, 1, 2, 4, 3) if curvy else (1, 7, 1, 0.3, 0.3)),
        top=top,
        top_colour=top_colour,
        top_pattern=_pick(rng, patterns, (2.5, *(1,) * (len(patterns) - 1))),
        top_detail=_distinct(rng, names, top_colour),
        sleeve=_pick(rng, ("none", "short", "long"), (1, 4, 4)) if top == "shirt" else "long",
        bottom=bottom,
        bottom_colour=bottom_colour,
        bottom_pattern=_pick(rng, BOTTOM_PATTERNS, (5, 1, 1)),
        bottom_detail=_distinct(rng, names, bottom_colour),
        width=_pick(rng, WIDTHS),
        shoes=_pick(rng, _SHOE_COLOURS),
        bag=_pick(rng, BAGS, (5, 3, 1.5, 1.5)),
        bag_colour=_pick(rng, names),
    )


def _details(wardrobe: Wardrobe) -> list[str]:
    """The fields that a near-twin may differ in and that are visible on this person."""
    fields = ["top_pattern", "bottom", "shoes", "bag"]
    if wardrobe.top == "shirt":
        fields.append("sleeve")
    if wardrobe.top_pattern != "plain" or wardrobe.top == "jacket":
        fields.append("top_detail")
    if wardrobe.bottom_pattern != "plain":
        fields.append("bottom_detail")
    if wardrobe.bag != "none":
        fields.append("bag_colour")
    return fields


def near_twin(wardrobe: Wardrobe, rng: np.random.Generator) -> tuple[Wardrobe, str]:
    """Draws a second person who differs in exactly one garment detail.

    Args:
        wardrobe: the first person.
        rng: the generator of the detail and its new value.
    Returns:
        The twin, and the name of the one field that differs.
    """
    detail = _pick(rng, _details(wardrobe))
    value = getattr(wardrobe, detail)
    names = tuple(COLOURS)
    if detail == "top_detail":
        new = _distinct(rng, names, value, wardrobe.top_colour)
    elif detail == "bottom_detail":
        new = _distinct(rng, names, value, wardrobe.bottom_colour)
    elif detail == "bag_colour":
        new = _distinct(rng, names, value)
    elif detail == "shoes":
        new = _distinct(rng, _SHOE_COLOURS, value)
    else:
        kinds = {
            "top_pattern": PATTERNS if wardrobe.top == "shirt" else ("plain", "blocks", "logo"),
            "bottom": ("trousers", "cropped", "shorts"),
            "sleeve": tuple(SLEEVES),
            "bag": BAGS,
        }
        new = _pick(rng, [kind for kind in kinds[detail] if kind != value])
    changed: dict[str, Any] = {detail: new}
    return replace(wardrobe, **changed), detail


def with_band(wardrobe: Wardrobe, region: str, rng: np.random.Generator) -> Wardrobe:
    """The same person with a band of a random colour around one body region.

    A skirt or a coat, which would hide a band around the upper leg, is replaced.

    Args:
        wardrobe: the person.
        region: a name in BANDS.
        rng: the generator of the colour.
    """
    if region == "upper leg":
        top = "jacket" if wardrobe.top == "coat" else wardrobe.top
        bottom = "trousers" if wardrobe.bottom == "skirt" else wardrobe.bottom
        wardrobe = replace(wardrobe, top=top, bottom=bottom)
    colour = _distinct(rng, tuple(COLOURS), wardrobe.top_colour, wardrobe.bottom_colour)
    return replace(wardrobe, band=region, band_colour=colour)


def band_twin(wardrobe: Wardrobe, rng: np.random.Generator) -> tuple[Wardrobe, str]:
    """Draws a second person who differs only in the colour of the band.

    Args:
        wardrobe: the first person, with a band.
        rng: the generator of the new colour.
    Returns:
        The twin, and the name of the one field that differs.
    """
    worn = wardrobe.band_colour, wardrobe.top_colour, wardrobe.bottom_colour
    return replace(wardrobe, band_colour=_distinct(rng, tuple(COLOURS), *worn)), "band_colour"
