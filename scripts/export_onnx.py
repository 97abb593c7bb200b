"""Export a trained network to ONNX, and check the file with onnxruntime on rendered people.

    export_onnx.py --config-file configs/magnifier_market.yaml \\
                   --weights log/magnifier_market/model/model-best.pth.tar --out model.onnx

Input: images, float32 [N, 3, H, W], RGB, normalised with the mean and std in the file's metadata.
Output: embedding, float32 [N, D], raw. For distances between unit vectors, add --normalise or
divide by the norm. Without --config-file, the network is built from the configuration in the
checkpoint. Required packages: pip install -e ".[onnx]". Exit status: 0 written, 2 not written, with
the reason.
"""

import argparse
import sys

from arguments import escape_unencodable, exit_with, parse_with_pairs, path


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line, KEY VALUE pairs into `pairs`; a wrong one ends with status 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", type=path, metavar="FILE", help="YAML file the weights were trained with")
    add("--weights", required=True, type=path, metavar="FILE", help="a checkpoint")
    add("-a", "--arch", metavar="NAME", help="model name, for a torchreid checkpoint")
    add("--out", required=True, type=path, metavar="FILE.onnx", help="file to write")
    add("--uint8", action="store_true", help="input: uint8 pixels, which the graph normalises")
    add("--normalise", action="store_true", help="L2-normalise the embeddings")
    add(
        "--regions",
        action="store_true",
        help="second output: regions, uint8 [N, 2⌈H/16⌉, 2⌈W/16⌉], ids 0..7 (MagnifierNet with M)",
    )
    add("pairs", nargs="*", metavar="KEY VALUE", help="override the configuration")
    args = parse_with_pairs(parser, argv)
    if args.out.suffix != ".onnx" or args.out.is_dir():
        parser.error(f"--out: expected a .onnx file to write, got {args.out}")
    return args


if __name__ == "__main__":
    parse(sys.argv[1:])  # --help and wrong arguments end here: the imports below take seconds

# isort: split
import json

import magnifier_plugin
from magnifier_plugin.config import parse_pairs
from magnifier_plugin.export import check_packages, export_onnx
from magnifier_plugin.retrieval.network import (
    FEATURE_KEYS,
    TrainedNetwork,
    check_typed,
    load_network,
)
from magnifier_plugin.systems import SYSTEMS

# The keys with an effect on the file; use_gpu decides where the network is loaded.
KEYS = (*(key for key in FEATURE_KEYS if key != "test.flip"), "use_gpu")


def main(argv: list[str] | None = None) -> int:
    """Export as the arguments say; return the exit status."""
    escape_unencodable()
    args = parse(sys.argv[1:] if argv is None else argv)
    try:
        check_typed(parse_pairs(args.pairs), KEYS)
        check_packages()
        network = load_network(
            args.weights,
            file=args.config_file or "",
            flags={"model.name": args.arch} if args.arch else {},
            pairs=args.pairs,
        )
        data = network.cfg.data
        agreement = export_onnx(
            network.model,
            args.out,
            size=(data.height, data.width),
            mean=data.norm_mean,
            std=data.norm_std,
            uint8=args.uint8,
            normalise=args.normalise,
            regions=args.regions,
            metadata={"weights": args.weights.name, **network_metadata(network)},
        )
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"export_onnx.py: {error}", file=sys.stderr)
        return 2
    print(f"onnxruntime and torch: {agreement}")
    if network.cfg.test.flip:
        print(
            "The network is tested with test.flip True, but the file does not average with mirror "
            "images: its embeddings differ from those of extract.py with the same weights"
        )
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB")
    return 0


def network_metadata(network: TrainedNetwork) -> dict[str, str]:
    """The network's entries in the file's metadata, for `export_onnx`."""
    cfg = network.cfg
    system = SYSTEMS.get(cfg.model.name.partition("_resnet")[0])
    options = system.model_options(cfg) if system else {}
    options.pop("backbone_weights", None)
    return {
        "model": cfg.model.name,
        "options": json.dumps(options),
        "test.flip": str(cfg.test.flip),
        "dataset": ", ".join(source.partition("=")[0] for source in cfg.data.sources),
        "magnifier_plugin": magnifier_plugin.__version__,
    }


if __name__ == "__main__":
    exit_with(main)
