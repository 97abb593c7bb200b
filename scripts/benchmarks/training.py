"""The cost of a training step, compared with a plain ResNet-50 at the same batch and precision.

"resnet50 (plain)" is torchvision's network with stride 1 in layer4, average pooling, one classifier
and cross entropy, trained by a plain loop. The others are this package's networks with their
criteria, trained by the engine's own step. Images and other inputs are random. In every round, each
network does one step in turn, so that other programs disturb all networks alike; the median counts.
Multiply-adds are half of the operations that torch's FlopCounterMode counts in a training forward
pass. Peak memory is that of a process that does two training steps; on a GPU, it is the memory that
torch allocated there.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import GIB, in_own_process, machine, markdown
from magnifier_plugin.engine.precision import Precision
from magnifier_plugin.engine.step import StepOptions, TrainingStep
from magnifier_plugin.losses.dsa import DSACriterion
from magnifier_plugin.losses.magnifier import MagnifierCriterion
from magnifier_plugin.models.backbone import Backbone
from magnifier_plugin.models.build import NAMES, build_model
from magnifier_plugin.regions import NUM_PARTS, NUM_REGIONS

IDENTITIES = 751  # Market-1501's
PLAIN = "resnet50 (plain)"
_INSTANCES = 4  # images per identity
_WARM_UP = 2  # rounds that are not timed


class Setting(NamedTuple):
    """What one row measures; can be pickled for another process."""

    network: str
    height: int
    width: int
    batch: int
    amp: str
    channels_last: str
    compile: bool
    device: str


class PlainResNet(nn.Module):
    """ResNet-50 for classification, stride 1 in layer4."""

    def __init__(self, name: str = "resnet50") -> None:
        super().__init__()
        self.backbone = Backbone(name)
        self.classifier = nn.Linear(self.backbone.layer4_channels, IDENTITIES)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.backbone(images)[1].mean(dim=(2, 3)))
        return logits


class Trained(NamedTuple):
    """A network to train and test on one batch."""

    step: Callable[[], Any]
    """Does one training step."""
    forward: Callable[[], Any]
    """Does one forward pass in evaluation mode."""
    multiply_adds: int
    """Multiply-adds for one image in a training forward pass."""


def run(args: argparse.Namespace) -> None:
    """Print a table for each precision and memory format."""
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no GPU was found; leave --device out to measure the CPU")
    torch.set_num_threads(args.threads or torch.get_num_threads())
    for amp in args.amp:
        for channels_last in args.channels_last:
            settings = [
                Setting(
                    network=name,
                    height=args.size[0],
                    width=args.size[1],
                    batch=args.batch,
                    amp=amp,
                    channels_last=channels_last,
                    compile=args.compile,
                    device=args.device,
                )
                for name in (PLAIN, *args.models)
            ]
            print_table(settings, args.rounds, memory=not args.no_memory)
    print(f"{machine(args.device)}")


def print_table(settings: Sequence[Setting], rounds: int, *, memory: bool) -> None:
    """Measure settings that differ only in the network, and print their table."""
    first = settings[0]
    torch.manual_seed(0)
    trained = [start(setting) for setting in settings]
    steps = measure([one.step for one in trained], rounds, first.device)
    forwards = measure([one.forward for one in trained], rounds, first.device)
    precision = Precision(
        torch.device(first.device), amp=first.amp, channels_last=first.channels_last
    )
    compiled = ", compiled" if first.compile else ""
    print(f"{first.height} × {first.width}, batch {first.batch}, {precision}{compiled}\n")
    header = ["", "step, s", "ratio", "images/s", "test, images/s", "multiply-adds, G", "ratio"]
    header += ["peak memory, GiB"] if memory else []
    rows = []
    for setting, one, step, forward in zip(settings, trained, steps, forwards, strict=True):
        cells = [setting.network, f"{step:.3f}", f"{step / steps[0]:.2f} ×"]
        cells += [f"{setting.batch / step:.1f}", f"{setting.batch / forward:.1f}"]
        work = one.multiply_adds / trained[0].multiply_adds
        cells += [f"{one.multiply_adds / 1e9:.2f}", f"{work:.2f} ×"]
        if memory:
            held = in_own_process(two_steps, setting)
            cells.append(f"{held.result or held.peak:.2f}")
        rows.append(cells)
    print(f"{markdown(header, rows)}\n")


def measure(functions: Sequence[Callable[[], Any]], rounds: int, device: str) -> list[float]:
    """The median seconds of each function; the functions take turns."""
    seconds: list[list[float]] = [[] for _ in functions]
    for number in range(rounds + _WARM_UP):
        for one, function in zip(seconds, functions, strict=True):
            start_of_step = time.perf_counter()
            function()
            if torch.device(device).type == "cuda":
                torch.cuda.synchronize(device)
            if number >= _WARM_UP:
                one.append(time.perf_counter() - start_of_step)
    return [statistics.median(one) for one in seconds]


def start(setting: Setting) -> Trained:
    """A network and its batch, ready for the first step.

    Raises:
        ValueError: this package has no network of that name, or the batch is not a multiple of 4.
    """
    if setting.batch % _INSTANCES:
        raise ValueError(f"--batch: expected a multiple of {_INSTANCES}, got {setting.batch}")
    device = torch.device(setting.device)
    precision = Precision(device, amp=setting.amp, channels_last=setting.channels_last)
    batch = random_batch(setting)
    if setting.network == PLAIN:
        return start_plain(setting, precision, batch)
    if setting.network not in NAMES:
        raise ValueError(
            f"--models: unknown {setting.network!r}, expected some of {', '.join(NAMES)}"
        )
    name, is_dsa = setting.network, setting.network.startswith("dsa_reid")
    model = precision.place(
        build_model(name, IDENTITIES, "dsa" if is_dsa else "magnifier", pretrained=False)
    )
    criterion = DSACriterion() if is_dsa else MagnifierCriterion()
    key = "textures" if is_dsa else "mask"
    options = StepOptions(compile=setting.compile)
    step = TrainingStep(model, criterion, precision, (key,), options)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    images = precision.images(batch["img"])
    targets = precision.targets({key: batch[key]})
    work = count(lambda: model(images, **targets), setting.batch)

    def train() -> None:
        model.train()
        step(batch, optimizer, {})

    return Trained(train, evaluation_pass(model, images, precision), work)


def start_plain(setting: Setting, precision: Precision, batch: dict[str, Tensor]) -> Trained:
    """The plain ResNet-50 and its training loop, ready for the first step."""
    model = precision.place(PlainResNet())
    network: Any = torch.compile(model) if setting.compile else model
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    pids = batch["pid"].to(precision.device)

    def train() -> None:
        model.train()
        images = precision.images(batch["img"])
        with precision.autocast():
            logits = network(images)
        loss = F.cross_entropy(logits.float(), pids)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    images = precision.images(batch["img"])
    work = count(lambda: model(images), setting.batch)
    return Trained(train, evaluation_pass(model, images, precision), work)


def evaluation_pass(model: nn.Module, images: Tensor, precision: Precision) -> Callable[[], Tensor]:
    """A function that does a forward pass in evaluation mode."""

    def forward() -> Tensor:
        model.eval()
        with torch.inference_mode(), precision.autocast():
            result: Tensor = model(images)
        return result

    return forward


def count(forward: Callable[[], Any], batch: int) -> int:
    """Multiply-adds for one image of a batch."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward()
    return int(counter.get_total_flops() // (2 * batch))


def random_batch(setting: Setting) -> dict[str, Tensor]:
    """Random images, identities, label maps and textures whose shapes fit together."""
    generator = torch.Generator().manual_seed(0)
    batch, height, width = setting.batch, setting.height, setting.width
    coarse = torch.randint(NUM_REGIONS, (batch, 1, 8, 4), generator=generator).float()
    mask = F.interpolate(coarse, (height, width), mode="nearest-exact").squeeze(1)
    found = {
        "img": torch.rand(batch, 3, height, width, generator=generator),
        "pid": torch.arange(batch) // _INSTANCES,
        "mask": mask.to(torch.uint8),
    }
    if setting.network.startswith("dsa_reid"):
        shape = (batch, NUM_PARTS, 3, 32, 32)
        found["textures"] = torch.rand(shape, generator=generator)
    return found


def two_steps(setting: Setting) -> float:
    """Do two training steps; return the GiB that torch allocated on a GPU, 0 on a CPU."""
    on_gpu = torch.device(setting.device).type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(setting.device)
    trained = start(setting)
    for _ in range(2):
        trained.step()
    return torch.cuda.max_memory_allocated(setting.device) / GIB if on_gpu else 0.0
