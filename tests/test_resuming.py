"""Stopping and resuming on the command line, and what a run records about itself."""

import errno
import json
import os
import signal
import time

import pytest
import torch
import torchreid
from conftest import make_market, torchreids_manager
from engines import QUICK, weights
from filelock import FileLock
from test_main import run, typed
from tiny import tiny_model

import magnifier_plugin
from magnifier_plugin import recipe
from magnifier_plugin.engine import provenance
from magnifier_plugin.engine.engine import StagedEngine
from magnifier_plugin.engine.folder_lock import FolderInUse
from magnifier_plugin.engine.log import Tee
from magnifier_plugin.engine.provenance import data_fingerprint, git_state, processor_name
from magnifier_plugin.engine.signals import StopSignals
from magnifier_plugin.engine.stages import Stage
from magnifier_plugin.engine.tensorboard import EventWriter
from magnifier_plugin.failures import describe_failure


def refuse(*arguments, **options):
    raise ValueError("refused")


@pytest.fixture
def tiny_networks(monkeypatch):
    """Makes runs of the main script train a tiny network."""
    monkeypatch.setattr(
        recipe, "build_network", lambda cfg, system, count, **_: tiny_model(count, cfg.loss.name)
    )


def stop_after(monkeypatch, steps, how):
    """Makes the n-th step of any engine end with a signal or an exception."""
    step, done = StagedEngine.forward_backward, []

    def stopping(self, data):
        done.append(1)
        result = step(self, data)
        if len(done) == steps:
            if isinstance(how, BaseException):
                raise how
            os.kill(os.getpid(), how)
        return result

    monkeypatch.setattr(StagedEngine, "forward_backward", stopping)
    return done


