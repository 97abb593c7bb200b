"""How a row is recognised: its configuration without the keys that change no result."""

from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from magnifier_plugin.config import flatten

# Keys that change no result: configurations that differ only in these are the same row. Data sets
# may be moved to another folder.
WITHOUT_EFFECT = (
    *("data.root", "data.save_dir", "data.workers", "data.cache_gb", "model.resume", "test.cache"),
    *("train.print_freq", "train.checkpoint_freq", "train.checkpoint_minutes", "train.keep_freq"),
    *("test.visrank", "test.visrank_topk"),
)


def identity(cfg: CfgNode, out: Path) -> dict[str, Any]:
    """A configuration's values by key, of plain types, to compare configurations with.

    Keys without effect on results are left out. `out` is replaced by {out}, so that the folder can
    be moved.
    """
    stages = {str(number): stage for number, stage in enumerate(cfg.stages, start=1)}
    values = {
        key: _plain(value, out)
        for key, value in flatten({**cfg, "stages": stages})
        if key not in WITHOUT_EFFECT and not key.startswith("report.")
    }
    return dict(sorted(values.items()))


def _plain(value: Any, out: Path) -> Any:
    if isinstance(value, str):
        return value.replace(str(out), "{out}")
    return list(value) if isinstance(value, (list, tuple)) else value
