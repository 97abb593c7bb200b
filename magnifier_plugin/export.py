"""Export a network as an ONNX file that onnxruntime has checked against the network."""

import copy
import importlib.util
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from magnifier_plugin.data.pixels import ToImageTensor
from magnifier_plugin.files import write_atomically
from magnifier_plugin.models.exported import ExportedNetwork, predicts_regions
from magnifier_plugin.regions import REGIONS
from magnifier_plugin.synthetic.samples import rendered_people

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUTS = "images", ("embedding", "regions")
OPSET = 18  # the lowest that torch's exporter writes; onnxruntime reads it since 1.14
MAX_DIFFERENCE = 1e-3
MIN_CELLS = 0.999


class Agreement(NamedTuple):
    """How closely onnxruntime's results agree with the network's."""

    difference: float
    """Largest |a − b| / |b| over the compared images, where a is onnxruntime's embedding and b the
    network's; infinite if any value is not finite."""
    images: int
    """Number of rendered people."""
    compared: int
    """Number of images whose region maps agree in every cell; all images if there are no maps."""
    cells: int
    """Total number of cells of the region maps; 0 if there are none."""
    equal_cells: int
    """Number of cells with the same region in both results."""

    @property
    def is_close(self) -> bool:
        """Whether the agreement is close enough to keep the file."""
        agree = self.equal_cells >= MIN_CELLS * self.cells
        return agree and self.compared > 0 and self.difference <= MAX_DIFFERENCE

    def __str__(self) -> str:
        where = "" if self.compared == self.images else ", those whose region maps agree"
        text = (
            f"relative difference {self.difference:.1e} (at most {MAX_DIFFERENCE:g}) of the "
            f"embeddings of {self.compared} of {self.images} rendered people{where}"
        )
        if not self.cells:
            return f"{text}; no region maps"
        share = 100 * self.equal_cells / self.cells
        return (
            f"{text}; {share:.3f} % (at least {100 * MIN_CELLS:g} %) of {self.cells:,} cells of "
            "the region maps agree"
        )


