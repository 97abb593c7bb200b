"""Joints of one person → a label map: limbs and trunk as capsules and triangles.

The person's size is estimated from the bones whose joints were found. Where a joint is missing,
everything within reach of its neighbouring joints is unknown, unless another part covers it.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations

import numpy as np

from magnifier_plugin.annotators.body_shape import (
    BONES,
    DISTANCES,
    EARS,
    FACE,
    HEAD,
    MEASURES,
    NODES,
    SIDES,
    WIDTHS,
    level,
)
from magnifier_plugin.annotators.capsules import Canvas
from magnifier_plugin.annotators.joints import JOINTS
from magnifier_plugin.regions import REGIONS, UNKNOWN

# Each bone gives an estimate of the stature. A high quantile of them is taken, because a
# foreshortened bone gives too small an estimate.
_QUANTILE = 0.75
# How far a missing limb may reach beyond its bone, as a fraction of the stature: the limb's width.
_MARGIN = 0.05
_HEAD, _UPPER_ARM, _LOWER_ARM, _CHEST, _UPPER_LEG, _LOWER_LEG, _FOOT = (
    REGIONS.index(name)
    for name in ("head", "upper arm", "lower arm", "chest", "upper leg", "lower leg", "foot")
)
_UP = np.array([0.0, -1.0])


def draw_body(points: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """Draws the label map of one person.

    Args:
        points: float [23, 3] in the order of `joints.JOINTS`: x, y, confidence; x and y in pixels,
            with integers at the pixels' centres; confidence 0 where the joint was not found.
        size: the image's height and width.
    Returns:
        uint8 [H, W], 0..7, 255 unknown; None if no bone is visible from which to estimate the
        person's size.
    """
    found = {name: point[:2] for name, point in zip(JOINTS, points, strict=True) if point[2] > 0}
    body = _Body(found, size)
    if not body.stature:
        return None
    far = body.far_side()
    near = [side for side in SIDES if side != far]
    body.draw_unknown()
    if far:
        body.draw_arm(far)
    for side in (far, *near) if far else SIDES:
        body.draw_leg(side)
    body.draw_trunk()
    body.draw_head()
    for side in near:
        body.draw_arm(side)
    return body.canvas.labels


class _Body:
    """A person's joints and size, and the label map that they are drawn into.

    Args:
        found: joint → position, float [2], x and y in pixels.
        size: the image's height and width.
    """

    def __init__(self, found: Mapping[str, np.ndarray], size: tuple[int, int]):
        self.canvas = Canvas(size)
        self.joints = {name: place for name, place in found.items() if name in NODES}
        self._face, self._ears = _middle(found, FACE), _middle(found, EARS)
        both = all(name in found for name in EARS)
        head = self._ears if both else _middle(found, (*EARS, *FACE))
        if head is not None:
            self.joints[HEAD] = head
        self.stature = self._measure()
        """Pixels; 0 if no bone is visible from which to estimate it."""

    def far_side(self) -> str:
        """The side that is turned away from the camera; "" if the joints do not show it."""
        behind = self._ears if self._ears is not None else self._pair("shoulder")
        if self._face is None or behind is None:
            return ""
        return "left" if self._face[0] > behind[0] else "right"

    def draw_unknown(self) -> None:
        """Marks as unknown all places where the limbs of missing joints can be."""
        self.canvas.start_layer()
        there = [NODES.index(name) for name in self.joints]
        for row, missing in enumerate(NODES):
            if missing in self.joints:
                continue
            nearest = there[int(np.argmin(DISTANCES[row, there]))]
            next_to = {NODES[nearest]: DISTANCES[row, nearest]}
            for bone, length in BONES.items():
                for one, other in (bone, bone[::-1]):
                    if one == missing and other in self.joints:
                        next_to[other] = length
            for joint, reach in next_to.items():
                self._draw_reach(missing, joint, reach)

    def draw_arm(self, side: str) -> None:
        self.canvas.start_layer()
        shoulder, elbow, wrist = self._limb(side, "shoulder", "elbow", "wrist")
        self._draw(_UPPER_ARM, shoulder, elbow, (WIDTHS.shoulder, WIDTHS.elbow))
        self._draw(_LOWER_ARM, elbow, wrist, (WIDTHS.elbow, WIDTHS.wrist))
        if elbow is not None and wrist is not None:
            # A foreshortened forearm has a foreshortened hand.
            full = BONES[f"{side} elbow", f"{side} wrist"] * self.stature
            along = wrist - elbow
            along = along / max(float(np.hypot(*along)), full)
            fingers = wrist + along * (WIDTHS.hand * self.stature)
            self._draw(_LOWER_ARM, wrist, fingers, (WIDTHS.wrist, WIDTHS.knuckles))

    def draw_leg(self, side: str) -> None:
        self.canvas.start_layer()
        hip, knee, ankle = self._limb(side, "hip", "knee", "ankle")
        self._draw(_UPPER_LEG, hip, knee, (WIDTHS.hip, WIDTHS.knee))
        self._draw(_LOWER_LEG, knee, ankle, (WIDTHS.knee, WIDTHS.ankle))
        toes = _middle(self.joints, [f"{side} big toe", f"{side} small toe"])
        heel = self.joints.get(f"{side} heel", ankle)
        if toes is None or heel is None:
            return
        # Toes and heel are points on the outline: the discs at the ends must stay inside it.
        radius, along = WIDTHS.foot, toes - heel
        inset = along * min(0.4, 0.8 * radius * self.stature / max(float(np.hypot(*along)), 1e-6))
        self._draw(_FOOT, heel + inset, toes - inset, (radius, radius))
        if ankle is not None:
            instep = heel + 0.6 * along
            self._draw(_FOOT, ankle + 0.25 * (heel - ankle), instep, (radius, radius))

    def draw_trunk(self) -> None:
        self.canvas.start_layer()
        shoulders, hips = self._pair("shoulder"), self._pair("hip")
        if shoulders is None or hips is None:
            return
        up = shoulders - hips
        up = up * (WIDTHS.rise * self.stature / max(float(np.hypot(*up)), 1e-6))
        upper = self._corners("shoulder", shoulders, WIDTHS.chest_inset)
        lower = [corner + up for corner in self._corners("hip", hips, WIDTHS.waist_inset)]
        depth = min(WIDTHS.chest, WIDTHS.waist) * self.stature
        for corners in combinations([*upper, *lower], 3):
            self.canvas.draw_triangle(_CHEST, np.stack(corners), depth)
        for top, bottom in zip(upper, lower, strict=True):
            self._draw(_CHEST, top, bottom, (WIDTHS.chest, WIDTHS.waist))
        for (left, right), radius in ((upper, WIDTHS.chest), (lower, WIDTHS.waist)):
            self._draw(_CHEST, left, right, (radius, radius))

    def draw_head(self) -> None:
        self.canvas.start_layer()
        head, shoulders = self.joints.get(HEAD), self._pair("shoulder")
        if head is None:
            return
        if any(f"{side} shoulder" not in self.joints for side in SIDES):
            shoulders = None  # a single shoulder is not below the head
        up = _UP if shoulders is None else head - shoulders
        up = up * (self.stature / max(float(np.hypot(*up)), 1e-6))
        if shoulders is not None:
            self._draw(_HEAD, shoulders + 0.04 * up, head, (WIDTHS.neck, WIDTHS.neck))
        jaw, skull = head - 0.012 * up, head + 0.018 * up
        self._draw(_HEAD, jaw, skull, (WIDTHS.jaw, WIDTHS.skull))

    def _measure(self) -> float:
        for bones in (MEASURES, BONES):
            sizes = [
                float(np.hypot(*(self.joints[a] - self.joints[b]))) / BONES[a, b]
                for a, b in bones
                if a in self.joints and b in self.joints
            ]
            if sizes:
                return float(np.quantile(sizes, _QUANTILE))
        return 0.0

    def _pair(self, name: str) -> np.ndarray | None:
        """The midpoint of the left and the right joint, or the only one that was found."""
        return _middle(self.joints, [f"{side} {name}" for side in SIDES])

    def _limb(self, side: str, *names: str) -> list[np.ndarray | None]:
        return [self.joints.get(f"{side} {name}") for name in names]

    def _corners(self, name: str, middle: np.ndarray, inset: float) -> list[np.ndarray]:
        """The trunk's left and right corner; if only one joint was found, both are at it."""
        places = [self.joints.get(f"{side} {name}") for side in SIDES]
        here = [place for place in places if place is not None]
        left, right = here[0], here[-1]
        return [left + inset * (middle - left), right + inset * (middle - right)]

    def _draw(
        self,
        region: int,
        start: np.ndarray | None,
        end: np.ndarray | None,
        radii: tuple[float, float],
    ) -> None:
        """Draws a capsule between two joints, unless one of them is missing.

        The radii are fractions of the stature.
        """
        if start is not None and end is not None:
            scaled = radii[0] * self.stature, radii[1] * self.stature
            self.canvas.draw_capsule(region, start, end, scaled)

    def _draw_reach(self, missing: str, joint: str, reach: float) -> None:
        """Marks as unknown the places where a missing joint's limb can be.

        `reach` is the distance of the missing joint from the given one, as a fraction of the
        stature.
        """
        centre, own, other = self.joints[joint], level(joint), level(missing)
        margin = _MARGIN * self.stature
        rows = -np.inf, np.inf
        if own is not None and other is not None and own != other:
            is_below = other > own
            rows = (centre[1] - margin, np.inf) if is_below else (-np.inf, centre[1] + margin)
        self.canvas.draw_disc(UNKNOWN, centre, reach * self.stature + margin, rows)


def _middle(places: Mapping[str, np.ndarray], names: Iterable[str]) -> np.ndarray | None:
    """The mean position of the named joints that were found; None if none was."""
    found = [places[name] for name in names if name in places]
    middle: np.ndarray | None = np.mean(found, axis=0) if found else None
    return middle
