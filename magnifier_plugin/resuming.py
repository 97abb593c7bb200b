"""Find and load checkpoints, and report what differs from the runs that saved them."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from yacs.config import CfgNode

from magnifier_plugin.config import ConfigError, changed_values
from magnifier_plugin.engine.checkpoint import DamagedCheckpoint, read_checkpoint
from magnifier_plugin.engine.rotation import newest_checkpoint
from magnifier_plugin.engine.weights import load_matching, load_state

AUTO = "auto"
# These keys do not change the numbers of a resumed run: a checkpoint replaces all weights, and the
# facts of a run (`data_fingerprint`) tell other images and label maps from moved ones.
_WITHOUT_EFFECT = (
    *("model.resume", "model.load_weights", "model.pretrained", "model.backbone_weights"),
    *("data.save_dir", "data.root", "data.workers", "data.cache_gb", "masks.dir"),
    *("train.start_epoch", "train.print_freq", "train.checkpoint_freq", "train.checkpoint_minutes"),
    *("train.keep_freq", "test.cache"),
)
# These change an embedding, but not the names and shapes of the weights.
_UNSEEN_IN_WEIGHTS = (
    *("magnifier.stem_relu", "magnifier.mask_rescaling", "dsa.textures", "dsa.texture_size"),
    *("data.height", "data.width", "data.norm_mean", "data.norm_std"),
)
_NAME = "model.name"
_OF_NETWORK = (_NAME, "loss.name", "magnifier.", "dsa.")
logger = logging.getLogger(__name__)


def find_checkpoint(resume: str, save_dir: str | Path) -> Path | None:
    """The checkpoint to resume from; None to start from the beginning.

    Args:
        resume: `model.resume`: a path, "auto" for the newest intact checkpoint in save_dir, or ""
            for none.
        save_dir: `data.save_dir`.
    """
    if resume != AUTO:
        return Path(resume) if resume else None
    folder = Path(save_dir) / "model"
    path = newest_checkpoint(folder)
    if path is None:
        logger.info("model.resume auto: %s has no checkpoint; starting at the beginning", folder)
    return path


def load_weights(cfg: CfgNode, model: nn.Module, checkpoint: Path | None) -> None:
    """Load `model.load_weights`, and for a test the checkpoint of `model.resume`.

    Args:
        cfg: the configuration.
        model: changed in place.
        checkpoint: as found by `find_checkpoint`. A training run resumes from it later.
    Raises:
        ValueError: the weights belong to another model, or to other options.
    """
    if path := cfg.model.load_weights:
        content = read_checkpoint(path)
        with explained(path, cfg):
            logger.info("%s: %s", path, load_matching(model, content["state_dict"], path))
        if cfg.test.evaluate:
            _report_other_options(content.get("record", {}), cfg, path)
    elif cfg.test.evaluate and not checkpoint:
        logger.info("Testing untrained weights; model.load_weights FILE loads a checkpoint")
    if checkpoint and cfg.test.evaluate:
        content = read_checkpoint(checkpoint)
        with explained(checkpoint, cfg):
            load_state(model, content["state_dict"], str(checkpoint))
        logger.info("Testing %s", checkpoint)
        _report_other_options(content.get("record", {}), cfg, checkpoint)


def report_changes(record: Mapping[str, Any], cfg: CfgNode, facts: Mapping[str, Any]) -> None:
    """Log what differs between a checkpoint's run and the one that continues it.

    Args:
        record: the checkpoint's record.
        cfg: configuration of the resumed run.
        facts: facts of the resumed run, under the same names as in the record, such as "data".
    """
    words = [
        words
        for key, words in _changes(record, cfg).items()
        if key not in _WITHOUT_EFFECT and not key.startswith("report.")
    ]
    words += [
        f"{name} {record[name]}, now {now}"
        for name, now in facts.items()
        if name in record and record[name] != now
    ]
    if words:
        logger.warning(
            "This run differs from the one that saved the checkpoint: %s. The new values apply "
            "from here on; neither configuration alone reproduces the results",
            "; ".join(words),
        )


def _report_other_options(record: Mapping[str, Any], cfg: CfgNode, path: str | Path) -> None:
    """Warn if a checkpoint is tested with options that give other embeddings than in training.

    Args:
        record: the checkpoint's record; empty for torchreid's own.
        cfg: configuration of the test.
        path: the checkpoint's file, for the message.
    """
    changes = _changes(record, cfg)
    words = [changes[key] for key in _UNSEEN_IN_WEIGHTS if key in changes]
    if words:
        logger.warning("%s was trained with other options: %s", path, "; ".join(words))


@contextmanager
def explained(path: str | Path, cfg: CfgNode) -> Iterator[None]:
    """Add the options in which a checkpoint's network differs to errors about its weights.

    Args:
        path: the checkpoint that the block loads.
        cfg: the current configuration.
    Raises:
        ValueError: the block's, with these options.
    """
    try:
        yield
    except DamagedCheckpoint:
        raise
    except ValueError as error:
        changes = _changes(read_checkpoint(path).get("record", {}), cfg)
        words = [words for key, words in changes.items() if key.startswith(_OF_NETWORK)]
        if other := changes.get(_NAME):
            words = [f"{other}: use a configuration of the file's network, or other weights"]
        raise ValueError("; ".join([str(error), *words])) from error


def _changes(record: Mapping[str, Any], cfg: CfgNode) -> dict[str, str]:
    """Key → "KEY VALUE, now VALUE", for the keys whose values differ from the record's."""
    if "configuration" not in record:
        return {}
    try:
        changed = changed_values(record["configuration"], cfg)
    except ConfigError as error:
        logger.warning("%s", error)
        return {}
    return {key: f"{key} {before}, now {now}" for key, (before, now) in changed.items()}