@pytest.mark.usefixtures("tiny_networks")
class TestCommand:
    def results(self, folder):
        return json.loads((folder / "results.json").read_text())["results"]

    def test_stopped_and_resumed_by_auto(self, market_folder, tmp_path, capsys, monkeypatch):
        pairs = ["report.untrained", "True"]
        with monkeypatch.context() as patch:
            all_steps = stop_after(patch, -1, None)
            assert run(*typed(market_folder, tmp_path / "whole", *pairs)) == 0
        table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| mark")]
        argv = typed(market_folder, tmp_path / "log", *pairs, "model.resume", "auto")
        with monkeypatch.context() as patch:
            first = stop_after(patch, 1, signal.SIGINT)
            assert run(*argv) == 130
        captured = capsys.readouterr()
        assert "has no checkpoint; starting at the beginning" in captured.out
        assert "SIGINT received: the run stops after the current step" in captured.out
        assert captured.err == (
            "stopped; the same command with model.resume auto continues from the last checkpoint "
            f"in {tmp_path / 'log' / 'model'}\n"
        )
        with monkeypatch.context() as patch:
            second = stop_after(patch, -1, None)
            assert run(*argv) == 0
        assert len(first) + len(second) == len(all_steps)
        assert self.results(tmp_path / "log") == self.results(tmp_path / "whole")
        out = capsys.readouterr().out
        assert [line for line in out.splitlines() if line.startswith("| mark")] == table
        assert "differs" not in out
        (run_id,) = {
            json.loads(path.read_text())["run"] for path in (tmp_path / "log").glob("run-*.json")
        }
        logs = [path.read_text() for path in (tmp_path / "log").glob("train.log-*")]
        assert all(f"(run {run_id})" in log for log in logs)

    @pytest.mark.parametrize(
        ("pairs", "message"),
        [
            ("train.seed 7", "train.seed 1, now 7"),
            (
                "train.lr 0.5 stages.2.lr 0.5 train.batch_size 6",
                "stages.2.lr 0.001, now 0.5; train.batch_size 4, now 6; train.lr 0.0003",
            ),
            ("data.workers 0 train.print_freq 3", ""),
            ("data.cache_gb 0.1 model.pretrained True model.backbone_weights x.pth", ""),
        ],
    )
    def test_changed_settings_are_reported(
        self, market_folder, tmp_path, capsys, monkeypatch, pairs, message
    ):
        with monkeypatch.context() as patch:
            stop_after(patch, 1, signal.SIGTERM)
            with pytest.raises(SystemExit) as stop:
                run(*typed(market_folder, tmp_path))
            assert stop.value.code == 143
        capsys.readouterr()
        argv = typed(market_folder, tmp_path, "model.resume", "auto", *pairs.split())
        assert run(*argv) == 0
        out = capsys.readouterr().out
        assert ("This run differs from the one that saved the checkpoint" in out) == bool(message)
        assert message in out
        anew = "train.seed" in pairs or "batch_size" in pairs
        assert ("it starts again" in out) == anew

    @pytest.mark.parametrize("changed", [False, True])
    def test_moved_label_maps_are_not_reported_and_changed_ones_are(
        self, tmp_path, capsys, monkeypatch, changed
    ):
        market = make_market(tmp_path / "data")
        with monkeypatch.context() as patch:
            stop_after(patch, 1, signal.SIGTERM)
            with pytest.raises(SystemExit):
                run(*typed(market, tmp_path / "log"))
        moved = market.masks_dir.rename(tmp_path / "moved")
        if changed:
            path = next(moved.rglob("bounding_box_train/**/*.png"))
            path.write_bytes(path.read_bytes() + b"0")
        capsys.readouterr()
        argv = typed(market, tmp_path / "log", "masks.dir", moved, "model.resume", "auto")
        assert run(*argv) == 0
        assert ("This run differs" in capsys.readouterr().out) == changed

    def test_a_second_run_in_a_used_folder_writes_nothing(
        self, market_folder, tmp_path, monkeypatch, capsys
    ):
        """The test before training, too: the first run reads its results when it resumes."""
        monkeypatch.setattr("magnifier_plugin.engine.folder_lock.LOCK_TIMEOUT", 0.1)
        with FileLock(tmp_path / ".lock"):
            assert run(*typed(market_folder, tmp_path, "report.untrained", "True")) == 2
        assert "another process is writing into it" in capsys.readouterr().err
        assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} <= {
            ".lock",
            "train.log",
        }

    def test_a_test_before_the_training_does_not_change_it(self, market_folder, tmp_path):
        trained = {}
        for untrained in ("False", "True"):
            folder = tmp_path / untrained
            assert run(*typed(market_folder, folder, "report.untrained", untrained)) == 0
            (path,) = (folder / "model").glob("model.pth.tar-*")
            trained[untrained] = torch.load(path, weights_only=True)["state_dict"]
        for name, value in trained["True"].items():
            assert torch.equal(value, trained["False"][name]), name

    @pytest.mark.parametrize("key", ["model.load_weights", "model.resume"])
    def test_a_test_with_other_options_than_in_training_warns(
        self, market_folder, tmp_path, capsys, key
    ):
        options = "magnifier.mask_rescaling", "nearest", "magnifier.stem_relu", "False"
        assert run(*typed(market_folder, tmp_path / "log", *options)) == 0
        (path,) = (tmp_path / "log" / "model").glob("model.pth.tar-*")
        tested = typed(market_folder, tmp_path / "test", "test.evaluate", "True", key, path)
        capsys.readouterr()
        assert run(*tested, *options) == 0
        assert "other options" not in capsys.readouterr().out
        assert run(*tested) == 0
        message = (
            f"{path} was trained with other options: magnifier.stem_relu False, now True; "
            "magnifier.mask_rescaling nearest, now bilinear"
        )
        assert message in capsys.readouterr().out

    @pytest.mark.parametrize(
        "words",
        [
            "test.evaluate True model.load_weights {path}",
            "test.evaluate True model.resume {path}",
            "model.resume {path} stages.2.max_epoch 2",
            "model.load_weights {path}",
        ],
    )
    def test_imagenet_weights_are_not_loaded_before_a_checkpoint(
        self, market_folder, tmp_path, monkeypatch, words
    ):
        """The checkpoint replaces every tensor; here, the network begins with nan."""
        assert run(*typed(market_folder, tmp_path / "log", "train.keep_freq", "1")) == 0
        path = tmp_path / "log" / "model" / "model.pth.tar-2"
        asked = []

        def build(cfg, system, count, *, pretrained=None):
            asked.append(pretrained)
            model = tiny_model(count, cfg.loss.name)
            for tensor in model.state_dict().values():
                tensor.fill_(float("nan") if tensor.is_floating_point() else -1)
            return model

        monkeypatch.setattr(recipe, "build_network", build)
        checked = []
        monkeypatch.setattr(recipe, "_run", lambda *given: checked.append(given[2].model))
        more = "model.pretrained", "True", *words.format(path=path).split()
        assert run(*typed(market_folder, tmp_path / "next", *more)) == 0
        assert asked[-1] is False
        (model,) = checked
        saved = torch.load(path, weights_only=True)["state_dict"]
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, saved[name]), name

    def test_imagenet_weights_are_loaded_without_a_checkpoint(
        self, market_folder, tmp_path, monkeypatch
    ):
        asked = []

        def build(cfg, system, count, *, pretrained):
            asked.append(pretrained)
            return tiny_model(count, cfg.loss.name)

        monkeypatch.setattr(recipe, "build_network", build)
        monkeypatch.setattr(recipe, "_run", lambda *given: None)
        for words in ("model.resume auto", "test.evaluate True"):
            more = "model.pretrained", "True", *words.split()
            assert run(*typed(market_folder, tmp_path, *more)) == 0
        assert asked[1::2] == [True, True]

    def test_a_test_takes_the_weights_that_were_tested(self, tmp_path, capsys):
        market = make_market(tmp_path / "data", test_pids=(1, 3, 4, 9, 10, 11, 12), images=3)
        log, training = tmp_path / "log", "train.ema 0.99 train.lr 0.05 train.warmup_epoch 0"
        assert run(*typed(market, log, *training.split())) == 0
        (path,) = (log / "model").glob("model.pth.tar-*")
        expected, mAP = self.results(log), {}
        for key in ("model.resume", "model.load_weights"):
            folder = tmp_path / key
            assert run(*typed(market, folder, "test.evaluate", "True", key, path)) == 0
            mAP[key] = self.results(folder)["market1501"]["mAP"]
        assert mAP["model.resume"] == mAP["model.load_weights"] == expected["market1501"]["mAP"]
        with_ema = typed(market, tmp_path / "ema", "test.evaluate", "True", "train.ema", "0.99")
        assert run(*with_ema, "model.resume", path) == 0
        assert self.results(tmp_path / "ema") == expected
        out = capsys.readouterr().out
        assert f"Testing {path}" in out and "differs from" not in out

    def test_another_runs_checkpoint_is_not_advised(self, market_folder, tmp_path, capsys):
        """A new run that fails before its first checkpoint cannot be continued."""
        assert run(*typed(market_folder, tmp_path)) == 0
        advice = f"continues from the last checkpoint in {tmp_path / 'model'}"
        for words, expected in ((["train.lr", "0.02"], False), (["model.resume", "auto"], True)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(StagedEngine, "run", refuse)
                assert run(*typed(market_folder, tmp_path, *words)) == 2
            error = capsys.readouterr().err
            assert "error: refused" in error
            assert (advice in error) == expected

    def test_a_changed_learning_rate_counts(self, market_folder, tmp_path):
        pairs = ["train.lr", "0.01", "train.warmup_epoch", "0", "stages.1.max_epoch", "3"]
        pairs += ["stages.1.lr_scheduler", "multi_step", "stages.1.stepsize", "[9]"]
        first = typed(market_folder, tmp_path, *pairs)
        assert run(*first) == 0
        for path in (tmp_path / "model").glob("model*"):
            path.unlink()
        engine = None

        def kept(cfg, system, built, start):
            nonlocal engine
            engine = built
            built.run(save_dir=tmp_path, start_epoch=start, max_epoch=2 if not start else 3)
            return built

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recipe, "_run", kept)
            assert run(*first) == 0
            argv = [*first, "train.lr", "0.5", "model.resume", "auto"]
            assert run(*argv) == 0
        assert [entry["lr"] for entry in engine.history] == [0.01, 0.01, 0.5]

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (OSError(28, "No space left on device"), "No space left on device; free some space"),
            (torch.OutOfMemoryError("CUDA out of memory."), "lower train.batch_size"),
        ],
        ids=["disk", "memory"],
    )
    def test_run_time_errors_are_one_line(
        self, market_folder, tmp_path, capsys, monkeypatch, error, message
    ):
        stop_after(monkeypatch, 5, error)
        assert run(*typed(market_folder, tmp_path, "train.checkpoint_freq", "1")) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert message in lines[0]
        assert "; the same command with model.resume auto continues" in lines[0]
        (log,) = tmp_path.glob("train.log-*")
        assert lines[1] == f"The traceback is in {log}"
        assert "Traceback (most recent call last)" in log.read_text()
        assert type(error).__name__ in log.read_text()

    def test_an_error_of_the_program_keeps_its_traceback(
        self, market_folder, tmp_path, monkeypatch
    ):
        stop_after(monkeypatch, 1, TypeError("no such argument"))
        with pytest.raises(TypeError):
            run(*typed(market_folder, tmp_path))
        (log,) = tmp_path.glob("train.log-*")
        assert "TypeError: no such argument" in log.read_text()

    def test_what_a_run_depends_on_is_written(self, tmp_path):
        market = make_market(tmp_path / "data")
        log = tmp_path / "log"
        argv = typed(market, log, "train.deterministic", "True", "amp", "off")
        try:
            assert run(*argv) == 0
            assert torch.are_deterministic_algorithms_enabled()
        finally:
            provenance.set_deterministic(False)
        (path,) = log.glob("run-*.json")
        facts = json.loads(path.read_text())
        assert facts["seed"] == 1
        assert facts["deterministic"] is True
        assert facts["precision"].startswith("float32")
        assert "stages" in facts["configuration"]
        assert facts["versions"]["torch"] == torch.__version__
        assert facts["command"]
        assert facts["threads"] == torch.get_num_threads()
        training = sorted(market.images.glob("bounding_box_train/*.jpg"))
        maps = list((market.masks_dir / "market1501" / "bounding_box_train").glob("**/*.png"))
        maps = maps or list(market.masks_dir.glob("**/bounding_box_train/*.png"))
        files = [*training, *maps]
        assert facts["data"]["train"]["files"] == len(files)
        assert facts["data"]["train"]["bytes"] == sum(file.stat().st_size for file in files)
        assert set(facts["data"]) == {"train", "market1501 query", "market1501 gallery"}


