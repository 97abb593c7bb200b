"""The rows of DSA-reID's Tables 3 to 5 (section 4.3)."""

from dataclasses import replace

from reproduction.table import MARKET, MISSING_ALLOWED, Row, Table

MF_ONLY = "MF-only"
_ERASING = ("data.transforms", "random_flip,random_crop,random_erase")
_MF = ("dsa.streams", "MF")


def _dsa(name: str, title: str, mAP: float, rank1: float, *overrides: str, against: str) -> Row:
    """A row of DSA-reID's Tables 3 to 5."""
    printed = {MARKET: (mAP, rank1)}
    return Row(name, title, (*_ERASING, *overrides), printed, (against,))


def _tested(name: str, title: str, mAP: float, rank1: float, features: str, against: str) -> Row:
    """A row that tests the network of row "MF-only" with features of both streams."""
    row = _dsa(name, title, mAP, rank1, "dsa.test_features", features, against=against)
    return replace(row, weights_of=MF_ONLY)


DSA = Table(
    "dsa",
    "DSA-reID, Tables 3 to 5, and training without some of the IUV",
    "dsa_reid",
    (
        Row(
            "Baseline",
            "Baseline",
            (
                *("data.transforms", "random_flip,random_crop", *_MF),
                *("dsa.branches", "global", "loss.softmax.label_smooth", "False"),
            ),
            {MARKET: (76.4, 91.2)},
        ),
        _dsa(
            *("Baseline-RE", "Baseline (RE)", 78.6, 92.3, *_MF),
            *("dsa.branches", "global", "loss.softmax.label_smooth", "False"),
            against="Baseline",
        ),
        _dsa(
            *("Baseline-RE-LS", "Baseline (RE+LS)", 81.2, 93.4, *_MF, "dsa.branches", "global"),
            against="Baseline-RE",
        ),
        _dsa(
            *("Baseline-two-branches", "Baseline (two branches)", 83.4, 94.0, *_MF),
            against="Baseline-RE-LS",
        ),
        _dsa(
            *("Global-single", "DSA-Global (Single)", 84.7, 94.8, "dsa.branches", "global"),
            against="Baseline-RE-LS",
        ),
        _dsa(
            *("Local-single", "DSA-Local (Single)", 83.2, 94.0, "dsa.branches", "local"),
            against="Global-single",
        ),
        _tested("Global-joint", "DSA-Global (Joint)", 87.4, 95.6, "z_G", "Global-single"),
        _tested("Local-joint", "DSA-Local (Joint)", 86.5, 95.2, "z_L", "Local-single"),
        _tested("Two-streams-fused", "DSA (two streams fused)", 87.5, 95.8, "z", MF_ONLY),
        _dsa(MF_ONLY, "DSA (MF-Stream only)", 87.6, 95.7, against="Baseline-two-branches"),
        _dsa("CSA", "CSA (MF-Stream only)", 84.1, 94.1, "dsa.textures", "csa", against=MF_ONLY),
        _dsa(
            *("Concatenation", "Concatenation + fc", 81.6, 93.0, "dsa.fusion", "concat"),
            against=MF_ONLY,
        ),
        Row(
            *("DSAP-alone", "DSAG-Stream alone"),
            (*_ERASING, "dsa.streams", "DSAG", "dsa.test_features", "z"),
            against=(MF_ONLY,),
        ),
        *(
            Row(
                *(f"{MF_ONLY}-missing-{share}", f"MF-Stream only, {share} % of the IUV missing"),
                (*_ERASING, *MISSING_ALLOWED),
                against=(MF_ONLY,),
                maps=f"missing-{share}",
            )
            for share in (30, 70)
        ),
    ),
    start=(*_MF, "dsa.branches", "global"),
)
