"""Training runs that are killed or stopped resume with bitwise equal results."""

import random
import signal
import time

import pytest
from engines import names
from killed_runs import EPOCHS, Training, assert_same

from magnifier_plugin.engine.epoch_loop import SavingOptions


@pytest.fixture(scope="module")
def whole(market_folder, tmp_path_factory):
    """An undisturbed run."""
    training = Training(market_folder, tmp_path_factory.mktemp("whole"), eval_freq=2)
    training.finish()
    return training


def killed_at(training, step, delay=0.0):
    training.start()
    training.wait_for_step(step)
    time.sleep(delay)
    training.kill()


class TestKilled:
    @pytest.mark.parametrize(("step", "workers"), [(1, 0), (4, 2), (9, 0)])
    def test_the_same_weights_and_losses(self, whole, market_folder, tmp_path, step, workers):
        training = Training(market_folder, tmp_path, workers=workers, eval_freq=2)
        killed_at(training, step)
        training.finish()
        assert_same(training, whole)

    @pytest.mark.slow
    @pytest.mark.parametrize("point", range(10))
    def test_at_random_moments_twice(self, whole, market_folder, tmp_path, point):
        rng = random.Random(point)
        saving = SavingOptions(freq=rng.choice([1, 2]))
        training = Training(market_folder, tmp_path, workers=point % 3, saving=saving, eval_freq=2)
        for _ in range(2):
            killed_at(training, rng.randint(1, len(whole.steps())), rng.uniform(0, 0.1))
        training.finish()
        assert_same(training, whole)


class TestStopped:
    @pytest.mark.parametrize(
        ("number", "status", "step", "workers"),
        [(signal.SIGTERM, 143, 1, 0), (signal.SIGTERM, 143, 4, 2), (signal.SIGINT, 1, 7, 2)],
        ids=["TERM", "TERM-workers", "INT-workers"],
    )
    def test_nothing_is_repeated(
        self, whole, market_folder, tmp_path, number, status, step, workers
    ):
        training = Training(market_folder, tmp_path, workers=workers, eval_freq=2)
        training.start()
        training.wait_for_step(step)
        assert training.signal(number) == status
        epoch, batch, _ = whole.steps()[len(training.steps())]  # the step that comes next
        suffix = "" if batch == "0" else f"-batch-{batch}"
        assert f"model.pth.tar-{epoch}{suffix}" in names(tmp_path / "model")
        training.finish()
        assert len(training.steps()) == len(whole.steps())
        assert_same(training, whole)
        # A checkpoint inside an epoch is replaced by the next one.
        assert names(tmp_path / "model") == ["model-best.pth.tar", f"model.pth.tar-{EPOCHS}"]
