"""Images as uint8 pixels, normalised on the device, equal those normalised in the workers."""

import numpy as np
import pytest
import torch
import torchreid
from conftest import MarketFolder, torchreids_manager
from engines import make_engine, make_manager, weights
from PIL import Image
from tiny import tiny_model
from torch import Tensor
from torchvision.transforms import Compose, Normalize, Resize, ToTensor, v2

from magnifier_plugin.builders import build_datamanager, find_system
from magnifier_plugin.config import load_config
from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.data.image_files import file_loader
from magnifier_plugin.data.pixels import Pixels, batch_of, mirrored, normalised
from magnifier_plugin.data.seeding import SampleKey, mixed_seed, torch_seeded
from magnifier_plugin.data.transforms import rebuild
from magnifier_plugin.engine.precision import Precision
from magnifier_plugin.engine.stages import Stage
from magnifier_plugin.evaluation.embeddings import mirrored_batch
from magnifier_plugin.images import read_image

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
ALL = ["random_flip", "random_crop", "random_patch", "color_jitter", "random_erase"]


def transform(*names: str) -> Compose:
    return torchreid.data.transforms.build_transforms(
        32, 16, list(names), norm_mean=MEAN, norm_std=STD
    )[0]


def naive(pixels: Pixels) -> Tensor:
    """Normalises one image in float64, then erases the rectangle."""
    values = pixels.values.permute(2, 0, 1).double() / 255
    mean, std = (torch.tensor(x, dtype=torch.float64).view(3, 1, 1) for x in (MEAN, STD))
    image = (values - mean) / std
    top, bottom, left, right = pixels.erased.tolist()
    image[:, top:bottom, left:right] = 0
    return image.float()


def samples(folder: MarketFolder, *, as_pixels: bool, names=ALL) -> list:
    dataset = AnnotatedDataset(
        *("market1501", folder.root),
        transform=transform(*names),
        masks_dir=folder.masks_dir,
        inputs=("mask",),
        as_pixels=as_pixels,
        verbose=False,
    )
    return [dataset[SampleKey(n, seed=3, epoch=0)] for n in range(len(dataset))]


def test_pixels_equal_floats(market_folder: MarketFolder) -> None:
    raw, floats = (samples(market_folder, as_pixels=kind) for kind in (True, False))
    erased = 0
    for one, other in zip(raw, floats, strict=True):
        assert one["img"].values.dtype == torch.uint8 and one["img"].values.shape == (32, 16, 3)
        assert other["img"].dtype == torch.float32 and other["img"].shape == (3, 32, 16)
        assert torch.equal(one["mask"], other["mask"])
        assert torch.equal(normalised(one["img"]), other["img"])
        torch.testing.assert_close(other["img"], naive(one["img"]), atol=1e-6, rtol=0)
        erased += bool(one["img"].erased.any())
    assert 0 < erased < len(raw)


@pytest.mark.parametrize("channels_last", ["on", "off"])
def test_a_batch_is_its_images_bit_for_bit(market_folder: MarketFolder, channels_last: str) -> None:
    floats = [item["img"] for item in samples(market_folder, as_pixels=False)]
    batch = batch_of([item["img"] for item in samples(market_folder, as_pixels=True)])
    precision = Precision(torch.device("cpu"), amp="off", channels_last=channels_last)
    images = precision.images(batch)
    assert images.is_contiguous(memory_format=precision.memory_format)
    assert torch.equal(images, torch.stack(floats))
    assert torch.equal(precision.images(torch.stack(floats)), images)


def test_mirror_images(market_folder: MarketFolder) -> None:
    batch = batch_of([item["img"] for item in samples(market_folder, as_pixels=True)])
    assert batch.erased.any()
    assert torch.equal(normalised(mirrored(batch)), normalised(batch).flip(-1))
    flipped = mirrored_batch({"img": batch})["img"]
    assert torch.equal(normalised(flipped), normalised(batch).flip(-1))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_workers(market_folder: MarketFolder, workers: int) -> None:
    raw = make_manager(market_folder, workers=workers, as_pixels=True)
    floats = make_manager(market_folder, workers=0)
    for loaders in ("train_loader", "query"):
        pair = [
            m.train_loader if loaders == "train_loader" else m.test_loader["market1501"][loaders]
            for m in (raw, floats)
        ]
        for one, other in zip(*pair, strict=True):
            assert isinstance(one["img"], Pixels) and one["img"].values.dtype == torch.uint8
            assert torch.equal(normalised(one["img"]), other["img"])


