"""The criterion of torchreid's own models against torchreid's losses."""

import pytest
import torch
import torchreid
from torch.nn import functional as F

from magnifier_plugin.losses.classification import ClassificationCriterion, accuracy
from magnifier_plugin.losses.functional import batch_hard_triplet

PIDS = torch.tensor([0, 0, 1, 2])


def smoothed(logits, smoothing=0.1):
    return F.cross_entropy(logits, PIDS, label_smoothing=smoothing)


class TestClassificationCriterion:
    def test_lists_are_averaged_as_torchreid_does(self):
        logits, features = [torch.randn(4, 3) for _ in range(2)], [torch.randn(4, 5)]
        criterion = ClassificationCriterion(loss="triplet", weight_x=0.7, weight_t=0.2)
        result = criterion((logits, features), PIDS)
        smooth = torchreid.losses.CrossEntropyLoss(num_classes=3, use_gpu=False)
        expected = 0.7 * torchreid.losses.DeepSupervision(smooth, logits, PIDS)
        triplet = torchreid.losses.TripletLoss(margin=0.3)
        expected = expected + 0.2 * torchreid.losses.DeepSupervision(triplet, features, PIDS)
        torch.testing.assert_close(result.total, expected)

    def test_softmax_takes_only_logits(self):
        logits = torch.randn(4, 3)
        result = ClassificationCriterion(loss="softmax", weight_x=0.0)(logits, PIDS)
        torch.testing.assert_close(result.total, smoothed(logits))
        assert set(result.terms) == {"cls"}

    def test_label_smoothing_and_margin(self):
        logits, features = torch.randn(4, 3), torch.randn(4, 5)
        criterion = ClassificationCriterion(loss="triplet", label_smoothing=0.3, margin=9.0)
        expected = {"cls": smoothed(logits, 0.3), "tri": batch_hard_triplet(features, PIDS, 9.0)}
        result = criterion((logits, features), PIDS)
        assert {name: term.loss for name, term in result.terms.items()} == expected

    def test_weights_by_name(self):
        outputs = (torch.randn(4, 3), torch.randn(4, 5))
        criterion = ClassificationCriterion(loss="triplet", weight_x=0.0)
        assert set(criterion(outputs, PIDS).terms) == {"tri"}
        assert set(criterion(outputs, PIDS, None, {"cls": 2.0, "tri": 0.0}).terms) == {"cls"}
        with pytest.raises(ValueError, match="among cls; got tri"):
            ClassificationCriterion(loss="softmax")(outputs[0], PIDS, None, {"tri": 1.0})

    def test_unknown_loss(self):
        with pytest.raises(ValueError, match="softmax or triplet, got 'center'"):
            ClassificationCriterion(loss="center")


def test_accuracy_is_in_percent():
    logits = torch.eye(4)[[0, 1, 2, 0]]
    assert float(accuracy(logits, torch.arange(4))) == 75
