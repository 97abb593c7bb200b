"""Checkpoints: what is kept, what is read, and errors about other models."""

import os
import pickle
import random

import numpy as np
import pytest
import torch
from tiny import tiny_model
from torch import nn

from magnifier_plugin.engine import checkpoint
from magnifier_plugin.engine.precision import Precision
from magnifier_plugin.engine.random_states import random_states, restore_random_states
from magnifier_plugin.engine.rotation import Checkpoints
from magnifier_plugin.engine.stages import Stage
from magnifier_plugin.engine.state import TrainingState
from magnifier_plugin.engine.step import TrainingStep
from magnifier_plugin.engine.weights import load_matching, load_state
from magnifier_plugin.losses.magnifier import MagnifierCriterion


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestCheckpoint:
    def save(self, tmp_path, model, **extra):
        content = {"state_dict": model.state_dict(), "epoch": 1, **extra}
        return Checkpoints(tmp_path, {"seed": 1}).save(content)

    def test_torchreids_own_is_read(self, tmp_path):
        path = tmp_path / "model.pth.tar-1"
        state = {"module.weight": torch.ones(2)}
        torch.save({"state_dict": state, "epoch": 1, "rank1": np.float64(0.5)}, path)
        content = checkpoint.read_checkpoint(path)
        assert content["rank1"] == 0.5
        assert list(content["state_dict"]) == ["weight"]
        torch.save(state, path)
        assert list(checkpoint.read_checkpoint(path)["state_dict"]) == ["weight"]

    @pytest.mark.filterwarnings("ignore:Detected pickle protocol")
    def test_a_pickle_that_is_not_a_checkpoint_runs_nothing(self, tmp_path):
        class Bad:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path}/gone",)

        def dump(content, file):
            file.write_bytes(pickle.dumps(content))

        path = tmp_path / "bad.pth"
        for write in (torch.save, dump):
            write({"state_dict": Bad()}, path)
            with pytest.raises(ValueError, match=r"bad.pth.*nothing in this file was run"):
                checkpoint.read_checkpoint(path)
        for content in (b"", b"text"):
            path.write_bytes(content)
            with pytest.raises(ValueError, match="expected a checkpoint"):
                checkpoint.read_checkpoint(path)
        torch.save([1, 2], path)
        with pytest.raises(ValueError, match="found a list"):
            checkpoint.read_checkpoint(path)
        with pytest.raises(FileNotFoundError, match="expected a checkpoint"):
            checkpoint.read_checkpoint(tmp_path / "missing")
        assert not (tmp_path / "gone").exists()

    def test_another_model_or_class_count_is_reported_with_counts(self, tmp_path):
        model = tiny_model()
        path = self.save(tmp_path, tiny_model(fusion="lstm", branches=["G", "M", "SFB"]))
        with pytest.raises(
            ValueError, match=r"the model's \d+ tensors, found 4 of another shape.*26 missing"
        ):
            load_state(model, checkpoint.read_checkpoint(path)["state_dict"], "file")
        path = self.save(tmp_path, tiny_model(7))
        saved = checkpoint.read_checkpoint(path)["state_dict"]
        with pytest.raises(ValueError, match=r"\[7, 32\] in the file.*another number of ident"):
            load_state(model, saved, "file")
        loaded, left, unused = load_matching(model, saved, "file")
        assert (left, unused) == (11, 0)  # three branches and eight regions
        assert loaded == len(saved) - left
        assert torch.equal(model.backbone.conv1.weight, saved["backbone.conv1.weight"])
        del saved["backbone.conv1.weight"]
        with pytest.raises(ValueError, match="1 missing in the file"):
            load_matching(model, saved, "file")
        precision = Precision(torch.device("cpu"), amp="off", channels_last="off")
        step = TrainingStep(model, MagnifierCriterion(), precision, ())
        state = TrainingState(step, [Stage(max_epoch=1)])
        with pytest.raises(ValueError, match=r"to resume from; it lacks history, optimizer"):
            state.read(path)

    def test_an_interrupted_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = self.save(tmp_path, nn.Linear(2, 2))
        old = path.read_bytes()

        def fail(*_):
            raise OSError("disk full")

        monkeypatch.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="disk full"):
            Checkpoints(tmp_path, {}).save({"epoch": 1})
        assert path.read_bytes() == old
        assert names(tmp_path) == [path.name]

    def test_random_states_come_back(self):
        states = random_states()
        drawn = (random.random(), np.random.rand(), torch.rand(1))
        restore_random_states(states)
        assert drawn == (random.random(), np.random.rand(), torch.rand(1))