def test_training_and_testing_do_not_depend_on_it(market_folder: MarketFolder, tmp_path) -> None:
    engines = []
    for as_pixels in (True, False):
        torchreid.utils.set_random_seed(1)
        manager = make_manager(market_folder, as_pixels=as_pixels)
        engine = torchreid.engine.ImageMagnifierEngine(
            manager, tiny_model(), stages=[Stage(max_epoch=2, lr=1e-3)], amp="off"
        )
        engine.run(save_dir=tmp_path / str(as_pixels))
        engines.append(engine)
    one, other = engines
    assert one.history == other.history and one.results == other.results
    assert all(torch.equal(value, weights(other)[key]) for key, value in weights(one).items())


def test_torchreids_managers_have_floats(
    market_folder: MarketFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAGNIFIER_MASKS", str(market_folder.masks_dir))
    batch = next(iter(torchreids_manager(market_folder).train_loader))
    assert batch["img"].dtype == torch.float32 and batch["img"].shape == (4, 3, 32, 16)
    assert make_engine(market_folder).train_loader.dataset[0]["img"].dtype == torch.float32


def test_a_configured_run_has_pixels(market_folder: MarketFolder) -> None:
    where = ["data.root", str(market_folder.root), "masks.dir", str(market_folder.masks_dir)]
    cfg = load_config(None, {}, [*where, "data.workers", "0", "train.batch_size", "4"])
    manager = build_datamanager(cfg, find_system(cfg))
    sets = [loader.dataset for loader in manager.test_loader["market1501"].values()]
    assert [part.as_pixels for part in (manager.train_loader.dataset, *sets)] == [True] * 3


def test_files_of_any_folder(market_folder: MarketFolder) -> None:
    paths = sorted(market_folder.images.glob("query/*.jpg"))
    joint = rebuild(transform())
    (batch,) = file_loader(paths, joint, batch_size=len(paths), workers=0)
    expected = torch.stack([transform()(read_image(path)) for path in paths])
    torch.testing.assert_close(normalised(batch["img"]), expected, atol=1e-6, rtol=0)


def test_steps_after_normalisation_leave_floats(market_folder: MarketFolder) -> None:
    """Any transform of floats other than erasing must run before the batch leaves the worker."""
    compose = Compose([Resize((32, 16)), ToTensor(), Normalize(MEAN, STD), v2.GaussianBlur(3)])
    photo = read_image(next(market_folder.images.glob("query/*.jpg")))
    view = rebuild(compose)(photo)
    assert isinstance(view.result, Tensor) and view.result.dtype == torch.float32
    sharp = rebuild(Compose(compose.transforms[:3]))(photo).image
    assert torch.equal(view.photo, rebuild(Compose(compose.transforms[:1]))(photo).result)
    assert not torch.equal(view.image, sharp) and (view.image - sharp).abs().mean() < 1


@pytest.mark.parametrize(
    ("resize", "size"), [(v2.Resize(20), (40, 20)), (v2.Resize(20, max_size=30), (30, 15))]
)
def test_a_resize_of_one_edge_keeps_all_its_arguments(resize: v2.Resize, size: tuple) -> None:
    photo = Image.fromarray(np.zeros((80, 40, 3), np.uint8))
    steps = [resize, ToTensor(), Normalize(MEAN, STD)]
    assert rebuild(Compose(steps))(photo).image.shape[-2:] == size


@pytest.mark.parametrize(("size", "share"), [((16, 8), 0.05), ((200, 70), 0.15)])
def test_training_images_are_nearly_pillows(size: tuple[int, int], share: float) -> None:
    """Training resizes with torch, tests with Pillow; the random draws are the same."""
    rng = np.random.default_rng(0)
    compose = transform("random_flip", "random_crop")
    differences = []
    for seed in range(20):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 4, 3), dtype=np.uint8))
        pair = []
        for exact in (True, False):
            with torch_seeded(mixed_seed(seed)):
                pair.append(rebuild(compose, exact=exact)(coarse.resize(size[::-1])).photo.int())
        differences.append((pair[0] - pair[1]).abs())
    differing = torch.stack(differences)
    assert 0 < (differing > 0).float().mean() < share
    assert differing.max() <= 3


def test_only_training_images_are_resized_by_torch(market_folder: MarketFolder) -> None:
    for mode, exact in (("train", False), ("query", True), ("gallery", True)):
        dataset = AnnotatedDataset(
            "market1501",
            market_folder.root,
            transform=transform("random_crop"),
            mode=mode,
            verbose=False,
        )
        joint = dataset._joint
        assert (joint.exact, joint.steps[1].exact) == (exact, exact)
