"""The cost of an embedding: parameters, multiply-adds, dimensions, images per second.

Multiply-adds are half of the operations that torch's FlopCounterMode counts on the exported graph,
which has no training-only layers. In each round, every network runs once in torch and once in
onnxruntime, in float32, one after the other; the fastest round counts. If there is a GPU, its
images per second and memory are measured too.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import GIB, machine, markdown
from magnifier_plugin.export import check_packages, export_onnx
from magnifier_plugin.models.build import NAMES, build_model
from magnifier_plugin.workers import cores

IDENTITIES = 751  # Market-1501's number of training identities, for the parameters in training
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TORCH, ONNX = "torch", "onnxruntime"
Size = tuple[int, int]


class Facts(NamedTuple):
    """Numbers that do not depend on the machine."""

    training: int
    """Parameters of the network in training."""
    inference: int
    """Parameters of the exported graph."""
    multiply_adds: int
    """Multiply-adds for one image."""
    embedding: int
    """Number of dimensions of the embedding."""


def run(args: argparse.Namespace) -> None:
    """Print a row for each network and image size."""
    torch.set_num_threads(1 if args.cpu_time else args.threads or cores())
    gpu = torch.cuda.is_available() and not args.facts
    backends = () if args.facts else (TORCH, ONNX) if has_onnx() else (TORCH,)
    header = ["network", "image", "parameters, M", "in training, M", "multiply-adds, G", "D"]
    header += [f"{backend}, images/s" for backend in backends]
    header += ["ratio"] if ONNX in backends else []
    header += ["GPU, images/s", "GPU memory, GiB"] if gpu else []
    rows = []
    for size in args.sizes:
        networks = {name: build(name) for name in args.models}
        speeds = measure(networks, size, backends, args)
        for name, network in networks.items():
            facts = count(network, size)
            cells = [name, " × ".join(map(str, size))]
            cells += [f"{number / 1e6:.1f}" for number in (facts.inference, facts.training)]
            cells += [f"{facts.multiply_adds / 1e9:.2f}", f"{facts.embedding:,}"]
            cells += [f"{speeds[name, backend]:.1f}" for backend in backends]
            if ONNX in backends:
                cells.append(f"{speeds[name, ONNX] / speeds[name, TORCH]:.2f} ×")
            rows.append(cells + (on_gpu(network, size, args) if gpu else []))
    print(markdown(header, rows))
    if backends:
        clock = "second of CPU time" if args.cpu_time else "second"
        print(f"\nBatches of {args.batch}, float32, images per {clock}; {machine('cpu')}")
    if gpu:
        print(f"\nGPU: batches of {args.gpu_batch}, float32; {machine('cuda')}")


def has_onnx() -> bool:
    """Whether onnxruntime can be measured too; if not, print what to install."""
    try:
        check_packages()
    except ModuleNotFoundError as error:
        print(f"{ONNX} is skipped: {error}", file=sys.stderr)
        return False
    return True


def build(name: str) -> nn.Module:
    """A network of this package or of torchreid with its training layers, in evaluation mode.

    Raises:
        ValueError: there is no model of that name.
    """
    import torchreid  # after this package, which suppresses one of its warnings

    if name in NAMES:
        return build_model(name, IDENTITIES, pretrained=False).eval()
    known = vars(torchreid.models)["__model_factory"]
    if name not in known:
        raise ValueError(f"--models: unknown {name!r}, expected some of {', '.join(known)}")
    return torchreid.models.build_model(name, IDENTITIES, pretrained=False).eval()


def count(network: nn.Module, size: Size) -> Facts:
    """Parameters, multiply-adds and embedding dimensions of a network at an image size."""
    graph: Any
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch warns about its own recurrent layers
        graph = torch.export.export(network, (torch.zeros(1, 3, *size),), strict=False).module()
    graph.graph.eliminate_dead_code()
    graph.recompile()
    used = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        embedding = graph(torch.zeros(1, 3, *size))
    return Facts(
        training=sum(p.numel() for p in network.parameters()),
        inference=sum(p.numel() for name, p in graph.named_parameters() if name in used),
        multiply_adds=counter.get_total_flops() // 2,
        embedding=embedding.shape[1],
    )


def measure(
    networks: dict[str, nn.Module], size: Size, backends: tuple[str, ...], args: argparse.Namespace
) -> dict[tuple[str, str], float]:
    """(network, backend) → images per second on the CPU."""
    images = torch.rand(args.batch, 3, *size)
    clock = time.process_time if args.cpu_time else time.perf_counter
    functions: dict[tuple[str, str], Callable[[Tensor], object]] = {}
    for name, network in networks.items():
        for backend in backends:
            functions[name, backend] = (
                network if backend == TORCH else in_onnxruntime(network, size)
            )
    quickest = dict.fromkeys(functions, float("inf"))
    for _ in range(1 + args.rounds):  # the first one warms up
        for key, function in functions.items():
            quickest[key] = min(quickest[key], seconds(function, images, clock))
    return {key: args.batch / time for key, time in quickest.items()}


def in_onnxruntime(network: nn.Module, size: Size) -> Callable[[Tensor], object]:
    """A function that runs the exported network in onnxruntime, with as many threads as torch."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        agreement = export_onnx(network, path, size=size, mean=MEAN, std=STD)
        print(agreement, file=sys.stderr)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.numpy()})


def seconds(
    function: Callable[[Tensor], object],
    images: Tensor,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds for a batch by `clock`: wall time (default) or CPU time of the process."""
    with torch.inference_mode():
        start = clock()
        function(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        return clock() - start


def on_gpu(network: nn.Module, size: Size, args: argparse.Namespace) -> list[str]:
    """Images per second on the GPU, and peak memory that torch allocated there, as table cells."""
    torch.cuda.reset_peak_memory_stats()
    images = torch.rand(args.gpu_batch, 3, *size, device="cuda")
    network.to("cuda")
    quickest = min(seconds(network, images) for _ in range(1 + args.rounds))
    memory = torch.cuda.max_memory_allocated() / GIB
    network.to("cpu")
    return [f"{args.gpu_batch / quickest:,.0f}", f"{memory:.2f}"]
