"""Two processes with gloo: equal to one wherever they should be mathematically."""

import signal

import pytest
import torch
import torchreid
from conftest import make_market
from engines import make_manager, names
from ranks import on_ranks
from tiny import tiny_model
from torch import nn
from torch.utils.data import DataLoader

from magnifier_plugin import build_model
from magnifier_plugin.data.seeding import SampleKey
from magnifier_plugin.engine import sharded_extraction
from magnifier_plugin.engine.distributed import ONE_PROCESS, GatheredBatch
from magnifier_plugin.engine.precision import Precision
from magnifier_plugin.engine.sharded_extraction import ShardedExtraction
from magnifier_plugin.engine.stages import Stage
from magnifier_plugin.engine.step import StepOptions, TrainingStep
from magnifier_plugin.engine.sync_batchnorm import convert_sync_batchnorm
from magnifier_plugin.losses.classification import ClassificationCriterion
from magnifier_plugin.losses.dsa import DSACriterion
from magnifier_plugin.losses.magnifier import MagnifierCriterion
from magnifier_plugin.losses.terms import CriterionOutput, Term
from magnifier_plugin.models import branches

pytestmark = pytest.mark.ddp
CPU = Precision(torch.device("cpu"), amp="off", channels_last="off")
SIZE = 8


def random_batch():
    """8 images of 4 identities; an unequal share of the label maps is unknown."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(0, 8, (SIZE, 32, 16), generator=generator, dtype=torch.uint8)
    labels[0] = 255
    labels[1, :20] = 3
    return {
        "img": torch.randn(SIZE, 3, 32, 16, generator=generator).double(),
        "pid": torch.arange(4).repeat_interleave(2),
        "mask": labels,
        "textures": torch.randn(SIZE, 24, 3, 8, 8, generator=generator).double(),
    }


def share(processes, batch):
    size = SIZE // processes.count
    rows = slice(processes.rank * size, (processes.rank + 1) * size)
    return {key: value[rows] for key, value in batch.items()}


def losses_and_gradients(processes, build, criterion, options):
    torch.manual_seed(1)
    model = build().double()  # a deep network's float32 gradients differ by more than 1e-5
    if processes.count > 1:
        model = convert_sync_batchnorm(model)
    criterion = criterion(**options, gathering=GatheredBatch(processes))
    inputs = model.training_inputs if hasattr(model, "training_inputs") else ()
    step = TrainingStep(model.train(), criterion, CPU, inputs, processes=processes)
    torch.manual_seed(2)
    total, losses, _ = step._losses(share(processes, random_batch()), {})
    total.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return losses, gradients, dict(model.named_buffers())


def dsa():
    return build_model("dsa_reid_resnet18", 4, pretrained=False, width=0.125)


def plain():
    layers = [nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    return Pair(nn.Sequential(*layers), nn.Linear(32, 4))


class Pair(nn.Module):
    """Returns logits and features, as torchreid's models for its triplet loss."""

    def __init__(self, features, classifier):
        super().__init__()
        self.features, self.classifier = features, classifier

    def forward(self, images):
        features = self.features(images)
        return self.classifier(features), features


@pytest.mark.parametrize(
    ("build", "criterion", "options"),
    [
        (lambda: tiny_model(4), MagnifierCriterion, {}),
        (
            lambda: tiny_model(4),
            MagnifierCriterion,
            {"share_weighted": True, "class_balanced_mask": False},
        ),
        (lambda: tiny_model(4), MagnifierCriterion, {"mask_weight": 0.0}),
        (plain, ClassificationCriterion, {"loss": "triplet"}),
        (dsa, DSACriterion, {}),
    ],
    ids=["magnifier", "authors", "without-mask-loss", "classification", "dsa"],
)
def test_losses_and_gradients_are_those_of_one_process(build, criterion, options):
    expected, gradients, buffers = losses_and_gradients(ONE_PROCESS, build, criterion, options)
    for found in on_ranks(losses_and_gradients, build, criterion, options):
        assert found[0].keys() == expected.keys()
        assert found[1].keys() == gradients.keys()
        for ours, theirs in zip(found, (expected, gradients, buffers), strict=True):
            for name, value in theirs.items():
                torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-8, msg=name)


