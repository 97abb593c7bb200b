"""Solids that hang on a body: hair, sleeves, shorts, skirts, coats, bags."""

from typing import Any

from magnifier_plugin.synthetic.body import Garment, Layer, Looseness, Solid, body
from magnifier_plugin.synthetic.skeleton import SIDES, Skeleton, length_of
from magnifier_plugin.synthetic.wardrobe import BOTTOMS, SLEEVES, Wardrobe

_LEGS = {"slim": (0.002, 0.000), "straight": (0.005, 0.006), "wide": (0.010, 0.015)}


def looseness(wardrobe: Wardrobe) -> Looseness:
    """How loose a person's clothes are."""
    torso = {"shirt": 0.003, "jacket": 0.008, "coat": 0.009}[wardrobe.top]
    leg = 0.001 + _LEGS[wardrobe.width][0] if wardrobe.bottom == "trousers" else 0.001
    arm = torso if wardrobe.sleeve == "long" else 0.0
    return Looseness(torso=torso, arm=arm, leg=leg)


def _hair(bones: Skeleton, wardrobe: Wardrobe) -> list[Solid]:
    h, style = wardrobe.build.height, wardrobe.hairstyle
    if style == "bald":
        return []
    left = bones.frame("head")[2]
    kind: dict[str, Any] = {"garment": Garment.HAIR, "layer": Layer.BODY}
    crown = bones.point("head", 0.108 * h, -0.007 * h)
    nape = bones.point("head", 0.078 * h, -0.020 * h)
    full = 0.0 if style == "short" else 0.004
    radii = ((0.0475 + full) * h, (0.038 + full) * h)
    solids = [Solid(crown, nape, radii, left, "head", 1.15, **kind)]
    if style == "bob":
        low = bones.point("head", 0.045 * h, -0.018 * h)
        solids.append(Solid(crown, low, (0.050 * h, 0.046 * h), left, "head", 0.95, **kind))
    # Hair that falls over the shoulders hides them and is not part of the body.
    loose: dict[str, Any] = {"garment": Garment.HAIR, "layer": Layer.OBJECT}
    if style == "long":
        low = bones.point("torso", 0.075 * h, 0, -0.052 * h)
        solids.append(Solid(nape, low, (0.047 * h, 0.040 * h), left, "head", 0.55, **loose))
    if style == "ponytail":
        knot = bones.point("head", 0.100 * h, -0.066 * h)
        end = bones.point("torso", 0.040 * h, 0, -0.062 * h)
        solids.append(Solid(knot, end, (0.018 * h, 0.011 * h), left, "head", **loose))
    return solids


def _tube(
    bones: Skeleton,
    h: float,
    segment: str,
    ends: tuple[float, float],
    radii: tuple[float, float],
    **kind: Any,
) -> Solid:
    """Cloth around a segment between two fractions of its length; radii as fractions of the
    stature."""
    length = length_of(segment) * h
    start, low = (bones.point(segment, end * length) for end in ends)
    radii = (radii[0] * h, radii[1] * h)
    return Solid(start, low, radii, bones.frame(segment)[0], segment, hollow=True, **kind)


def _sleeves(bones: Skeleton, wardrobe: Wardrobe) -> list[Solid]:
    """Short sleeves, which are wider than the arm; long sleeves are part of the arm's solids."""
    if wardrobe.sleeve != "short":
        return []
    h, g = wardrobe.build.height, wardrobe.build.girth
    radii, ends = (0.032 * g + 0.003, 0.033 * g + 0.003), (0.05, SLEEVES["short"])
    kind: dict[str, Any] = {"garment": Garment.TOP}
    return [_tube(bones, h, f"{side} upper arm", ends, radii, **kind) for side in SIDES]


