"""The Evaluator: two loaders → metrics, against the same steps by hand and torchreid's."""

import weakref

import numpy as np
import pytest
import torch
import torchreid
from loaders import Target
from torch import nn

from magnifier_plugin.evaluation import evaluator
from magnifier_plugin.evaluation.distances import distance_matrix
from magnifier_plugin.evaluation.embeddings import mirrored_batch
from magnifier_plugin.evaluation.evaluator import Evaluator, Reranking, reranked_distances
from magnifier_plugin.evaluation.ranking import evaluate_cuhk03, evaluate_ranking
from magnifier_plugin.evaluation.rerank import rerank

RERANKING = Reranking(k1=6, k2=3)


@pytest.fixture
def target(tmp_path):
    return Target(tmp_path)


def embed_images(batch):
    return batch["img"].flatten(1)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_equals_torchreids_functions(target, metric, normalize):
    features = target.tensors
    if normalize:
        features = [nn.functional.normalize(part) for part in features]
    pairs = (0, 1), (0, 0), (1, 1)
    compute, rank = torchreid.metrics.compute_distance_matrix, torchreid.metrics.evaluate_rank
    given = [compute(features[i], features[j], metric).numpy() for i, j in pairs]
    expected = torchreid.utils.re_ranking(*given, k1=6, k2=3)

    run = Evaluator(embed_images, rerank=RERANKING)
    result = run.evaluate(*target.loaders, metric=metric, normalize=normalize)
    np.testing.assert_allclose(result.distmat, expected, atol=1e-5)
    for ranking, distmat in ((result.ranking, given[0]), (result.reranked, expected)):
        cmc, mean_ap = rank(distmat, *target.ids, max_rank=20, use_cython=False)
        np.testing.assert_allclose(ranking.cmc[:20], cmc, atol=1e-6)
        assert ranking.mAP == pytest.approx(mean_ap, abs=1e-6)
        assert ranking.mAP == pytest.approx(np.nanmean(ranking.average_precision))
    torch.testing.assert_close(result.query.features, features[0])
    torch.testing.assert_close(result.gallery.features, features[1])
    np.testing.assert_array_equal(result.gallery.camids, target.ids[3])


def test_without_reranking(target):
    result = Evaluator(embed_images).evaluate(*target.loaders, ranks=(1, 60))
    assert result.reranked is None
    torch.testing.assert_close(result.distmat, distance_matrix(*target.tensors))
    assert len(result.ranking.cmc) == 60
    assert len(Evaluator(embed_images).evaluate(*target.loaders).ranking.cmc) == 50


def test_cuhk03s_metric(target):
    result = Evaluator(embed_images, rerank=RERANKING).evaluate(*target.loaders, cuhk03=True)
    for ranking, distmat in (
        (result.ranking, distance_matrix(*target.tensors)),
        (result.reranked, rerank(*target.tensors, k1=6, k2=3)),
    ):
        np.testing.assert_array_equal(ranking.cmc, evaluate_cuhk03(distmat, *target.ids).cmc)
        assert (ranking.cmc != evaluate_ranking(distmat, *target.ids).cmc).any()


def test_form_and_lambda_reach_the_reranking(target):
    settings = Reranking(k1=5, k2=2, lambda_value=0.9, form="paper")
    result = Evaluator(embed_images, rerank=settings).evaluate(*target.loaders)
    expected = rerank(*target.tensors, 5, 2, 0.9, form="paper")
    torch.testing.assert_close(result.distmat, expected, rtol=0, atol=0)


def test_the_plain_distances_are_freed_before_reranking(target, monkeypatch):
    plain = []

    def remember(*args):
        distmat = distance_matrix(*args)
        plain.append(weakref.ref(distmat))
        return distmat

    def check(*args, **options):
        assert plain[0]() is None
        return rerank(*args, **options)

    monkeypatch.setattr(evaluator, "distance_matrix", remember)
    monkeypatch.setattr(evaluator, "rerank", check)
    Evaluator(embed_images, rerank=RERANKING).evaluate(*target.loaders)
    assert len(plain) == 1


