"""The options of the rendered data set and their ranges."""

from dataclasses import dataclass

# Market-1501's limits: torchreid's Market1501 class refuses more.
MAX_IDENTITIES = 1501
MAX_CAMERAS = 6
# A test identity needs one camera for the query and another for the gallery. Training and testing
# need two people each, so that there is someone to confuse a person with.
MIN_IDENTITIES = 4
MIN_CAMERAS = 2
MIN_SIZE = (64, 32)
TWIN_DETAILS = ("any", "regions")
# File names have two digits for an image's number within its identity and camera.
MAX_IMAGES = 99


@dataclass(frozen=True)
class SyntheticOptions:
    """What to render.

    Raises:
        ValueError: an option is out of range; the message names it and the range.
    """

    identities: int = 64
    """4..1501, for training and testing together."""
    train_identities: int | None = None
    """Number of identities for training, 2..identities − 2; None: half of them."""
    cameras: int = 4
    """2..6."""
    images: int = 4
    """Number of images of each identity in each camera, 1..99."""
    twins: float = 0.5
    """Fraction of the identities, 0..1, in near-twin pairs, which differ in one garment detail."""
    twin_details: str = "any"
    """How twins differ. "any": in a random detail of their clothes. "regions": everybody wears a
    band around one body region, all regions equally often, and twins differ in its colour."""
    occlusion: float = 0.3
    """Fraction of the images, 0..1, in which a part of the person is hidden."""
    height: int = 256
    """Pixels, 64..4096."""
    width: int = 128
    """Pixels, 32..4096."""
    seed: int = 0
    """Seed of all random choices, 0..2^32 − 1."""

    def __post_init__(self):
        market = "the folder follows Market-1501, whose reader accepts no more"
        self._require_range("identities", MIN_IDENTITIES, MAX_IDENTITIES, market)
        self._require_range("cameras", MIN_CAMERAS, MAX_CAMERAS, f"a query needs two; {market}")
        self._require_range(
            "images", 1, MAX_IMAGES, "their number has two digits in the file's name"
        )
        self._require_range("twins", 0, 1, "it is a fraction of the identities")
        self._require_range("occlusion", 0, 1, "it is a fraction of the images")
        self._require_range("height", MIN_SIZE[0], 4096, "in pixels")
        self._require_range("width", MIN_SIZE[1], 4096, "in pixels")
        self._require_range("seed", 0, 2**32 - 1, "it seeds numpy")
        if self.train_identities is not None:
            most = self.identities - MIN_IDENTITIES // 2
            self._require_range("train_identities", 2, most, "two people must be left for testing")
        if self.twin_details not in TWIN_DETAILS:
            raise ValueError(
                f"twin_details: expected {' or '.join(TWIN_DETAILS)}, got {self.twin_details!r}"
            )

    def _require_range(self, name: str, low: float, high: float, reason: str) -> None:
        value = getattr(self, name)
        whole = name not in ("twins", "occlusion")  # these are fractions
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            kind = "a whole number" if whole else "a number"
            raise ValueError(f"{name}: expected {kind}, got {value!r}")
        if not low <= value <= high:
            raise ValueError(f"{name}: expected {low}..{high} ({reason}), got {value}")