def export_onnx(
    network: nn.Module,
    path: str | Path,
    *,
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    uint8: bool = False,
    normalise: bool = False,
    regions: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Agreement:
    """Write a network as ONNX, if onnxruntime's results for the file agree with the network's.

    The input `images` is [N, 3, H, W], RGB, any N; the first output is `embedding`, float32
    [N, D].

    Args:
        network: returns embeddings [N, D] in evaluation mode; a float32 copy is exported.
        path: the file to write, atomically.
        size: H and W in pixels.
        mean, std: values of R, G, B in 0..1 that normalise the network's images.
        uint8: the input is uint8 pixels, which the graph normalises; else normalised float32.
        normalise: scale embeddings to length 1.
        regions: add the output `regions`, uint8 [N, 2⌈H/16⌉, 2⌈W/16⌉]: the region ids 0..7 that M
            predicts.
        metadata: text entries for the file, in addition to size, mean, std, input, embedding and
            regions.
    Returns:
        The result of the comparison.
    Raises:
        ModuleNotFoundError: a package of the extra `onnx` is missing.
        OSError: the file cannot be written.
        ValueError: the network needs more than images, predicts no regions although they are
            requested, cannot be exported, or the results differ too much. Nothing is written.
    """
    check_packages()
    check_exportable(network, regions=regions)
    with write_atomically(path) as part:
        part.touch()  # fails early if the folder is not writable
        steps = ToImageTensor(mean, std)
        network = copy.deepcopy(network).to("cpu", torch.float32).eval()
        network = network.to(memory_format=torch.contiguous_format)
        exported = ExportedNetwork(network, steps if uint8 else None, unit_length=normalise)
        described = {
            "size": json.dumps(list(size)),
            "mean": json.dumps(list(mean)),
            "std": json.dumps(list(std)),
            "input": "RGB, uint8" if uint8 else "RGB, float32, (pixel / 255 - mean) / std",
            "embedding": "unit length" if normalise else "raw",
            "regions": ", ".join(REGIONS) if regions else "",
            **(metadata or {}),
        }
        whole = _to_onnx(exported.eval(), size)
        file = whole if regions else _embedding_alone(whole)
        _describe(file, described)
        part.write_bytes(file.SerializeToString())
        agreement = _compare(exported, steps, rendered_people(size), part, whole)
        if not agreement.is_close:
            raise ValueError(
                f"{path}: not written, onnxruntime's results differ too much: {agreement}"
            )
    return agreement


def check_packages() -> None:
    """Raise a ModuleNotFoundError that says what to install if a package is missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"export: expected the packages {', '.join(PACKAGES)}, found no "
            f'{", ".join(missing)}; pip install -e ".[onnx]" installs them'
        )


def check_exportable(network: nn.Module, *, regions: bool = False) -> None:
    """Raise a ValueError if the requested outputs cannot be computed from images alone."""
    if inputs := getattr(network, "test_inputs", ()):
        raise ValueError(
            "export: expected a network that is tested with images only, this one also needs "
            f"{', '.join(inputs)}; use dsa.test_features f"
        )
    if regions and not predicts_regions(network):
        raise ValueError(
            "export: regions are predicted by a MagnifierNet with M in magnifier.branches, this "
            "network predicts none; export without regions"
        )


def _to_onnx(exported: ExportedNetwork, size: tuple[int, int]) -> Any:
    """The network as an `onnx.ModelProto` with all outputs."""
    images = torch.zeros(2, 3, *size, dtype=torch.uint8 if exported.takes_pixels else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own recurrent layers
        try:
            program: Any = torch.onnx.export(
                exported,
                (images,),
                dynamo=True,
                input_names=[INPUT],
                output_names=OUTPUTS,
                dynamic_shapes={INPUT: {0: "N"}},
                opset_version=OPSET,
                verbose=False,
            )
        except Exception as error:  # the type depends on what torch cannot translate
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            raise ValueError(f"export: torch cannot export this network: {reason}") from error
    return program.model_proto


def _embedding_alone(whole: Any) -> Any:
    """The graph of the first output only, without nodes that only the others need."""
    import onnx

    return onnx.utils.Extractor(whole).extract_model([INPUT], list(OUTPUTS[:1]))


def _describe(model: Any, metadata: Mapping[str, str]) -> None:
    """Write the metadata and run onnx's checker."""
    import onnx

    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)


def _compare(
    exported: ExportedNetwork, steps: ToImageTensor, pixels: Tensor, path: Path, whole: Any
) -> Agreement:
    """Compare the file's embeddings, and the whole graph's regions, with the network's own.

    Args:
        exported: holds the network to compare with.
        steps: normalises the pixels.
        pixels: uint8 [B, 3, H, W].
        path: the file.
        whole: `onnx.ModelProto` of the graph with all outputs.
    """
    images = steps.normalise(pixels)
    network, given = exported.network, pixels if exported.takes_pixels else images
    agree = torch.ones(len(images), 1, dtype=torch.bool)
    with torch.inference_mode():
        expected = network(images)
        if exported.unit_length:
            expected = F.normalize(expected)
        distance = (_run(path, given, OUTPUTS[0]) - expected).norm(dim=1) / expected.norm(dim=1)
        if predicts_regions(network):
            found = _run(whole.SerializeToString(), given, OUTPUTS[1])
            agree = (found == network.predict_regions(images)).flatten(1)
    compared = distance[agree.all(dim=1)].nan_to_num(nan=torch.inf)
    has_cells = predicts_regions(network)
    return Agreement(
        difference=float(compared.max()) if len(compared) else torch.inf,
        images=len(images),
        compared=len(compared),
        cells=agree.numel() * has_cells,
        equal_cells=int(agree.sum()) * has_cells,
    )


def _run(model: Path | bytes, images: Tensor, output: str) -> Tensor:
    """Compute one output with onnxruntime, in batches of different sizes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    batches = images.split([1, 4, len(images) - 5])
    return torch.cat(
        [torch.from_numpy(session.run([output], {INPUT: batch.numpy()})[0]) for batch in batches]
    )
