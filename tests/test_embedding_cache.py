"""Embeddings on disk: when they are reused, and what happens to damaged files."""

import dataclasses
import os

import numpy as np
import pytest
import torch
from full_disk import on_full_disk
from loaders import Flatten, Target
from torch import nn

from magnifier_plugin.evaluation import cache
from magnifier_plugin.evaluation.cache import files_fingerprint, model_fingerprint
from magnifier_plugin.evaluation.evaluator import Evaluator, Reranking


@pytest.fixture
def target(tmp_path):
    return Target(tmp_path)


def cached(target, model, folder, **options):
    """Evaluates with a cache; returns how often the model was called, and the result."""
    model.calls = 0
    run = Evaluator(lambda batch: model(batch["img"]), cache=folder, model=model, **options)
    result = run.evaluate(*target.loaders)
    return model.calls, result


def test_a_cache_serves_the_same_model_images_and_settings_only(target, tmp_path):
    model, folder = Flatten(), tmp_path / "cache"
    first, expected = cached(target, model, folder)
    assert first == 2 + 5
    again, result = cached(target, model, folder)
    assert again == 0
    assert torch.equal(result.query.features, expected.query.features)
    np.testing.assert_array_equal(result.gallery.camids, expected.gallery.camids)
    assert result.reranked is None and result.ranking.mAP == expected.ranking.mAP

    assert cached(target, model, folder, flip=True)[0] == 2 * first
    assert cached(target, model, folder, cache_key="bf16")[0] == first
    os.utime(target.sets[0].data[3][0], ns=(1, 1))
    assert cached(target, model, folder)[0] == 2  # the query set
    with torch.no_grad():
        model.weight.mul_(2)
    assert cached(target, model, folder)[0] == first


@pytest.mark.parametrize("place", [1, 2])
def test_another_identity_or_camera_is_another_file(target, tmp_path, place):
    images = list(target.sets[0].data)
    record = list(images[3])
    record[place] += 1
    changed = [*images[:3], tuple(record), *images[4:]]
    kept = cache.FeatureCache(tmp_path)
    first, same, other = (kept.path("model", each, {}) for each in (images, images, changed))
    assert first == same != other


def test_normalising_and_reranking_do_not_change_the_cache(target, tmp_path):
    model = Flatten()
    cached(target, model, tmp_path / "cache")
    run = Evaluator(
        lambda batch: model(batch["img"]),
        cache=tmp_path / "cache",
        model=model,
        rerank=Reranking(k1=6, k2=3),
    )
    model.calls = 0
    result = run.evaluate(*target.loaders, normalize=True)
    norms = result.query.features.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(12))
    assert model.calls == 0 and result.reranked is not None


def test_a_damaged_file_is_written_again(target, tmp_path, caplog):
    model, folder = Flatten(), tmp_path / "cache"
    cached(target, model, folder)
    contents = {file: file.read_bytes() for file in folder.iterdir()}
    damaged = sorted(contents)[0]
    damaged.write_bytes(contents[damaged][:500])
    assert cached(target, model, folder)[0] in (2, 5)
    assert f"{damaged} is damaged" in caplog.text
    assert {file: file.read_bytes() for file in folder.iterdir()} == contents


@pytest.mark.parametrize(
    "change",
    [
        {"features": torch.ones(3)},
        {"features": torch.ones(3, 2)},
        {"features": torch.ones(2, 2).double()},
        {"pids": torch.ones(2)},
        {"camids": torch.ones(2, 1).long()},
        {"pids": torch.eye(2).to_sparse()},
        {"pids": [1, 2]},
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse:UserWarning")
def test_a_file_with_other_content_counts_as_damaged(tmp_path, change):
    good = {"features": torch.ones(2, 2), "pids": torch.arange(2), "camids": torch.arange(2)}
    torch.save(good, tmp_path / "good.pt")
    assert cache.read_embeddings(tmp_path / "good.pt").pids.tolist() == [0, 1]
    torch.save(good | change, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=r"bad.pt.*expected .* found "):
        cache.read_embeddings(tmp_path / "bad.pt")


def test_on_a_full_disk_the_evaluation_goes_on(target, tmp_path, caplog):
    folder = tmp_path / "cache"

    def evaluate():
        return cached(target, Flatten(), folder)[1].ranking.mAP, caplog.text

    mAP, log = on_full_disk(evaluate, 1000)
    assert mAP == cached(target, Flatten(), tmp_path / "other")[1].ranking.mAP
    for part in ("query", "gallery"):
        assert f"Features of {part} set are not cached" in log
    assert "not saved (File too large" in log and "MB are free" in log
    assert list(folder.iterdir()) == []


def test_an_interrupted_write_leaves_no_file(target, tmp_path, monkeypatch):
    def interrupted(content, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(cache.torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached(target, Flatten(), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_data_set_without_a_list_is_not_kept(target, tmp_path, caplog):
    model = Flatten()
    run = Evaluator(lambda batch: model(batch["img"]), cache=tmp_path / "cache", model=model)
    run.evaluate(*(list(loader) for loader in target.loaders))
    assert "query set are not cached" in caplog.text and not (tmp_path / "cache").exists()


def test_fingerprints(tmp_path):
    model, other = nn.Sequential(nn.ReLU()), nn.Sequential(nn.Sigmoid())
    assert model_fingerprint(model) == model_fingerprint(nn.Sequential(nn.ReLU()))
    assert model_fingerprint(model) != model_fingerprint(other)
    assert model_fingerprint(model) == model_fingerprint(model.eval())
    path = tmp_path / "map.png"
    path.write_bytes(b"1")
    before = files_fingerprint([path])
    assert files_fingerprint([path]) == before != files_fingerprint([path, path])
    path.write_bytes(b"12")
    assert files_fingerprint([path]) != before


@pytest.mark.parametrize("value", [2, 0.5, True, None, "nearest", (1, "a", (2.0,))])
def test_an_option_without_weights_is_another_model(value):
    models = [nn.Sequential(nn.ReLU()) for _ in range(3)]
    for model, option in zip(models, (value, value, "other"), strict=True):
        model[0].option = option
    first, same, other = map(model_fingerprint, models)
    assert first == same != other


def test_cache_settings_are_validated(tmp_path):
    def embed(batch):
        return batch["img"].flatten(1)

    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file: expected a folder .*test.cache"):
        Evaluator(embed, cache=tmp_path / "file", model=Flatten())
    with pytest.raises(ValueError, match="expected the model that `embed` calls, got None"):
        Evaluator(embed, cache=tmp_path / "cache")
    run = Evaluator(embed, cache=tmp_path / "cache", model=Flatten())
    assert dataclasses.replace(run, cache="").cache == ""