class TestFacts:
    def test_the_fingerprint_follows_names_and_sizes(self, tmp_path):
        folder = make_market(tmp_path)
        os.environ["MAGNIFIER_MASKS"] = str(folder.masks_dir)
        try:
            before = data_fingerprint(torchreids_manager(folder))
            os.utime(next(folder.images.glob("query/*.jpg")))
            assert data_fingerprint(torchreids_manager(folder)) == before
            image = next(folder.images.glob("query/*.jpg"))
            image.write_bytes(image.read_bytes() + b"0")
            after = data_fingerprint(torchreids_manager(folder))
        finally:
            del os.environ["MAGNIFIER_MASKS"]
        assert after["train"] == before["train"]
        assert after["market1501 query"]["bytes"] == before["market1501 query"]["bytes"] + 1
        assert after["market1501 query"]["digest"] != before["market1501 query"]["digest"]

    def test_the_processor(self, tmp_path, monkeypatch):
        info = tmp_path / "cpuinfo"
        info.write_text("processor\t: 0\nmodel name\t: Abacus 2 @ 1 Hz\nmodel name\t: other\n")
        assert processor_name(info) == "Abacus 2 @ 1 Hz"
        assert processor_name() == provenance.describe_process()["processor"]
        monkeypatch.setattr(provenance.platform, "processor", lambda: "")
        monkeypatch.setattr(provenance.platform, "machine", lambda: "x86")
        info.write_text("model name\t:\n")
        assert processor_name(info) == processor_name(tmp_path / "none") == "x86"

    def test_git(self, tmp_path):
        assert git_state(tmp_path) is None
        state = git_state(os.path.dirname(magnifier_plugin.__file__))  # noqa: PTH120
        if state is None:
            pytest.skip("the package is not in a git repository")
        assert len(state["commit"]) == 40


