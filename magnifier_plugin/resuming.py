"""Where a training continues, and what differs from the run that it continues."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from magnifier_plugin.config import ConfigError, changed_values
from magnifier_plugin.engine.rotation import newest_checkpoint

AUTO = "auto"
# These change no number of a training.
_WITHOUT_EFFECT = (
    *("model.resume", "model.load_weights", "data.save_dir", "data.root", "data.workers"),
    *("train.start_epoch", "train.print_freq", "train.checkpoint_freq", "train.checkpoint_minutes"),
    *("train.keep_freq", "test.cache"),
)
logger = logging.getLogger(__name__)


def find_checkpoint(resume: str, save_dir: str | Path) -> Path | None:
    """The checkpoint to continue from; None to start at the beginning.

    Args:
        resume: `model.resume`: a path, "auto" for the last saved one of save_dir that is intact, or
            "" for none.
        save_dir: `data.save_dir`.
    """
    if resume != AUTO:
        return Path(resume) if resume else None
    folder = Path(save_dir) / "model"
    path = newest_checkpoint(folder)
    if path is None:
        logger.info("model.resume auto: %s has no checkpoint; starting at the beginning", folder)
    return path


def report_changes(record: Mapping[str, Any], cfg: CfgNode, facts: Mapping[str, Any]) -> None:
    """Log what differs between a checkpoint's run and the one that continues it.

    Args:
        record: of the checkpoint.
        cfg: configuration of the run that continues.
        facts: of that run, under the same names as in the record, such as "data".
    """
    try:
        changed = changed_values(record.get("configuration", "{}"), cfg)
    except ConfigError as error:
        logger.warning("%s", error)
        changed = {}
    words = [
        f"{key} {before}, now {now}"
        for key, (before, now) in changed.items()
        if key not in _WITHOUT_EFFECT and not key.startswith("report.")
    ]
    words += [
        f"{name} {record[name]}, now {now}"
        for name, now in facts.items()
        if name in record and record[name] != now
    ]
    if words:
        logger.warning(
            "This run differs from the one that saved the checkpoint: %s. The values of now count "
            "from here on; the results are those of neither alone",
            "; ".join(words),
        )
