"""The options of the rendered data set and their ranges."""

from dataclasses import dataclass

# Market-1501's limits: torchreid's own class for it refuses more.
MAX_IDENTITIES = 1501
MAX_CAMERAS = 6
# A test identity needs one camera for the query and another for the gallery, and each half of
# the identities two people, so that there is one to confuse the other with.
MIN_IDENTITIES = 4
MIN_CAMERAS = 2
MIN_SIZE = (64, 32)
TWIN_DETAILS = ("any", "regions")
# Names have two digits for an image's number within its identity and camera.
MAX_IMAGES = 99


@dataclass(frozen=True)
class SyntheticOptions:
    """What to render.

    Raises:
        ValueError: an option is out of its range; the message names it and the range.
    """

    identities: int = 64
    """4..1501, for training and testing together."""
    train_identities: int | None = None
    """How many of them are for training, 2..identities − 2; None for half of them."""
    cameras: int = 4
    """2..6."""
    images: int = 4
    """Of each identity in each camera, 1..99."""
    twins: float = 0.5
    """Share of the identities, 0..1, in near-twin pairs: they differ in one garment detail only."""
    twin_details: str = "any"
    """In what twins differ. "any": a random detail of their clothes. "regions": everybody wears a
    band round one region of the body, each region as often, and twins differ in its colour."""
    occlusion: float = 0.3
    """Share of the images, 0..1, in which something hides a part of the person."""
    height: int = 256
    """Pixels, at least 64."""
    width: int = 128
    """Pixels, at least 32."""
    seed: int = 0
    """Of all random choices, at least 0."""

    def __post_init__(self):
        market = "the folder follows Market-1501, whose reader takes no more"
        self._require_range("identities", MIN_IDENTITIES, MAX_IDENTITIES, market)
        self._require_range("cameras", MIN_CAMERAS, MAX_CAMERAS, f"a query needs two; {market}")
        self._require_range(
            "images", 1, MAX_IMAGES, "they are numbered by two digits in the file's name"
        )
        self._require_range("twins", 0, 1, "it is a share of the identities")
        self._require_range("occlusion", 0, 1, "it is a share of the images")
        self._require_range("height", MIN_SIZE[0], 4096, "in pixels")
        self._require_range("width", MIN_SIZE[1], 4096, "in pixels")
        self._require_range("seed", 0, 2**32 - 1, "it seeds numpy")
        if self.train_identities is not None:
            most = self.identities - MIN_IDENTITIES // 2
            self._require_range("train_identities", 2, most, "two people are left to test with")
        if self.twin_details not in TWIN_DETAILS:
            raise ValueError(
                f"twin_details: expected {' or '.join(TWIN_DETAILS)}, got {self.twin_details!r}"
            )

    def _require_range(self, name: str, low: float, high: float, reason: str) -> None:
        value = getattr(self, name)
        whole = name not in ("twins", "occlusion")  # shares
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            kind = "a whole number" if whole else "a number"
            raise ValueError(f"{name}: expected {kind}, got {value!r}")
        if not low <= value <= high:
            raise ValueError(f"{name}: expected {low}..{high} ({reason}), got {value}")