def _bottom(bones: Skeleton, wardrobe: Wardrobe) -> list[Solid]:
    h, build = wardrobe.build.height, wardrobe.build
    if wardrobe.bottom == "skirt":
        start, low = bones.point("torso", 0.25 * h), bones.point("torso", 0.525 * h)
        radii = (0.086 * build.hips * build.girth * h, 0.128 * h)
        kind: dict[str, Any] = {"garment": Garment.BOTTOM, "layer": Layer.CLOTH, "hollow": True}
        return [Solid(start, low, radii, bones.frame("torso")[0], "torso", 0.78, **kind)]
    solids: list[Solid] = []
    cloth: dict[str, Any] = {"garment": Garment.BOTTOM}
    thigh = 0.055 * (0.5 * build.girth + 0.5 * build.hips)
    knee = 0.037 * build.girth
    wide, cuff = _LEGS[wardrobe.width]
    for side in SIDES:
        upper, lower = f"{side} upper leg", f"{side} lower leg"
        if wardrobe.bottom == "shorts":
            radii, ends = (thigh + 0.003, knee + 0.018), (0.02, BOTTOMS["shorts"])
            solids.append(_tube(bones, h, upper, ends, radii, **cloth))
        elif wardrobe.bottom == "cropped":
            radii, ends = (knee + 0.002, 0.033 * build.girth + cuff), (0.0, BOTTOMS["cropped"] - 1)
            solids.append(_tube(bones, h, lower, ends, radii, **cloth))
        else:
            radii = (knee + wide, 0.027 * build.girth + cuff)
            solids.append(_tube(bones, h, lower, (0.0, 1.03), radii, **cloth))
    return solids


def _coat(bones: Skeleton, wardrobe: Wardrobe) -> list[Solid]:
    if wardrobe.top != "coat":
        return []
    h, build = wardrobe.build.height, wardrobe.build
    start, low = bones.point("torso", 0.22 * h), bones.point("torso", 0.43 * h)
    radii = (0.090 * build.girth * h, 0.108 * build.girth * h)
    kind: dict[str, Any] = {"garment": Garment.TOP, "layer": Layer.CLOTH, "hollow": True}
    return [Solid(start, low, radii, bones.frame("torso")[0], "torso", 0.74, **kind)]


def _bag(bones: Skeleton, wardrobe: Wardrobe) -> list[Solid]:
    h, g = wardrobe.build.height, wardrobe.build.girth
    across, _, front = bones.frame("torso")
    kind: dict[str, Any] = {"garment": Garment.BAG, "layer": Layer.OBJECT}
    if wardrobe.bag == "backpack":
        back = -(0.055 * g + 0.035)
        top = bones.point("torso", 0.095 * h, 0, back * h)
        low = bones.point("torso", 0.225 * h, 0, back * h)
        pocket = bones.point("torso", 0.205 * h, 0, (back - 0.030) * h)
        end = bones.point("torso", 0.225 * h, 0, (back - 0.030) * h)
        return [
            Solid(top, low, (0.068 * h, 0.080 * h), across, "torso", 0.62, **kind),
            Solid(pocket, end, (0.052 * h, 0.052 * h), across, "torso", 0.55, **kind),
        ]
    if wardrobe.bag == "shoulder bag":
        hip = -(0.100 * wardrobe.build.hips * g + 0.022) * h
        top, low = bones.point("torso", 0.300 * h, hip), bones.point("torso", 0.345 * h, hip)
        return [Solid(top, low, (0.055 * h, 0.062 * h), front, "torso", 0.45, **kind)]
    if wardrobe.bag == "handbag":
        hand = bones.point("left hand", 0.066 * h)
        top, low = hand - [0, 0.055 * h, 0], hand - [0, 0.105 * h, 0]
        handle = hand - [0, 0.050 * h, 0]
        return [
            Solid(top, low, (0.040 * h, 0.058 * h), front, "torso", 0.4, **kind),
            Solid(hand, handle, (0.006 * h, 0.008 * h), front, "torso", **kind),
        ]
    return []


def dress(bones: Skeleton, wardrobe: Wardrobe) -> list[Solid]:
    """All solids of a dressed person.

    Args:
        bones: the frames of the pose.
        wardrobe: the person's build and clothes.
    Returns:
        The body's solids, followed by those that hang on it.
    """
    solids = body(bones, wardrobe.build, looseness(wardrobe))
    for add in (_hair, _sleeves, _bottom, _coat, _bag):
        solids += add(bones, wardrobe)
    return solids