class TestTorchreidsManager:
    """torchreid's loaders can only begin at the start of an epoch."""

    @pytest.mark.parametrize("workers", [0, 2])
    def test_the_rest_of_an_epoch_is_the_same(self, market_folder, tmp_path, monkeypatch, workers):
        monkeypatch.setenv("MAGNIFIER_MASKS", str(market_folder.masks_dir))

        def build():
            options = {"transforms": ["random_flip", "random_erase"], "workers": workers}
            torch.manual_seed(1)
            torchreid.utils.set_random_seed(1)
            manager = torchreids_manager(market_folder, **options)
            engine = torchreid.engine.ImageMagnifierEngine
            stages = [Stage(max_epoch=2, **QUICK)]
            return engine(manager, tiny_model(), stages=stages, amp="off", use_gpu=False)

        whole = build()
        whole.run(save_dir=tmp_path / "whole")
        with monkeypatch.context() as patch:
            stop_after(patch, 2, signal.SIGTERM)
            with pytest.raises(SystemExit):
                build().run(save_dir=tmp_path / "log")
        (path,) = (tmp_path / "log" / "model").iterdir()
        assert path.name == "model.pth.tar-0-batch-2"
        rest = build()
        rest.run(save_dir=tmp_path / "log", start_epoch=rest.resume(path))
        assert rest.history == whole.history
        expected = weights(whole)
        assert all(torch.equal(value, expected[key]) for key, value in weights(rest).items())


