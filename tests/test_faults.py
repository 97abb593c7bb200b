"""Faults around a training run: kills during a test, full disks, two runs, old files."""

import errno
import multiprocessing
import os
import signal
import time
import zipfile
from pathlib import Path

import pytest
import torch
from engines import QUICK, make_engine, names, two_stages, weights
from full_disk import on_full_disk
from killed_runs import PATIENCE, Training, assert_same
from torch import nn

from magnifier_plugin.engine import checkpoint, rotation
from magnifier_plugin.engine.checkpoint import DamagedCheckpoint, read_checkpoint
from magnifier_plugin.engine.epoch_loop import SavingOptions
from magnifier_plugin.engine.folder_lock import FolderInUse, locked_folder
from magnifier_plugin.engine.results_file import read_results
from magnifier_plugin.engine.rotation import Checkpoints, newest_checkpoint
from magnifier_plugin.engine.stages import Stage
from magnifier_plugin.evaluation.cache import FeatureCache
from magnifier_plugin.workers import on_all_cores

BEST = "model-best.pth.tar"
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def one_stage(epochs=2):
    return [Stage(max_epoch=epochs, **QUICK)]


def resumed(market_folder, path, stages=None, **options):
    engine = make_engine(market_folder, stages or one_stage(), **options)
    return engine, engine.resume(path)


def forked(function, *arguments):
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


