"""Which checkpoints of a training run are kept, and from which one it resumes."""

import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from magnifier_plugin.engine.checkpoint import (
    DamagedCheckpoint,
    read_checkpoint,
    read_header,
    write_checkpoint,
)
from magnifier_plugin.files import write_atomically
from magnifier_plugin.wording import many

BEST = "model-best.pth.tar"
NUMBERED = "model.pth.tar-"
logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one training run: the last, the best and every k-th are kept.

    Args:
        folder: `save_dir/model`; created by the first save.
        record: entries for each checkpoint, such as configuration and seed.
        keep_freq: k, epochs between checkpoints that are never removed; 0: keep only the last and
            the best.
    """

    def __init__(self, folder: Path, record: Mapping[str, Any], keep_freq: int = 0) -> None:
        self.folder, self.record, self.keep_freq = folder, record, keep_freq
        self.latest: Path | None = None
        self.best_mAP, self.best_epoch = -1.0, 0
        self.run = _new_run()
        """Identifies the run in checkpoints; it stays the same when resuming."""
        self.origin_record: Mapping[str, Any] = {}
        """The record of the checkpoint from which the run was resumed."""
        self._unlinked: Path | None = None  # the best checkpoint, while it is not linked
        self._begun = False
        self._origin: tuple[Path, Mapping[str, Any]] | None = None

    def begin(self, anew: bool) -> None:
        """Start or continue a run: remove files of interrupted saves, and find the best checkpoint.

        Args:
            anew: whether a new run starts; otherwise an earlier one continues.
        """
        for leftover in self.folder.glob(".model*.part*"):
            logger.info("Removing %s, left by an interrupted save", leftover)
            leftover.unlink(missing_ok=True)
        if anew:
            if self._begun or self._origin is not None:
                self.run = _new_run()
            self.best_mAP, self.best_epoch, self._origin, self.latest = -1.0, 0, None, None
            self._unlinked = None
            self._report_earlier()
        self._begun = True
        if self._origin is not None:
            self._find_best(*self._origin)
            self._origin = None

    def save(self, content: Mapping[str, Any], mAP: float | None = None) -> Path:
        """Write a checkpoint, and remove the one before it.

        Args:
            content: plain types and tensors; "epoch" is the number of trained epochs, "batch" the
                number of trained batches of the next one.
            mAP: mAP of a test after this epoch; the best checkpoint is kept as
                `model-best.pth.tar`.
        Raises:
            OSError: the disk is full or the folder not writable; the old file is not changed.
        """
        epoch, batch = content["epoch"], content.get("batch", 0)
        path = self.folder / f"{NUMBERED}{epoch}{f'-batch-{batch}' if batch else ''}"
        best = self.best_mAP, self.best_epoch
        is_best = mAP is not None and mAP > self.best_mAP
        if mAP is not None and is_best:
            best = mAP, epoch
        own = {"best_mAP": best[0], "best_epoch": best[1], "run": self.run, "saved": time.time()}
        write_checkpoint(path, {**content, **own, "record": self.record})
        self.best_mAP, self.best_epoch = best
        before, self.latest = self.latest, path
        replaced = {before, self._unlinked} if is_best else {before}
        if is_best:
            self._unlinked = path
        for old in replaced:
            if old and old not in (path, self._unlinked):
                self._remove(old)
        if self._unlinked:
            _link(self._unlinked, path.with_name(BEST))
            if self._unlinked != path:
                self._remove(self._unlinked)
            self._unlinked = None
        logger.info('Checkpoint saved to "%s" (run %s)', path, self.run)
        return path

    def resume_from(self, path: Path, content: Mapping[str, Any]) -> None:
        """Resume from a checkpoint; the next one will replace it, unless it is the best."""
        self.best_mAP, self.best_epoch = content["best_mAP"], content.get("best_epoch", 0)
        self.run = content.get("run", self.run)
        self._origin, self.origin_record = (path, content), content.get("record", {})
        logger.info(
            "=> Resumed from %s: %s and %s trained, stage %d, run %s",
            path,
            many(content["epoch"], "epoch"),
            many(content.get("batch", 0), "batch"),
            content["stage"],
            self.run,
        )
        if path.name != BEST:
            self.latest = path

    def _remove(self, path: Path) -> None:
        if path.parent != self.folder:
            return  # never remove a file in another folder, from which the caller resumed
        epoch = path.name.removeprefix(NUMBERED)
        kept = self.keep_freq and epoch.isdecimal() and int(epoch) % self.keep_freq == 0
        if not kept:
            path.unlink(missing_ok=True)

    def _find_best(self, origin: Path, content: Mapping[str, Any]) -> None:
        """Make sure that this folder has the best checkpoint of the resumed run.

        It may be missing if the run was killed between saving and linking it, or was resumed in
        another folder.
        """
        best = self.folder / BEST
        if not self.best_epoch and self.best_mAP < 0:
            return  # nothing was tested yet
        numbered = origin.with_name(f"{NUMBERED}{self.best_epoch}")
        for candidate in (best, origin, numbered, origin.with_name(BEST)):
            if self._is_best(candidate):
                if candidate != best:
                    _link(candidate, best)
                    logger.info("%s is now the best checkpoint, from %s", best, candidate)
                return
        logger.warning(
            "%s: the best checkpoint of this run (mAP %.1f %%) is missing; the best is chosen "
            "among the tests from now on",
            *(origin.with_name(BEST), 100 * self.best_mAP),
        )
        self.best_mAP, self.best_epoch = -1.0, 0

    def _is_best(self, path: Path) -> bool:
        try:
            header = read_header(path) if path.is_file() else {}
        except DamagedCheckpoint as error:
            logger.warning("%s", error)
            return False
        if not header or header.get("best_mAP") != self.best_mAP:
            return False
        if "best_epoch" not in header:  # written by an earlier version
            return path.name == BEST
        return bool(header["run"] == self.run and header["best_epoch"] == header["epoch"])

    def _report_earlier(self) -> None:
        earlier = sorted(path.name for path in self.folder.glob(f"{NUMBERED}*"))
        if earlier:
            logger.warning(
                "%s has checkpoints of an earlier run (%s%s); %s and results.json will be "
                "replaced. To keep them, press Ctrl-C and set another data.save_dir",
                *(self.folder, ", ".join(earlier[:3]), ", …" if earlier[3:] else "", BEST),
            )


def newest_checkpoints(folder: Path) -> Iterator[Path]:
    """The checkpoints in a folder, newest first, by the time saved in them or else the file's time.

    Damaged checkpoints are skipped with a warning.

    Args:
        folder: `save_dir/model`; it need not exist.
    """
    found: list[tuple[float, int, Path]] = []
    for path in (*folder.glob(f"{NUMBERED}*"), *folder.glob(BEST)):
        try:
            header = read_header(path)
        except DamagedCheckpoint as error:
            logger.warning("Skipped as damaged: %s", error)
            continue
        time_saved = float(header.get("saved", path.stat().st_mtime))
        found.append((time_saved, int(header.get("epoch", 0)), path))
    for _, _, path in sorted(found, reverse=True):
        yield path


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest intact checkpoint in a folder; None if there is none.

    Args:
        folder: `save_dir/model`; it need not exist.
    """
    for path in newest_checkpoints(folder):
        try:
            read_checkpoint(path)
        except DamagedCheckpoint as error:
            logger.warning("Skipped as damaged: %s", error)
            continue
        return path
    return None


def _new_run() -> str:
    return uuid.uuid4().hex[:8]


def _link(path: Path, name: Path) -> None:
    """Give a file a second name: a hard link, or a copy if the file system has no hard links."""
    with write_atomically(name) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