class TestSignals:
    def test_held_ones_wait(self):
        with pytest.raises(KeyboardInterrupt), StopSignals() as signals:
            signals.hold()
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            assert signals.received == signal.SIGINT
            signals.release()
        assert signals.is_between_steps
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_others_raise_at_once(self):
        with pytest.raises(SystemExit) as stop, StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        assert stop.value.code == 143
        assert signals.is_between_steps

    def test_a_second_ctrl_c_does_not_wait(self, monkeypatch):
        monkeypatch.setattr("magnifier_plugin.engine.signals.REPEAT_SECONDS", 0.05)
        with pytest.raises(KeyboardInterrupt), StopSignals() as signals:
            signals.hold()
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)  # the same signal from a launcher
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        assert not signals.is_between_steps

    def test_one_at_the_last_moment(self):
        with pytest.raises(KeyboardInterrupt), StopSignals() as signals:
            signals.hold()
            os.kill(os.getpid(), signal.SIGINT)


class Full:
    """A file on a full disk."""

    name = "train.log"

    def write(self, text):
        raise OSError(28, "No space left on device")

    flush = None


class Screen(list):
    """Keeps what is printed."""

    def write(self, text):
        self.append(text)
        return len(text)

    def flush(self):
        pass


class TestFullDisk:
    def test_the_log_continues_on_the_screen(self):
        screen = Screen()
        tee = Tee(screen, Full())
        for line in ("one", "two"):
            tee.write(line)
        assert screen[0].startswith("train.log: not written, [Errno 28] No space left on device")
        assert screen[1:] == ["one", "two"]

    def test_tensorboard_does_not_end_a_run(self, tmp_path, caplog, monkeypatch):
        writer = EventWriter(log_dir=str(tmp_path))
        monkeypatch.setattr(
            "torch.utils.tensorboard.SummaryWriter.add_scalar",
            lambda *_, **__: Full().write(""),
        )
        writer.add_scalar("loss", 1.0, 1)
        writer.add_scalar("loss", 1.0, 2)
        writer.close()
        assert caplog.text.count("no more events for TensorBoard") == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("a.jpg: damaged"), "a.jpg: damaged"),
        (KeyError("no target"), ""),
        (FloatingPointError("expected\nfinite losses"), "expected finite losses"),
        (FolderInUse("log: in use"), "log: in use"),
        (
            RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed."),
            "DataLoader worker (pid 3) is killed by signal: Killed.; the usual cause is too little "
            "memory: lower data.workers",
        ),
        (
            ValueError(
                "Caught ValueError in DataLoader worker process 0.\n"
                'Original Traceback (most recent call last):\n  File "x.py"\n'
                "ValueError: b.png: label 24, expected 0..7\n"
            ),
            "b.png: label 24, expected 0..7",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "log"),
            "[Errno 13] Permission denied: 'log'; change its permissions, or choose another path",
        ),
        (TypeError("x"), ""),
        (RuntimeError("shape mismatch"), ""),
        (AttributeError("y"), ""),
    ],
)
def test_what_a_user_can_cause_is_described(error, expected):
    assert describe_failure(error) == expected
