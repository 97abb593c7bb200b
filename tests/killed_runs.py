"""A training run in a separate process, which a test can stop at any moment.

The process is forked from the test's, so it starts quickly; it writes each step's number
and loss into a file, which shows the test how far it is.
"""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import torch
from engines import QUICK, make_engine
from tqdm import tqdm

from magnifier_plugin.engine.epoch_loop import SavingOptions
from magnifier_plugin.engine.rotation import newest_checkpoint
from magnifier_plugin.engine.stages import Stage

PATIENCE = 120.0  # seconds; on a busy machine a process can take long to start


def changing_stages():
    """Two stages of two and three epochs whose learning rate changes in each."""
    first = Stage(max_epoch=2, warmup_epoch=2, warmup_factor=0.1, **QUICK)
    second = {"lr_scheduler": "cosine", "loss_weights": {"sd": 0.1}}
    return [first, Stage(max_epoch=3, **second, **QUICK)]


EPOCHS = sum(stage.max_epoch for stage in changing_stages())


class Training:
    """One training run in a folder, in as many consecutive processes as it takes.

    Args:
        market: conftest's `market_folder`.
        folder: `save_dir`.
        workers: number of workers of each loader.
        saving: the engine's `saving`.
        prepare: changes the engine before its run.
        run: further arguments of the engine's `run`.
    """

    def __init__(self, market, folder, *, workers=0, saving=None, prepare=None, **run):
        self.market, self.folder, self.workers = market, Path(folder), workers
        self.saving, self.prepare, self.run_options = saving, prepare, run
        self.steps_file, self.end_file = self.folder / "steps", self.folder / "end"
        self.process = None

    def start(self):
        """Start a process that resumes from the newest checkpoint, if there is one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.steps_file.touch()
        self.process = multiprocessing.get_context("fork").Process(target=self._train)
        self.process.start()

    def _train(self):
        os.setsid()  # as a terminal's foreground job: signals can go to the workers too
        output = os.open(self.folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        torch.set_num_threads(1)
        # tqdm's own lock is shared by all processes; one that is killed while it holds it keeps it.
        tqdm.set_lock(threading.RLock())
        engine = self.build()
        if self.prepare:
            self.prepare(engine)
        path = newest_checkpoint(self.folder / "model")
        start = engine.resume(path) if path else 0
        step = engine.step

        def logged(data, *arguments, **options):
            losses = step(data, *arguments, **options)
            line = f"{engine.epoch} {engine.state.position.batch} {losses['loss'].item().hex()}\n"
            with self.steps_file.open("a") as file:
                file.write(line)
            return losses

        engine.forward_backward = lambda data: logged(
            data, engine.optimizer, engine.state.loss_weights
        )
        engine.run(save_dir=self.folder, start_epoch=start, **self.run_options)
        history = [{k: float(v).hex() for k, v in e.items()} for e in engine.history]
        torch.save({"weights": engine.model.state_dict(), "history": history}, self.end_file)

    def build(self):
        options = {"saving": self.saving or SavingOptions(), "workers": self.workers}
        return make_engine(self.market, changing_stages(), **options)

    def steps(self):
        """(epoch, batch, loss in hex) of each step, including those that were done twice."""
        lines = self.steps_file.read_text().splitlines() if self.steps_file.exists() else []
        return [tuple(line.split()) for line in lines]

    def wait_for_step(self, number):
        """Wait until `number` steps are done."""
        deadline = time.monotonic() + PATIENCE
        while len(self.steps()) < number and self.process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def kill(self):
        """Send SIGKILL to the training process only."""
        self.process.kill()
        self.wait()

    def signal(self, number):
        """Send a signal to the training process and its workers; returns the exit status."""
        os.killpg(self.process.pid, number)
        return self.wait()

    def wait(self):
        """Wait for the end; returns the exit status."""
        self.process.join(PATIENCE)
        if self.process.is_alive():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.join()
            raise AssertionError((self.folder / "output").read_text()[-2000:])
        return self.process.exitcode

    def finish(self):
        """Let a new process train to the end."""
        self.start()
        assert self.wait() == 0, (self.folder / "output").read_text()[-2000:]

    def end(self):
        return torch.load(self.end_file)


def assert_same(training, whole):
    """A run ends, and takes each of its steps, exactly like an undisturbed one."""
    end, expected = training.end(), whole.end()
    assert end["history"] == expected["history"]
    for key, value in expected["weights"].items():
        assert torch.equal(end["weights"][key], value), key
    assert set(training.steps()) == set(whole.steps())
