"""A trained network, built from the configuration recorded in its checkpoint."""

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision import transforms as v1
from yacs.config import CfgNode

from magnifier_plugin.builders import build_network, find_system
from magnifier_plugin.config import ConfigError, flatten, load_config, parse_pairs
from magnifier_plugin.data.checks import default_label_set
from magnifier_plugin.data.joint import JointTransform
from magnifier_plugin.data.pixels import Images
from magnifier_plugin.data.transforms import rebuild
from magnifier_plugin.engine.checkpoint import read_checkpoint
from magnifier_plugin.engine.precision import Precision
from magnifier_plugin.engine.weights import compare, load_matching
from magnifier_plugin.evaluation.cache import model_fingerprint
from magnifier_plugin.evaluation.evaluator import Evaluator
from magnifier_plugin.models.exported import predicts_regions
from magnifier_plugin.models.magnifiernet import MagnifierNet, RegionDescription
from magnifier_plugin.option_checks import check_effects
from magnifier_plugin.text_files import parse_yaml
from magnifier_plugin.workers import cores

# Keys that determine an image's features, and those that determine how features are compared: read
# from the checkpoint, and overridden by file, flags and pairs.
FEATURE_KEYS = (
    *("model.name", "magnifier.variant", "magnifier.backbone", "magnifier.branches"),
    *("magnifier.fusion", "magnifier.mask_rescaling", "magnifier.stem_relu"),
    *("magnifier.authors_bias", "dsa.backbone", "dsa.branches", "dsa.test_features"),
    *("data.height", "data.width", "data.norm_mean", "data.norm_std", "test.flip"),
)
COMPARISON_KEYS = (
    *("test.normalize_feature", "test.dist_metric", "test.rerank_form"),
    *("test.rerank_k1", "test.rerank_k2", "test.rerank_lambda"),
)
SYSTEM_SECTIONS = ("magnifier", "dsa")  # all their keys are read from the checkpoint
ORIGIN_KEYS = ("data.sources",)  # what the weights were trained on
# Keys that determine which images and label maps of a data set are tested, and which matches count.
TEST_DATA_KEYS = (
    *("cuhk03.labeled_images", "cuhk03.classic_split"),
    *("masks.label_set", "test.same_camera"),
)
# Keys that depend on the machine.
MACHINE_KEYS = ("use_gpu", "channels_last", "test.amp", "test.batch_size", "data.workers")
_WORKERS = 4  # maximum number of workers by default
_CLASSES = 1  # features do not need the classifiers; as in torchreid's FeatureExtractor


@dataclass(frozen=True)
class TrainedNetwork:
    """A network in evaluation mode with its weights, and the preparation of images for it."""

    model: nn.Module
    """On its device, in evaluation mode."""
    cfg: CfgNode
    """The frozen configuration; only the keys listed in this module are used."""
    precision: Precision
    """The device and the precision of the computation."""

    @functools.cached_property
    def compose(self) -> v1.Compose:
        """The transform of a test image, the same as in the data manager."""
        data = self.cfg.data
        size = data.height, data.width
        normalise = v1.Normalize(data.norm_mean, data.norm_std)
        return v1.Compose([v1.Resize(size), v1.ToTensor(), normalise])

    @functools.cached_property
    def transform(self) -> JointTransform:
        """`compose` for an image and its maps together."""
        return rebuild(self.compose)

    def embed(self, images: Images) -> Tensor:
        """Images [B, 3, H, W] → raw embeddings float32 [B, D]; with `test.flip`, averaged with
        those of the mirror images."""
        evaluator = Evaluator(lambda batch: self._forward(batch["img"]), flip=self.cfg.test.flip)
        return evaluator.embed_batch({"img": self.precision.images(images)})

    def _forward(self, images: Tensor) -> Tensor:
        with torch.inference_mode(), self.precision.autocast():
            features: Tensor = self.model(images)
        return features.float()

    @property
    def has_regions(self) -> bool:
        """Whether `describe_regions` can be called."""
        return predicts_regions(self.model)

    def describe_regions(self, images: Images) -> RegionDescription:
        """Like `MagnifierNet.describe_regions`, but for images on any device."""
        model = cast(MagnifierNet, self.model)
        with torch.inference_mode(), self.precision.autocast():
            return model.describe_regions(self.precision.images(images))

    @property
    def normalises(self) -> bool:
        """Whether embeddings are compared only by their direction."""
        test = self.cfg.test
        return bool(test.normalize_feature or test.dist_metric == "cosine")

    def identity(self) -> dict[str, Any]:
        """What the features depend on besides the images and the precision, as plain values."""
        data = self.cfg.data
        return {
            "model": self.cfg.model.name,
            "weights": model_fingerprint(self.model),
            "size": [data.height, data.width],
            "norm": [*data.norm_mean, *data.norm_std],
            "flip": self.cfg.test.flip,
        }