def test_the_log(target, caplog):
    caplog.set_level("INFO", "magnifier_plugin")
    result = Evaluator(embed_images, rerank=Reranking(k1=60)).evaluate(*target.loaders, ranks=(1,))
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "Extracting features from query set ..."
    assert lines[1].startswith("Done, obtained 12-by-24 matrix, ") and lines[1].endswith(" s/batch")
    assert lines[2] == "Extracting features from gallery set ..."
    assert lines[3].startswith("Done, obtained 40-by-24 matrix, ")
    assert lines[4].startswith(f"** Results **\nmAP: {result.ranking.mAP:.1%}\n")
    assert lines[5] == "Re-ranking with k1 51, not 60: query and gallery have only 52 images"
    assert lines[6].startswith(f"** Results with re-ranking **\nmAP: {result.reranked.mAP:.1%}\n")
    assert len(lines) == 7


def test_embeddings_are_computed_without_gradients_and_kept_in_float32(target):
    weight = torch.ones(1, requires_grad=True)
    run = Evaluator(lambda batch: (embed_images(batch) * weight).bfloat16())
    query = run.evaluate(*target.loaders).query.features
    assert query.dtype == torch.float32 and not query.requires_grad


class TestFlip:
    def test_is_the_mean_of_the_batch_and_its_mirror_image(self, target):
        result = Evaluator(embed_images, flip=True).evaluate(*target.loaders)
        images = target.sets[0].pictures
        expected = (images.flatten(1) + images.flip(3).flatten(1)) / 2
        torch.testing.assert_close(result.query.features, expected)

    def test_further_inputs_are_the_mirrored_ones_of_the_data_set(self):
        batch = {"img": torch.arange(4.0).reshape(1, 1, 1, 4), "textures": 1, "pid": torch.ones(1)}
        given = batch | {"mirrored": {"textures": 2}}
        mirrored = mirrored_batch(given)
        assert mirrored["img"].flatten().tolist() == [3, 2, 1, 0]
        assert mirrored["textures"] == 2 and mirrored["pid"] is batch["pid"]
        assert given["textures"] == 1  # the batch itself is unchanged
        assert mirrored_batch(batch)["textures"] == 1
        run = Evaluator(lambda batch: torch.tensor([[float(batch["textures"])]]), flip=True)
        assert run.embed_batch(given).item() == 1.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"k1": 0}, "at least 1, .* got test.rerank_k1 0"),
        ({"k1": 2.5}, "integers .* got test.rerank_k1 2.5"),
        ({"k2": 0}, "at least 1, .*test.rerank_k2 0"),
        ({"lambda_value": 1.5}, "0..1, .*test.rerank_lambda 1.5"),
        ({"lambda_value": float("nan")}, "0..1, .*test.rerank_lambda nan"),
        ({"form": "zhong"}, "expected form to be one of .*'paper'.*got 'zhong'"),
    ],
)
def test_reranking_settings_are_validated(values, message):
    with pytest.raises(ValueError, match=message):
        Reranking(**values)
    assert Reranking() == Reranking(k1=20, k2=6, lambda_value=0.3, form="torchreid")
    for bound in (0, 1):
        assert Reranking(k1=1, k2=1, lambda_value=bound).lambda_value == bound


@pytest.mark.parametrize(
    ("embed", "message"),
    [
        (lambda batch: batch["img"], r"expected embeddings \[8, D\].* got \[8, 3, 2, 4\]"),
        (lambda batch: embed_images(batch)[:1], r"expected embeddings \[8, D\].* got \[1, 24\]"),
        (lambda batch: embed_images(batch) * torch.nan, "query features: NaN or infinity in 12"),
    ],
)
def test_bad_embeddings(target, embed, message):
    with pytest.raises(ValueError, match=message):
        Evaluator(embed).evaluate(*target.loaders)


def test_bad_loader_and_metric(target):
    run = Evaluator(embed_images)
    with pytest.raises(ValueError, match="gallery: expected at least one batch"):
        run.evaluate(target.loaders[0], [])
    with pytest.raises(ValueError, match="metric: expected"):
        run.evaluate(*target.loaders, metric="l1")


def test_few_images_get_fewer_neighbours():
    query, gallery = torch.eye(5)[:2], torch.eye(5)[2:]
    got = reranked_distances(query, gallery, "euclidean", Reranking())
    torch.testing.assert_close(got, rerank(query, gallery, k1=4, k2=5))
