"""Training in stages with torchreid's engine interface; one engine for all systems."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torchreid
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.tensorboard import SummaryWriter

from magnifier_plugin.data.inputs import declare_inputs, declared_keys
from magnifier_plugin.engine.distributed import ONE_PROCESS, Processes, check_shares
from magnifier_plugin.engine.epoch_log import EpochLog
from magnifier_plugin.engine.epoch_loop import EpochLoop, Results, SavingOptions, stoppable
from magnifier_plugin.engine.folder_lock import locked_folder
from magnifier_plugin.engine.log import show_log
from magnifier_plugin.engine.precision import Precision
from magnifier_plugin.engine.random_states import unchanged_random_states
from magnifier_plugin.engine.rotation import Checkpoints
from magnifier_plugin.engine.signals import StopSignals
from magnifier_plugin.engine.stages import Stage
from magnifier_plugin.engine.state import TrainingState
from magnifier_plugin.engine.step import StepOptions, TrainingStep
from magnifier_plugin.engine.tensorboard import open_writer, write_test
from magnifier_plugin.engine.testing import Tester, TestOptions
from magnifier_plugin.engine.wrapping import refuse_wrapped
from magnifier_plugin.losses.terms import Criterion

logger = logging.getLogger(__name__)


class StagedEngine(torchreid.engine.Engine):
    """Trains a model stage by stage and tests it, with torchreid's arguments and log.

    A model declares the batch inputs that it needs in addition to the image (`training_inputs`,
    `test_inputs`); the engine passes these to the data sets. `registry.py` derives one engine per
    system from this class, with the system's criterion and stages as defaults.

    Args:
        datamanager: ours, or torchreid's with `_masked` sources.
        model: the network itself, not wrapped.
        optimizer: the caller's own, for a run without stages; None with stages.
        scheduler: the optimizer's scheduler, stepped once per epoch.
        criterion: see `losses.terms.Criterion`.
        stages: the stages of the run; None with an optimizer.
        loss_weights: weights of loss terms, used with the caller's own optimizer.
        use_gpu: use a GPU if there is one.
        amp, channels_last: see `Precision`.
        saving, step_options, test_options: see `SavingOptions`, `StepOptions`, `TestOptions`.
        record: entries for checkpoints and `results.json`, such as configuration and seed.
        processes: the processes of this run, see `distributed`.
    Raises:
        ValueError: the model is wrapped, the data manager is for other processes, a stage is
            invalid, or not exactly one of optimizer and stages is given.
    """

    optimizer: Any
    writer: SummaryWriter | None

    def __init__(
        self,
        datamanager: Any,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        scheduler: LRScheduler | None = None,
        *,
        criterion: Criterion,
        stages: Sequence[Stage] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        saving: SavingOptions | None = None,
        use_gpu: bool = True,
        amp: str = "auto",
        channels_last: str = "auto",
        step_options: StepOptions | None = None,
        test_options: TestOptions | None = None,
        record: Mapping[str, Any] | None = None,
        processes: Processes = ONE_PROCESS,
    ) -> None:
        refuse_wrapped(model)
        check_shares(datamanager.train_loader, processes)
        super().__init__(datamanager, use_gpu)
        device = processes.device(self.use_gpu)
        self.precision = Precision(device, amp=amp, channels_last=channels_last)
        logger.info("Device: %s; %s", self.precision.device_name, self.precision)
        self.model = self.precision.place(model)
        self.saving = saving or SavingOptions()
        needed = (criterion, self.precision, declared_keys(model, "training_inputs"))
        self.step = TrainingStep(self.model, *needed, step_options, processes)
        self.state = TrainingState(self.step, stages, optimizer, scheduler, loss_weights)
        record = dict(record or {})
        self.tester = Tester(datamanager, self.step, test_options or TestOptions(), record)
        self.checkpoints = Checkpoints(Path("log/model"), record, self.saving.keep_freq)
        self.signals = StopSignals(shared=processes.count > 1)
        self._register()

    @property
    def history(self) -> list[dict[str, Any]]:
        """One entry per trained epoch: epoch, stage, lr, each loss term and metric, mAP."""
        return self.state.history

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """Target → results of the last test."""
        return self.tester.results

    def resume(self, path: str | Path) -> int:
        """Load a checkpoint of this engine to resume from; returns the start epoch for `run`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not a checkpoint of this engine, this model and this number of identities.
        """
        path, epoch, content = self.state.read(path)
        self.checkpoints.resume_from(path, content)
        return epoch

    def run(
        self,
        save_dir: str | Path = "log",
        max_epoch: int | None = None,
        start_epoch: int = 0,
        print_freq: int = 10,
        fixbase_epoch: int = 0,
        open_layers: Sequence[str] | None = None,
        start_eval: int = 0,
        eval_freq: int = -1,
        test_only: bool = False,
        **testing: Any,
    ) -> None:
        """Train or test, with the arguments of torchreid's `run`.

        Args:
            save_dir: the folder of checkpoints, TensorBoard and `results.json`.
            max_epoch: number of epochs; None for all epochs of the stages.
            start_epoch: first epoch, from 0; `resume` returns it. If it follows the last trained
                epoch, the run continues; otherwise a new run starts from the current weights.
            testing: torchreid's arguments of `test`: dist_metric, normalize_feature, visrank,
                visrank_topk, use_metric_cuhk03, ranks, rerank. `rerank` also applies to the last
                test of the run.
        Raises:
            ValueError: max_epoch is missing or more than the stages have, visrank in training, a
                data set cannot make a declared input, or a new run has a used scheduler.
            FloatingPointError: ten batches in a row had losses, gradients or running statistics
                that are not finite.
            FolderInUse: another run writes into save_dir.
            OSError: the last checkpoint or the results could not be written.
            KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM; `resume` continues from there.
        """
        show_log(self.step.processes)
        self.checkpoints.folder = Path(save_dir) / "model"
        if not test_only:
            self.max_epoch = self.state.check_epochs(max_epoch)
            if start_epoch >= self.max_epoch and not self.state.test_due:
                logger.info("All %d epochs are trained already; testing only", self.max_epoch)
                test_only = True
        lock = locked_folder(save_dir) if self.step.processes.is_first else nullcontext()
        with lock, self.step.threads.restored():
            if test_only:
                self.test(save_dir=save_dir, **testing)
                return
            if testing.get("visrank"):
                raise ValueError("visrank: expected test_only=True; it is not for training")
            declare_inputs(self.train_loader.dataset, self.step.inputs)
            self.tester.declare_inputs()
            loop = EpochLoop(
                *(self.state, self.checkpoints, self.saving, self.signals),
                max_epoch=self.max_epoch,
                eval_freq=eval_freq,
                start_eval=start_eval,
            )
            loop.begin(start_epoch)
            self._register()
            step = start_epoch * len(self.train_loader) + self.state.position.batch
            if self.step.processes.is_first:
                self.writer = open_writer(self.writer, save_dir, step)
            train = partial(self.train, print_freq, fixbase_epoch, open_layers)
            test = partial(self._test, save_dir=save_dir, **testing)
            loop.run(train, test, lambda: self.tester.pictures.draw())
            if self.writer is not None:
                self.writer.close()
            self.tester.raise_failure()

    def train(
        self, print_freq: int = 10, fixbase_epoch: int = 0, open_layers: Sequence[str] | None = None
    ) -> None:
        """Train the rest of the current epoch (torchreid's hook).

        When it returns, signals are still held, until the epoch has been saved.
        """
        self.signals.hold()
        self.epoch = self.state.epoch
        if self.state.enter(self.epoch):
            self._register()
        if not self.state.position.batch:
            self.step.processes.share_random_state()
        self.set_model_mode("train")
        self.two_stepped_transfer_learning(self.epoch, fixbase_epoch, open_layers)
        position = self.state.position
        log = EpochLog(
            *(position.batches(self.datamanager, self.epoch), len(self.train_loader)),
            epoch=self.epoch + 1,
            max_epoch=self.max_epoch,
            print_freq=print_freq,
            writer=self.writer,
            position=position,
        )
        for batch in stoppable(log, self.signals, self.step):
            log.update(self.forward_backward(batch), self.get_current_lr())
        self.signals.hold()  # torchreid's identity sampler may end before `log.is_complete`
        self.step.finish(self.optimizer)
        log.finish(self.get_current_lr())
        self.state.finish_epoch({"lr": self.get_current_lr(), **log.means()})
        self.update_lr()

    def forward_backward(self, data: Mapping[str, Any]) -> dict[str, Tensor]:
        """Train with one batch (torchreid's hook); returns "loss", all terms and all metrics."""
        return self.step(data, self.optimizer, self.state.loss_weights)

    def extract_features(self, input: Tensor) -> Tensor:
        """Images [B, 3, H, W] → raw embeddings float [B, D] (torchreid's hook)."""
        return self.tester.embed({"img": input})

    def test(self, **options: Any) -> float:
        """torchreid's `test`, with its arguments; like it, returns the last target's rank-1."""
        show_log(self.step.processes)
        self.tester.declare_inputs()
        results = self._test(**options)
        self.tester.pictures.draw()
        self.tester.raise_failure()
        return float(list(results.values())[-1]["rank-1"])

    def _test(self, **options: Any) -> Results:
        # Loaders draw a seed; how often a run tests must not change the training.
        with unchanged_random_states(), self.step.tested_weights():
            self.step.processes.copy_buffers(self.model)
            self.tester.test(epoch=self.state.epoch or None, **options)
        self.tester.results = self.step.processes.from_first(self.results)
        if self.writer is not None:
            write_test(self.writer, self.results, self.state.epoch - 1)
        return self.results

    def _register(self) -> None:
        """Register the optimiser for torchreid's hooks."""
        self.optimizer, self.scheduler = self.state.optimizer, self.state.scheduler
        self.register_model("model", self.model, self.optimizer, self.scheduler)