def load_network(
    weights: str | Path,
    *,
    file: str | Path = "",
    flags: Mapping[str, Any] | None = None,
    pairs: Sequence[str] = (),
    also: Collection[str] = (),
) -> TrainedNetwork:
    """Loads the network of a checkpoint, built from the configuration recorded there.

    Args:
        weights: a checkpoint of this package or of torchreid, or a bare state dict.
        file: a configuration (YAML) whose values override the recorded ones; "": none.
        flags: key → value; must include `model.name` if the checkpoint records no configuration
            and no file is given.
        pairs: KEY VALUE KEY VALUE …, from the command line.
        also: keys that are accepted in pairs besides `FEATURE_KEYS` and `MACHINE_KEYS`.
    Raises:
        FileNotFoundError: the weights or the configuration file do not exist.
        ConfigError: the configuration cannot be used, a key in pairs has no effect here, or nothing
            determines the model's name.
        ValueError: the file is not a checkpoint, its weights belong to another model, or the
            model's test inputs include more than the image.
    """
    typed = parse_pairs(pairs)
    check_typed(typed, (*FEATURE_KEYS, *MACHINE_KEYS, *also))
    content = read_checkpoint(weights)
    defaults = {
        "test.amp": "auto",
        "data.workers": min(_WORKERS, cores()),
        "masks.label_set": default_label_set(),
    }
    recorded = {**defaults, **recorded_values(content, weights)}
    cfg = load_config(file or None, flags, pairs, recorded)
    if not file and "model.name" not in {*recorded, *(flags or {}), *pairs[::2]}:
        raise ConfigError(
            f"{weights}: records no configuration, like torchreid's own checkpoints; give the "
            "model with -a NAME (and data.height, data.width if not 256 × 128), or with "
            "--config-file FILE"
        )
    model = _build(cfg, weights, typed)
    _load(model, content["state_dict"], weights)
    device = torch.device("cuda" if cfg.use_gpu and torch.cuda.is_available() else "cpu")
    precision = Precision(device, amp=cfg.test.amp, channels_last=cfg.channels_last)
    return TrainedNetwork(precision.place(model).eval(), cfg, precision)


def _build(cfg: CfgNode, weights: str | Path, typed: Collection[str]) -> nn.Module:
    """Builds the network for torchreid's softmax loss, so DSA-reID has no guiding stream."""
    cfg.defrost()
    cfg.loss.name = "softmax"  # known to every model
    system = find_system(cfg)
    if system is not None:
        cfg.loss.name = system.loss
        if inputs := system.inputs(cfg)[1]:
            raise ValueError(
                f"{weights}: when testing, this network takes {', '.join(inputs)} besides the "
                "image, made from the annotations of a data set; with dsa.test_features f it takes "
                "only images"
            )
        cfg.loss.name = "softmax"
    cfg.freeze()
    check_effects(cfg, system, typed)
    return build_network(cfg, system, _CLASSES, pretrained=False)


def _load(model: nn.Module, state: Mapping[str, Tensor], weights: str | Path) -> None:
    """Loads all weights but the classifiers'.

    The classifiers are set to 0, so that the same file always gives the same fingerprint.
    """
    difference = compare(model, state)
    load_matching(model, state, str(weights))
    own = model.state_dict()
    for key in (*difference.missing, *difference.reshaped):
        own[key].zero_()


def recorded_values(content: Mapping[str, Any], origin: str | Path) -> dict[str, Any]:
    """The values that a checkpoint recorded for this module's keys, by key.

    Raises:
        ValueError: the record is not a configuration.
    """
    record = content.get("record")
    text = record.get("configuration") if isinstance(record, Mapping) else None
    if text is None:
        return {}
    name = f"{origin}: recorded configuration"
    tree = parse_yaml(str(text), name)
    if not isinstance(tree, Mapping):
        raise ValueError(f"{name}: expected keys and values, found a {type(tree).__name__}")
    counts = (*FEATURE_KEYS, *COMPARISON_KEYS, *ORIGIN_KEYS, *TEST_DATA_KEYS)
    return {
        key: value
        for key, value in flatten(tree)
        if key in counts or key.partition(".")[0] in SYSTEM_SECTIONS
    }


def check_typed(typed: Collection[str], counting: Sequence[str]) -> None:
    """Refuses keys on the command line that have no effect in the calling script.

    Args:
        typed: the keys on the command line.
        counting: the keys that have an effect.
    Raises:
        ConfigError: a key is not among these.
    """
    for key in typed:
        if key not in counting:
            raise ConfigError(
                f"command line: {key}: has no effect here; keys with an effect: "
                f"{', '.join(counting)}"
            )
