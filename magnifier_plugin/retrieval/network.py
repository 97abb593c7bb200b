"""A trained network, as its checkpoint's recorded configuration builds it."""

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
from magnifier_plugin.text_files import parse_yaml
from magnifier_plugin.workers import cores

# Keys (and sections) that decide an image's features and how features are compared: read from the
# checkpoint, and changed by file, flags and pairs.
FEATURE_KEYS = (
    *("model.name", "magnifier", "dsa"),
    *("data.height", "data.width", "data.norm_mean", "data.norm_std", "test.flip"),
)
COMPARISON_KEYS = (
    *("test.normalize_feature", "test.dist_metric", "test.rerank_form"),
    *("test.rerank_k1", "test.rerank_k2", "test.rerank_lambda"),
)
ORIGIN_KEYS = ("data.sources",)  # what the weights were trained on
# Keys that the machine decides.
MACHINE_KEYS = ("use_gpu", "channels_last", "test.amp", "test.batch_size", "data.workers")
_WORKERS = 4  # at most, where nothing else is said
_CLASSES = 1  # of the classifiers, which features do not need; as torchreid's FeatureExtractor


@dataclass(frozen=True)
class TrainedNetwork:
    """A network in evaluation with its weights, and how images are prepared for it."""

    model: nn.Module
    """On its device, in evaluation."""
    cfg: CfgNode
    """The frozen configuration; of it only the keys of this module count."""
    precision: Precision
    """Where and how it computes."""

    @functools.cached_property
    def compose(self) -> v1.Compose:
        """What a test image goes through, as in the data manager."""
        data = self.cfg.data
        size = data.height, data.width
        normalise = v1.Normalize(data.norm_mean, data.norm_std)
        return v1.Compose([v1.Resize(size), v1.ToTensor(), normalise])

    @functools.cached_property
    def transform(self) -> JointTransform:
        """`compose` for an image and its maps together."""
        return rebuild(self.compose)

    def embed(self, images: Images) -> Tensor:
        """Images [B, 3, H, W] → raw embeddings float32 [B, D], with `test.flip` the mean with
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
        """As `MagnifierNet.describe_regions`, of images on any device."""
        model = cast(MagnifierNet, self.model)
        with torch.inference_mode(), self.precision.autocast():
            return model.describe_regions(self.precision.images(images))

    @property
    def normalises(self) -> bool:
        """Whether embeddings are compared by their directions alone."""
        test = self.cfg.test
        return bool(test.normalize_feature or test.dist_metric == "cosine")

    def identity(self) -> dict[str, Any]:
        """What the features depend on besides the images and the precision, plain values."""
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
    """The network of a checkpoint, built as the checkpoint's recorded configuration says.

    Args:
        weights: a checkpoint of this package, of torchreid, or a bare state dict.
        file: a configuration (YAML) whose values replace the recorded ones; "" for none.
        flags: values by key; of a checkpoint that records nothing at least `model.name`.
        pairs: KEY VALUE KEY VALUE …, as typed.
        also: keys that may be typed besides `FEATURE_KEYS` and `MACHINE_KEYS`.
    Raises:
        FileNotFoundError: there are no weights or no such configuration.
        ConfigError: the configuration cannot be used, a typed key has no effect here, or nothing
            says which model it is.
        ValueError: the file is no checkpoint, is of another model, or the model tests with more
            than the image.
    """
    check_typed(parse_pairs(pairs), (*FEATURE_KEYS, *MACHINE_KEYS, *also))
    content = read_checkpoint(weights)
    machine = {"test.amp": "auto", "data.workers": min(_WORKERS, cores())}
    recorded = {**machine, **recorded_values(content, weights)}
    cfg = load_config(file or None, flags, pairs, recorded)
    if not file and "model.name" not in {*recorded, *(flags or {}), *pairs[::2]}:
        raise ConfigError(
            f"{weights}: records no configuration, as torchreid's own checkpoints; say which model "
            "it is with -a NAME (and data.height, data.width if not 256 × 128), or with "
            "--config-file FILE"
        )
    model = _build(cfg, weights)
    _load(model, content["state_dict"], weights)
    device = torch.device("cuda" if cfg.use_gpu and torch.cuda.is_available() else "cpu")
    precision = Precision(device, amp=cfg.test.amp, channels_last=cfg.channels_last)
    return TrainedNetwork(precision.place(model).eval(), cfg, precision)


def _build(cfg: CfgNode, weights: str | Path) -> nn.Module:
    """The network in torchreid's form, which spares DSA-reID its guiding stream."""
    cfg.defrost()
    cfg.loss.name = "softmax"  # known to every model
    system = find_system(cfg)
    if system is not None:
        cfg.loss.name = system.loss
        if inputs := system.inputs(cfg)[1]:
            raise ValueError(
                f"{weights}: this network tests with {', '.join(inputs)} besides the image, made "
                "from annotations of a data set; dsa.test_features f embeds images alone"
            )
        cfg.loss.name = "softmax"
    cfg.freeze()
    return build_network(cfg, system, _CLASSES, pretrained=False)


def _load(model: nn.Module, state: Mapping[str, Tensor], weights: str | Path) -> None:
    """Load all but the classifiers, which become 0: the same file gives the same fingerprint."""
    difference = compare(model, state)
    load_matching(model, state, str(weights))
    own = model.state_dict()
    for key in (*difference.missing, *difference.reshaped):
        own[key].zero_()


def recorded_values(content: Mapping[str, Any], origin: str | Path) -> dict[str, Any]:
    """The values of this module's keys that a checkpoint recorded, by key.

    Raises:
        ValueError: what it recorded is no configuration.
    """
    record = content.get("record")
    text = record.get("configuration") if isinstance(record, Mapping) else None
    if text is None:
        return {}
    name = f"{origin}: recorded configuration"
    tree = parse_yaml(str(text), name)
    if not isinstance(tree, Mapping):
        raise ValueError(f"{name}: expected keys and values, found a {type(tree).__name__}")
    counts = (*FEATURE_KEYS, *COMPARISON_KEYS, *ORIGIN_KEYS)
    return {key: value for key, value in flatten(tree) if _is_among(key, counts)}


def check_typed(typed: Collection[str], counting: Sequence[str]) -> None:
    """Refuse typed keys without effect on a search.

    Raises:
        ConfigError: a key is none of these, and in none of these sections.
    """
    for key in typed:
        if not _is_among(key, counting):
            raise ConfigError(
                f"command line: {key}: has no effect here; keys that have: {', '.join(counting)}"
            )


def _is_among(key: str, counting: Sequence[str]) -> bool:
    return key in counting or key.partition(".")[0] in counting