class TestKilledDuringATest:
    @staticmethod
    def kill_at_test(number):
        """Prepares an engine to kill its process in the n-th test."""

        def prepare(engine):
            test, begun = engine.tester.test, []

            def killed(**options):
                begun.append(1)
                if len(begun) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return test(**options)

            engine.tester.test = killed

        return prepare

    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls, market_folder, tmp_path_factory):
        training = Training(market_folder, tmp_path_factory.mktemp("whole"), eval_freq=2)
        training.finish()
        return training

    @pytest.mark.parametrize("number", [1, 3])
    def test_it_is_done_after_resuming(self, market_folder, tmp_path, whole, number):
        training = Training(market_folder, tmp_path / "killed", eval_freq=2)
        training.prepare = self.kill_at_test(number)
        training.start()
        training.wait()
        training.prepare = None
        training.finish()
        assert_same(training, whole)  # mAP of each test too
        best = [
            read_checkpoint(part.folder / "model" / BEST)["best_epoch"]
            for part in (training, whole)
        ]
        assert best[0] == best[1] > 0
        first, second = (read_results(part.folder) for part in (whole, training))
        assert first is not None
        assert first == second

    def test_between_saving_and_linking_the_best(self, market_folder, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(rotation, "_link", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                make_engine(market_folder, one_stage()).run(save_dir=tmp_path)
        path = tmp_path / "model" / "model.pth.tar-2"
        assert names(path.parent) == [path.name]
        engine, start = resumed(market_folder, path)
        engine.run(save_dir=tmp_path, start_epoch=start)
        assert not read_checkpoint(path)["test_due"]
        engine, start = resumed(market_folder, path, one_stage(3))
        engine.run(save_dir=tmp_path, start_epoch=start)
        assert BEST in names(path.parent)


class TestResultsFirst:
    def test_an_unwritable_picture(self, market_folder, tmp_path, caplog):
        (tmp_path / "rankings_market1501.png").mkdir()
        engine = make_engine(market_folder, one_stage(), rankings=2)
        engine.run(save_dir=tmp_path)
        assert read_results(tmp_path)
        assert BEST in names(tmp_path / "model")
        assert "Not drawn" in caplog.text

    def test_an_unwritable_cache(self, market_folder, tmp_path, caplog, monkeypatch):
        def full(*_):
            raise FULL

        monkeypatch.setattr(FeatureCache, "write", full)
        engine = make_engine(market_folder, one_stage(), cache=tmp_path / "cache")
        engine.run(save_dir=tmp_path)
        assert engine.results["market1501"]["mAP"] > 0
        assert (tmp_path / "results.json").is_file()
        assert BEST in names(tmp_path / "model")
        assert "not cached" in caplog.text

    def test_unwritable_results_still_leave_the_best(self, market_folder, tmp_path, caplog):
        (tmp_path / "results.json").mkdir()
        engine = make_engine(market_folder, one_stage())
        with pytest.raises(OSError, match="results"):
            engine.run(save_dir=tmp_path)
        assert BEST in names(tmp_path / "model")
        assert "the numbers are in this log" in caplog.text


class TestLock:
    def test_a_second_run_is_refused_until_the_first_ends(self, market_folder, tmp_path):
        def prepare(engine):
            engine.tester.test = lambda **_: time.sleep(PATIENCE)

        training = Training(market_folder, tmp_path, workers=2, prepare=prepare, eval_freq=1)
        training.start()
        training.wait_for_step(2)
        other = make_engine(market_folder, one_stage())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("magnifier_plugin.engine.folder_lock.LOCK_TIMEOUT", 0.1)
            with pytest.raises(FolderInUse, match=f"process {training.process.pid} on .*save_dir"):
                other.run(save_dir=tmp_path)
        training.kill()
        other.run(save_dir=tmp_path)  # although workers of the killed one may still exist

    def test_a_file_system_without_locks(self, tmp_path, monkeypatch, caplog):
        def refuse(*_, **__):
            raise NotImplementedError("no flock here")

        monkeypatch.setattr("magnifier_plugin.engine.folder_lock.FileLock.acquire", refuse)
        with locked_folder(tmp_path):
            pass
        assert "cannot be locked" in caplog.text


class TestFolders:
    def test_auto_takes_the_last_saved_not_the_highest_number(
        self, market_folder, tmp_path, caplog
    ):
        make_engine(market_folder, one_stage(3)).run(save_dir=tmp_path)
        engine = make_engine(market_folder, one_stage(3))
        engine.run(save_dir=tmp_path, max_epoch=1)
        assert "checkpoints of an earlier run" in caplog.text
        assert "model-best.pth.tar and results.json will be replaced" in caplog.text
        path = newest_checkpoint(tmp_path / "model")
        assert path.name == "model.pth.tar-1"
        assert read_checkpoint(path)["run"] == engine.checkpoints.run

    def test_damaged_ones_are_skipped_and_named(self, market_folder, tmp_path, caplog):
        make_engine(market_folder, saving=SavingOptions(keep_freq=1)).run(save_dir=tmp_path)
        folder = tmp_path / "model"
        whole = [folder / f"model.pth.tar-{epoch}" for epoch in (1, 2, 3, 4)]
        (folder / BEST).unlink()
        flip_bytes(whole[3])
        whole[2].write_bytes(b"")
        assert newest_checkpoint(folder) == whole[1]
        for path in whole[2:]:
            assert f"Skipped as damaged: {path}" in caplog.text
        assert newest_checkpoint(tmp_path / "none") is None

    def test_half_written_files_are_removed(self, market_folder, tmp_path):
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / ".model.pth.77-abcd.part.tar-3").write_bytes(b"half")
        (folder / ".model-best.pth.77-abcd.part.tar").write_bytes(b"half")
        make_engine(market_folder, one_stage()).run(save_dir=tmp_path)
        assert names(folder) == [BEST, "model.pth.tar-2"]

    def test_every_kth_checkpoint_is_kept(self, market_folder, tmp_path):
        saving = SavingOptions(freq=3, keep_freq=2)
        make_engine(market_folder, one_stage(5), saving=saving).run(save_dir=tmp_path)
        assert names(tmp_path / "model") == [
            BEST,
            *(f"model.pth.tar-{epoch}" for epoch in (2, 4, 5)),
        ]

    @pytest.mark.parametrize(("minutes", "saved"), [(0, 1), (1e-9, 5), (10.0, 1)])
    def test_minutes_between_two_checkpoints(
        self, market_folder, tmp_path, monkeypatch, minutes, saved
    ):
        epochs = []
        write = rotation.write_checkpoint

        def count(path, content):
            epochs.append(content["epoch"])
            write(path, content)

        monkeypatch.setattr(rotation, "write_checkpoint", count)
        saving = SavingOptions(freq=100, minutes=minutes)
        make_engine(market_folder, one_stage(5), saving=saving).run(save_dir=tmp_path)
        assert len(set(epochs)) == saved

    @pytest.mark.parametrize(("option", "value"), [("freq", 0), ("minutes", -1), ("keep_freq", -1)])
    def test_options_out_of_range(self, option, value):
        with pytest.raises(ValueError, match=f"{option}: expected at least"):
            SavingOptions(**{option: value})

    def test_resuming_into_another_folder_takes_the_best_along(self, market_folder, tmp_path):
        first = make_engine(market_folder, one_stage(4))
        first.run(save_dir=tmp_path / "first", max_epoch=3, eval_freq=1)
        expected = (tmp_path / "first/model" / BEST).read_bytes()
        best = first.checkpoints.best_mAP
        engine, start = resumed(
            market_folder, tmp_path / "first/model/model.pth.tar-3", one_stage(4)
        )
        engine.tester.test = lambda **_: engine.results.update(
            market1501={"mAP": best / 2, "rank-1": 0.5}
        )
        engine.run(save_dir=tmp_path / "second", start_epoch=start)
        assert (tmp_path / "second/model" / BEST).read_bytes() == expected

    def test_a_missing_best_checkpoint_is_chosen_again(self, market_folder, tmp_path, caplog):
        make_engine(market_folder, one_stage(4)).run(
            save_dir=tmp_path / "first", max_epoch=2, eval_freq=1
        )
        (tmp_path / "first/model" / BEST).unlink()
        path = tmp_path / "first/model/model.pth.tar-2"
        engine, start = resumed(market_folder, path, one_stage(4))
        engine.checkpoints.best_mAP = 2.0  # of another epoch
        engine.run(save_dir=tmp_path / "second", start_epoch=start)
        assert "the best checkpoint of this run" in caplog.text
        assert BEST in names(tmp_path / "second/model")


def flip_bytes(path):
    """Change bytes in the middle of the largest entry of a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda info: info.file_size)
        place = entry.header_offset + len(entry.FileHeader()) + entry.file_size // 2
    content = bytearray(path.read_bytes())
    for index in range(place, place + 4):
        content[index] ^= 0xFF
    path.write_bytes(content)


class TestDisk:
    def test_flipped_bytes_are_noticed(self, tmp_path):
        path = Checkpoints(tmp_path, {}).save(
            {"state_dict": nn.Linear(64, 64).state_dict(), "epoch": 1}
        )
        read_checkpoint(path)
        flip_bytes(path)
        with pytest.raises(DamagedCheckpoint, match=r"model.pth.tar-1: damaged.*CRC"):
            read_checkpoint(path)

    def test_a_full_disk_is_named_and_the_old_file_stays(self, tmp_path):
        path = tmp_path / "model.pth.tar-1"
        small, large = ({"state_dict": nn.Linear(n, n).state_dict()} for n in (4, 400))
        checkpoint.write_checkpoint(path, small)
        before = path.read_bytes()

        def save():
            with pytest.raises(OSError) as caught:
                checkpoint.write_checkpoint(path, large)
            return caught.value.errno, caught.value.strerror

        number, message = on_full_disk(save, 100_000)
        assert "model.pth.tar-1: not saved" in message and "MB are free" in message
        assert number == errno.EFBIG
        assert path.read_bytes() == before
        assert names(tmp_path) == [path.name]

    def test_a_best_checkpoint_that_cannot_be_linked_is_kept_and_linked_later(
        self, tmp_path, monkeypatch
    ):
        def save(epoch, mAP=None):
            checkpoints.save({"state_dict": {}, "epoch": epoch, "stage": 1}, mAP)

        def fail(*_):
            raise OSError(errno.ENOSPC, "full")

        checkpoints, link = Checkpoints(tmp_path, {}), rotation._link
        save(1, 0.3)
        monkeypatch.setattr(rotation, "_link", fail)
        for epoch, mAP in ((2, 0.5), (3, None), (4, 0.4)):
            with pytest.raises(OSError, match="full"):
                save(epoch, mAP)
        assert names(tmp_path) == [BEST, "model.pth.tar-2", "model.pth.tar-4"]
        monkeypatch.setattr(rotation, "_link", link)
        # A killed run that is resumed finds it under its own name.
        path = tmp_path / "model.pth.tar-4"
        later = Checkpoints(tmp_path, {})
        later.resume_from(path, read_checkpoint(path))
        later.begin(anew=False)
        assert later.best_mAP == 0.5
        assert read_checkpoint(tmp_path / BEST)["epoch"] == 2
        # The same run tries again with each checkpoint.
        (tmp_path / BEST).unlink()
        save(5)
        assert names(tmp_path) == [BEST, "model.pth.tar-5"]
        assert read_checkpoint(tmp_path / BEST)["epoch"] == 2
        # A better one replaces it.
        monkeypatch.setattr(rotation, "_link", fail)
        for epoch, mAP in ((6, 0.6), (7, 0.7)):
            with pytest.raises(OSError, match="full"):
                save(epoch, mAP)
        assert names(tmp_path) == [BEST, "model.pth.tar-7"]

    def test_the_training_goes_on_and_tries_again(
        self, market_folder, tmp_path, caplog, monkeypatch
    ):
        """The disk is full at the end of epoch 2 of 5, and has space again in epoch 3."""
        plain = make_engine(market_folder, one_stage(5))
        plain.run(save_dir=tmp_path / "plain")
        save, calls = torch.save, []

        def full(content, file):
            calls.append(content["epoch"])
            if content["epoch"] == 2:
                file.write(b"half")
                raise FULL
            save(content, file)

        monkeypatch.setattr(torch, "save", full)
        engine = make_engine(market_folder, one_stage(5), saving=SavingOptions(freq=2))
        caplog.clear()
        engine.run(save_dir=tmp_path / "full")
        assert calls == [2, 3, 4, 5, 5]
        assert "model.pth.tar-2: not saved (No space left on device" in caplog.text
        assert "the last good checkpoint is none; training goes on" in caplog.text
        expected = weights(plain)
        assert all(torch.equal(value, expected[key]) for key, value in weights(engine).items())

    def test_a_last_checkpoint_that_is_not_saved_is_an_error(
        self, market_folder, tmp_path, monkeypatch
    ):
        def full(content, file):
            raise FULL

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="not saved"):
            make_engine(market_folder, one_stage(1)).run(save_dir=tmp_path)
        assert (tmp_path / "results.json").is_file()


class TestWorkers:
    @pytest.mark.parametrize("function", ["map", "loader"])
    def test_they_end_with_a_killed_parent(self, market_folder, tmp_path, function):
        """Workers of convert_masks.py and check_dataset.py, and of a training run's loader."""

        if function == "map":
            tasks = range(200)
            process = forked(lambda: list(on_all_cores(_wait, tasks, workers=2, batch=1)))
        else:
            training = Training(market_folder, tmp_path, workers=2)
            training.start()
            process = training.process
        deadline = time.monotonic() + PATIENCE
        while len(workers := children(process.pid)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        process.join(PATIENCE)
        while any(Path(f"/proc/{pid}/stat").exists() and not is_zombie(pid) for pid in workers):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _wait(task):
    time.sleep(0.2)


def children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    if not path.exists():
        pytest.skip("needs Linux's list of child processes")
    return [int(word) for word in path.read_text().split()]


def is_zombie(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class TestSameSeed:
    def test_gives_the_same_numbers_twice(self, market_folder, tmp_path):
        engines = []
        for name in ("first", "second"):
            engine = make_engine(market_folder, two_stages())
            engine.run(save_dir=tmp_path / name, eval_freq=1)
            engines.append(engine)
        first, second = engines
        assert first.history == second.history
        assert first.results == second.results
        expected = weights(first)
        assert all(torch.equal(value, expected[key]) for key, value in weights(second).items())
