"""The sections `masks`, `magnifier` and `dsa` of the configuration, and MagnifierNet's variants."""

from typing import Any

from yacs.config import CfgNode as Node

# The values that `magnifier.variant` sets; files and the command line override them. The authors'
# choices that depend on the data set (epochs, steps, weight of the Semantic Diversity loss) are in
# configs/*_authors.yaml.
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "authors": {
        "magnifier.stem_relu": False,
        "magnifier.mask_rescaling": "nearest-corner",
        "magnifier.fusion": "lstm",
        "magnifier.sab_triplet": False,
        "magnifier.share_weighted": True,
        "magnifier.sd_floor": True,
        "magnifier.authors_bias": True,
        "magnifier.deconvolution_init": "normal",
        "test.rerank_form": "paper",
    },
}


def add_systems(cfg: Node) -> None:
    """Add the sections `masks`, `magnifier` and `dsa` with their default values."""
    for add in (_masks, _magnifier, _dsa):
        add(cfg)


def _masks(cfg: Node) -> None:
    cfg.masks = Node()
    cfg.masks.dir = ""  # folder of the label maps and IUV; "": $MAGNIFIER_MASKS, else ./mask_labels
    cfg.masks.label_set = "densepose"  # source of the label maps: also lip, sapiens, keypoints, …
    cfg.masks.max_missing = 0.3  # share of images that may lack a label map or IUV, 0..1


def _magnifier(cfg: Node) -> None:
    cfg.magnifier = Node()
    # paper, or authors: the choices of their released code (VARIANTS); keys set elsewhere win.
    cfg.magnifier.variant = "paper"
    cfg.magnifier.backbone = "resnet50"  # resnet18, resnet34, resnet50, resnet101
    cfg.magnifier.stem_relu = True  # ReLU after the first batch norm (authors' code: none)
    cfg.magnifier.branches = ["G", "M", "SAB", "SFB"]  # what to build (Table 2)
    cfg.magnifier.sampling = "torso"  # SAB keeps: torso (half upper, half lower), baseline (any)
    cfg.magnifier.keep = 4  # K̂, number of body regions that SAB keeps
    # SFB: gru, or lstm (authors' code). Ablation branch AB: concat, or concat-reduced (authors'
    # code), where the region heads and L_SD act on the reduced region features.
    cfg.magnifier.fusion = "gru"
    # Rescaling of region masks to the feature map: bilinear, nearest (at the cells' centres), or
    # nearest-corner (at their upper left corners, torch's plain nearest; authors' code).
    cfg.magnifier.mask_rescaling = "bilinear"
    # Initialises M's transposed convolution: kaiming, or normal, N(0, 0.001) (authors' code).
    cfg.magnifier.deconvolution_init = "kaiming"
    cfg.magnifier.mask_weight = 2.0  # λ, weight of the mask loss
    cfg.magnifier.class_balanced_mask = True  # mean over regions; False: over pixels
    cfg.magnifier.region_weight = 0.0125  # weight of each region's cross entropy
    cfg.magnifier.sab_triplet = True  # SAB has a triplet loss (authors' code: False)
    cfg.magnifier.sd_floor = False  # Semantic Diversity loss at least 0 (authors' code)
    # SAB's and the regions' losses × sigmoid(share of cells) (authors' code).
    cfg.magnifier.share_weighted = False
    cfg.magnifier.authors_bias = False  # give layers a bias where the authors' code does


def _dsa(cfg: Node) -> None:
    cfg.dsa = Node()
    cfg.dsa.backbone = "resnet50"  # resnet18, resnet34, resnet50, resnet101
    cfg.dsa.streams = ["MF", "DSAG"]  # MF alone: baselines of Table 3
    cfg.dsa.branches = ["global", "local"]  # only one: "Single" in Table 3
    cfg.dsa.fusion = "add"  # of the two streams: add, concat (Table 5)
    # Embedding: f (MF-Stream), or z, z_G, z_L (both streams; testing then needs textures too).
    cfg.dsa.test_features = "f"
    cfg.dsa.width = 1.0  # factor of the channels of the DSAG-Stream's conv1 to conv4, at most 16
    cfg.dsa.pretrained_head = False  # initialise the global head with ImageNet's layer4
    cfg.dsa.textures = "dsap"  # part images: dsap (aligned by U, V), csa (cropped boxes, Table 4)
    cfg.dsa.texture_size = 32  # S, height and width of a part image in pixels, a multiple of 4
    cfg.dsa.weight_f = 0.5  # weight of the identity losses on f_G and f_L
    cfg.dsa.weight_z = 1.0  # weight of the identity losses on z_G and z_L
    cfg.dsa.weight_t = 1.5  # weight of the triplet losses on z_G and z_L
