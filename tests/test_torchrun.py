"""scripts/main.py under torchrun: restarts, failures, what is refused."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torchreid
from conftest import make_market, torchreids_manager
from engines import make_manager
from tiny import tiny_model
from torch import nn

from magnifier_plugin.engine import distributed
from magnifier_plugin.engine.distributed import Processes, torchrun_processes

TESTS = Path(__file__).parent
KEYS = """amp off channels_last off model.pretrained False magnifier.backbone resnet18
data.height 32 data.width 16 data.workers 0 data.transforms random_flip train.batch_size 8
sampler.train_sampler RandomIdentitySampler sampler.num_instances 2 use_gpu False
train.max_epoch 3 stages.1.max_epoch 3"""


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return make_market(tmp_path_factory.mktemp("people"), pids=range(2, 10))


def command_of(folder, save_dir, *extra, failing=-1, restarts=0):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += ["--standalone", f"--max-restarts={restarts}", TESTS / "torchrun_main.py"]
    command += [str(failing), "--root", folder.root, *KEYS.split(), "masks.dir", folder.masks_dir]
    command += ["data.save_dir", save_dir, *extra]
    return list(map(str, command))


def torchrun(*arguments, **options):
    """Runs two processes; returns the finished launcher and its time in seconds."""
    start = time.monotonic()
    done = subprocess.run(
        command_of(*arguments, **options), capture_output=True, text=True, cwd=TESTS, timeout=120
    )
    return done, time.monotonic() - start


@pytest.mark.ddp
@pytest.mark.slow
def test_a_restart_continues_from_the_last_checkpoint(people, tmp_path):
    done, _ = torchrun(people, tmp_path, "model.resume", "auto", failing=1, restarts=1)
    assert done.returncode == 0, done.stderr
    assert "[rank1]: RuntimeError: this process fails on demand" in done.stderr
    first, second = sorted(tmp_path.glob("train.log*"))
    assert "has no checkpoint; starting at the beginning" in first.read_text()
    assert "Resumed from" in second.read_text()
    assert "1 epoch and 0 batches trained" in second.read_text()
    assert second.read_text().count("Show configuration") == 1
    assert json.loads((tmp_path / "results.json").read_text())["epoch"] == 3


@pytest.mark.ddp
@pytest.mark.slow
def test_a_process_that_fails_ends_all_within_a_minute(people, tmp_path):
    done, seconds = torchrun(people, tmp_path, failing=0)
    assert done.returncode == 1
    assert seconds < 60
    assert "[rank1]: RuntimeError: this process fails on demand" in done.stderr


@pytest.mark.ddp
@pytest.mark.slow
def test_sigterm_to_the_launcher_saves(people, tmp_path):
    """torchrun sends it to the processes' loader workers too, and kills what is left after 30 s."""
    long = ("train.max_epoch", "1000", "stages.1.max_epoch", "1000", "data.workers", "2")
    command = command_of(people, tmp_path, *long, "train.checkpoint_freq", "1000")
    launcher = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=TESTS)
    deadline = time.monotonic() + 120
    while "epoch: [2/" not in "".join(path.read_text() for path in tmp_path.glob("train.log*")):
        assert time.monotonic() < deadline
        assert launcher.poll() is None
        time.sleep(0.1)
    assert not list(tmp_path.glob("model/*"))
    launcher.terminate()
    _, output = launcher.communicate(timeout=60)
    log = next(tmp_path.glob("train.log*")).read_text()
    assert "SIGTERM received: the run stops after the next step" in log
    assert "Stopped; model.resume auto continues from the last checkpoint" in log
    assert len(list(tmp_path.glob("model/model.pth.tar-*"))) == 1
    assert "SIGKILL" not in output
    assert "DataLoader worker" not in output


@pytest.mark.ddp
@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused_once(people, tmp_path):
    done, _ = torchrun(people, tmp_path, "train.batch_size", "6", "ddp.gather", "True")
    assert done.returncode == 1
    assert "for each of 2 processes; change train.batch_size" in done.stderr
    done, _ = torchrun(people, tmp_path, "train.batch_size", "4")
    assert done.stderr.count("error: train.batch_size 4: expected two identities for each") == 1


def test_fewer_gpus_than_processes(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "4")
    monkeypatch.setattr(distributed.dist, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(ValueError, match="4 processes on a machine with 2 GPUs"),
        torchrun_processes(use_gpu=True),
    ):
        pass


def test_each_process_has_its_gpu():
    assert Processes(5, 8, 1).device(True) == torch.device("cuda", 1)
    assert Processes(5, 8, 1).device(False) == torch.device("cpu")
    assert Processes().device(True) == torch.device("cuda")


def test_a_data_manager_of_other_processes_is_refused(people):
    manager = make_manager(people)
    engine = torchreid.engine.ImageMagnifierEngine
    with pytest.raises(ValueError, match=r"process 1 of 2, got those for process 0 of 1.*num_repl"):
        engine(manager, tiny_model(8), processes=Processes(1, 2, 1))
    shared = make_manager(people, num_replicas=2)
    with pytest.raises(ValueError, match="process 0 of 1, got those for process 0 of 2"):
        engine(shared, tiny_model(8))


class TestDataParallel:
    def test_our_engine_refuses_it(self, people):
        model = nn.DataParallel(tiny_model(8))
        with pytest.raises(ValueError, match=r"pass model.module.*torchrun --nproc_per_node"):
            torchreid.engine.ImageMagnifierEngine(make_manager(people), model)

    @pytest.mark.filterwarnings("ignore:MagnifierNet is trained without its mask loss")
    @pytest.mark.parametrize("loss", ["triplet", "softmax"])
    def test_torchreids_engines_train_in_it(self, people, loss):
        """In the way in which torchreid's scripts wrap a model on a GPU."""
        manager = torchreids_manager(people, sources="market1501", batch_size_train=8)
        model = nn.DataParallel(tiny_model(8, loss=loss))
        optimizer = torchreid.optim.build_optimizer(model)
        kind = {"triplet": "ImageTripletEngine", "softmax": "ImageSoftmaxEngine"}[loss]
        engine = getattr(torchreid.engine, kind)(manager, model, optimizer, use_gpu=False)
        engine.epoch, engine.max_epoch = 0, 1
        before = model.module.backbone.conv1.weight.clone()
        engine.train(print_freq=1)
        assert not torch.equal(model.module.backbone.conv1.weight, before)