# --- the engine ------------------------------------------------------------------------------

SGD = {"optim": "sgd", "momentum": 0.0}


def build_engine(processes, folder, stages=None, criterion=None, **options):
    """The engine of one process; a batch has 2 images of each of 4 identities."""
    torchreid.utils.set_random_seed(1)
    manager = make_manager(
        folder, batch_size_train=SIZE, num_replicas=processes.count, rank=processes.rank
    )
    return torchreid.engine.ImageMagnifierEngine(
        manager,
        tiny_model(manager.num_train_pids),
        criterion=criterion or MagnifierCriterion(gathering=GatheredBatch(processes)),
        stages=stages or [Stage(max_epoch=2, lr=0.01, optimizer_options=SGD)],
        amp="off",
        step_options=StepOptions(sync_bn=True, **options),
        processes=processes,
    )


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A data set of 8 identities for training and 3 for testing."""
    return make_market(tmp_path_factory.mktemp("people"), pids=range(2, 10), test_pids=(1, 11, 12))


def run(processes, folder, save_dir, resume=None, **options):
    """Losses of each epoch, results and weights of a run, and the regions kept by SAB."""
    engine = build_engine(processes, folder, **options)
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        draw = branches.draw_kept_regions
        patch.setattr(
            branches, "draw_kept_regions", lambda *a: (kept.append(draw(*a)), kept[-1])[1]
        )
        start = engine.resume(resume) if resume else 0
        engine.run(save_dir=save_dir, start_epoch=start, print_freq=1)
    losses = [entry["loss"] for entry in engine.history]
    return losses, engine.results, engine.model.state_dict(), torch.stack(kept).tolist()


def test_training_is_that_of_one_process(people, tmp_path):
    losses, _, weights, kept = run(ONE_PROCESS, people, tmp_path / "one")
    first, second = on_ranks(run, people, tmp_path / "two")
    assert first[0] == second[0] == pytest.approx(losses, rel=1e-4)
    assert first[3] == second[3] == kept  # SAB drops the same regions in every process
    assert first[1] == second[1]
    for name, value in weights.items():
        torch.testing.assert_close(first[2][name], value, rtol=1e-3, atol=1e-4)
        assert torch.equal(first[2][name], second[2][name]), name
    one, two = ([name[:9] for name in names(tmp_path / folder)] for folder in ("one", "two"))
    assert one == two  # one process writes
    saved = torch.load(tmp_path / "two" / "model" / "model.pth.tar-2", weights_only=True)
    assert len(saved["random"]) == 2


def test_resuming_is_exact(people, tmp_path):
    options = {"ema": 0.9, "accumulate": 2}
    whole = on_ranks(run_options, people, tmp_path / "whole", None, 2, options)
    on_ranks(run_options, people, tmp_path / "parts", None, 1, options)
    path = tmp_path / "parts" / "model" / "model.pth.tar-1"
    resumed = on_ranks(run_options, people, tmp_path / "parts", path, 2, options)
    for before, after in zip(whole, resumed, strict=True):
        assert before[:2] == after[:2]
        assert all(torch.equal(value, after[2][name]) for name, value in before[2].items())


def run_options(processes, folder, save_dir, resume, max_epoch, options):
    stages = [Stage(max_epoch=max_epoch, lr=0.01)]
    return run(processes, folder, save_dir, resume, stages=stages, **options)


def evaluate(processes, folder, save_dir):
    engine = build_engine(processes, folder)
    if processes.rank:
        engine.model.apply(spoil)  # running statistics are those of the first process
    engine.test(save_dir=save_dir, rerank=True, normalize_feature=True)
    return engine.results, engine.tester.queries


def extract(processes, cached):
    """How many images this process embedded, and whether embeddings count as cached."""
    images = [
        {"img": torch.full((3, 1, 1), float(n)), "pid": n, "camid": 0, "impath": str(n)}
        for n in range(5)
    ]
    embedded = []

    def embed(batch):
        embedded.extend(batch["img"][:, 0, 0, 0].tolist())
        return batch["img"][:, :, 0, 0]

    extraction = ShardedExtraction(processes)
    found, _ = extraction.extract(embed, DataLoader(images, batch_size=2), "")
    return embedded, found.features[:, 0].tolist(), extraction.agree(cached[processes.rank])


def test_workers_of_a_shared_extraction_start_as_those_of_the_loader():
    """They leave Ctrl-C to the parent."""
    loader = DataLoader(range(4), worker_init_fn=spoil)
    part = sharded_extraction._part_of(loader, range(2))
    assert part.worker_init_fn is spoil
    assert len(part) == 2


@pytest.mark.parametrize("cached", [(True, False), (False, True)])
def test_processes_share_the_extraction(cached):
    first, second = on_ranks(extract, cached)
    assert (first[0], second[0]) == ([0, 1], [2, 3, 4])
    assert first[1] == [0, 1, 2, 3, 4]
    assert first[2] == second[2] == cached[0]  # otherwise one would wait forever


def spoil(module):
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        nn.init.normal_(module.running_mean)


@pytest.mark.parametrize("count", [2, 4])
def test_the_evaluation_is_that_of_one_process(people, tmp_path, count):
    expected, queries = evaluate(ONE_PROCESS, people, tmp_path)
    found = on_ranks(evaluate, people, tmp_path, count=count)
    for results, _ in found:
        for kind in (lambda result: result, lambda result: result["reranked"]):
            ours, theirs = kind(results["market1501"]), kind(expected["market1501"])
            for name in ("mAP", "mINP", "rank-1", "rank-5"):
                assert ours[name] == pytest.approx(theirs[name], abs=1e-6), name
    own = found[0][1]["market1501"].average_precision
    assert own == pytest.approx(queries["market1501"].average_precision, abs=1e-6)
    assert found[1][1] == {}  # only the first process evaluates


class Nan:
    """A criterion whose loss or gradient is not finite in the second process for some batches."""

    weights = {"cls": 1.0}  # noqa: RUF012

    def __init__(self, processes, bad, bad_gradients):
        self.processes, self.calls = processes, 0
        self.bad, self.bad_gradients = bad, bad_gradients

    def __call__(self, outputs, pids, targets, weights):
        loss = outputs.branches["G"].feature.square().mean()
        if self.processes.rank == 1 and self.calls in self.bad:
            loss = loss * float("nan")
        elif self.processes.rank == 1 and self.calls in self.bad_gradients:
            loss = loss + (loss - loss.detach()).abs().sqrt()  # its derivative at 0
        self.calls += 1
        return CriterionOutput({"cls": Term(loss, 1.0)}, {"acc": torch.zeros(())})


def run_with_nan(processes, folder, save_dir, bad, bad_gradients=(), bad_statistics=()):
    engine = build_engine(
        processes,
        folder,
        criterion=Nan(processes, bad, bad_gradients),
        stages=[Stage(max_epoch=8, lr=0.01, optimizer_options=SGD)],
    )
    calls = []

    def overflow(norm, *_):
        calls.append(norm.training)
        if processes.rank == 1 and norm.training and sum(calls) - 1 in bad_statistics:
            norm.running_var.fill_(float("inf"))

    engine.model.mask_module.head.norm.register_forward_hook(overflow)
    try:
        engine.run(save_dir=save_dir)
        message = ""
    except FloatingPointError as error:
        message = str(error)
    return engine.step.skipped, message, engine.model.state_dict()


def test_a_batch_that_is_not_finite_in_one_process_is_skipped_in_all(people, tmp_path):
    first, second = on_ranks(run_with_nan, people, tmp_path / "some", (1, 2), (4,), (6,))
    assert first[:2] == second[:2] == (4, "")
    for name, value in first[2].items():
        assert torch.equal(value, second[2][name]), name
        assert value.isfinite().all()


def test_ten_in_a_row_end_all(people, tmp_path):
    ends = on_ranks(run_with_nan, people, tmp_path / "all", range(2, 99))
    assert [skipped for skipped, _, _ in ends] == [10, 10]
    assert all("skipped 10 batches in a row" in message for _, message, _ in ends)
    assert ends[0][1] != ends[1][1]  # each process names the images of its share


def run_and_stop(processes, folder, save_dir, batch):
    """A run whose second process gets a signal during a batch; batches are counted from 1."""
    engine = build_engine(processes, folder)
    forward, calls = engine.forward_backward, []

    def watched(data):
        calls.append(1)
        if processes.rank == 1 and len(calls) == batch:
            signal.raise_signal(signal.SIGTERM)
        return forward(data)

    engine.forward_backward = watched
    with pytest.raises(SystemExit) as stopped:
        engine.run(save_dir=save_dir)
    return stopped.value.code, len(calls), engine.state.epoch, engine.state.position.batch


# All processes learn of it in the next step.
@pytest.mark.parametrize(("batch", "name"), [(1, "0-batch-2"), (3, "1")])
def test_a_signal_in_one_process_stops_all_after_the_same_step(people, tmp_path, batch, name):
    first, second = on_ranks(run_and_stop, people, tmp_path, batch)
    assert first == second
    assert first[:2] == (143, batch + 1)
    assert names(tmp_path / "model") == [f"model.pth.tar-{name}"]
    path = tmp_path / "model" / f"model.pth.tar-{name}"
    resumed = on_ranks(run, people, tmp_path, path)
    whole = on_ranks(run, people, tmp_path / "whole")
    for before, after in zip(whole, resumed, strict=True):
        assert before[:2] == after[:2]
        assert all(torch.equal(value, after[2][key]) for key, value in before[2].items())


# --- the processes ---------------------------------------------------------------------------


def take_turns(processes, folder):
    with processes.in_turn():
        seen = names(folder)
        (folder / str(processes.rank)).touch()
    value = processes.from_first({"rank": processes.rank})
    return seen, value, processes.collect(processes.rank)


def test_the_first_prepares_and_the_others_wait(tmp_path):
    first, *others = on_ranks(take_turns, tmp_path, count=3)
    assert first[0] == []
    assert all("0" in seen for seen, _, _ in others)
    assert all(result[1:] == ({"rank": 0}, [0, 1, 2]) for result in (first, *others))


def draw_differently(processes):
    torch.manual_seed(processes.rank)
    processes.share_random_state()
    return torch.rand(3)


def test_generators_are_made_equal():
    first, second = on_ranks(draw_differently)
    assert torch.equal(first, second)


def frozen_then_open(processes):
    model = tiny_model(4)
    step = TrainingStep(model.train(), MagnifierCriterion(), CPU, ("mask",), processes=processes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch, norms = random_batch(), []
    batch["img"] = batch["img"].float()
    for opened in (False, True):
        model.backbone.requires_grad_(opened)
        step(
            share(processes, {**random_batch(), "img": random_batch()["img"].float()}),
            optimizer,
            {},
        )
        norms.append(model.backbone.conv1.weight.grad is not None)
    return norms, model.state_dict()


def test_layers_may_open_during_training():
    first, second = on_ranks(frozen_then_open)
    assert first[0] == second[0] == [False, True]
    parameters = [name for name, _ in tiny_model(4).named_parameters()]
    assert all(torch.equal(first[1][name], second[1][name]) for name in parameters)


def test_ranks_have_whole_identities(people):
    manager = make_manager(people, batch_size_train=SIZE, num_replicas=2, rank=1)
    keys = list(manager.train_loader.sampler)
    assert all(isinstance(key, SampleKey) for key in keys)
    pids = [manager.train_loader.dataset.train[key.image][1] for key in keys]
    assert pids[::2] == pids[1::2]
