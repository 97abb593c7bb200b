"""The joint transform: images equal torchreid's, and label maps move with their images."""

import random
from collections import Counter
from pathlib import Path
from time import process_time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchreid
from conftest import painted, person
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose, GaussianBlur, Resize, v2

from magnifier_plugin.data import augmentations
from magnifier_plugin.data.maps import IUV, LabelMap
from magnifier_plugin.data.seeding import SampleKey, mixed_seed, torch_seeded
from magnifier_plugin.data.transforms import TRANSFORMS, checked_names, rebuild, with_pad_crop
from magnifier_plugin.images import read_image
from magnifier_plugin.masks.label_maps import read_labels, write_labels
from magnifier_plugin.regions import REGION_COLOURS, UNKNOWN

theirs = torchreid.data.transforms
HEIGHT, WIDTH = 96, 48
PLAIN = {"norm_mean": [0.0, 0.0, 0.0], "norm_std": [1.0, 1.0, 1.0]}


def compose(*names: str, **options: list[float]) -> Compose:
    return theirs.build_transforms(HEIGHT, WIDTH, list(names), **options)[0]


def photo(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def shared_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes torchreid's transforms draw the same random numbers as ours, in the same order."""
    shared = SimpleNamespace(uniform=augmentations.uniform, randint=augmentations.randint)
    monkeypatch.setattr(theirs, "random", shared)


@pytest.mark.usefixtures("shared_draws")
@pytest.mark.parametrize("seed", range(12))
def test_equals_torchreids_image(seed: int) -> None:
    transform = compose("random_flip", "random_crop", "color_jitter")
    joint = rebuild(transform)
    with torch_seeded(seed):
        expected = transform(photo())
    with torch_seeded(seed):
        view = joint(photo(), np.zeros((64, 32), np.uint8))
    assert view.image.dtype == torch.float32
    torch.testing.assert_close(view.image, expected, atol=1e-6, rtol=0)


@pytest.mark.usefixtures("shared_draws")
def test_erases_torchreids_rectangle_with_the_normalised_mean() -> None:
    transform = compose("random_erase")
    joint, erased = rebuild(transform), 0
    for seed in range(20):
        with torch_seeded(seed):
            expected = transform(photo())
        with torch_seeded(seed):
            image = joint(photo()).image
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        rectangle = (expected == mean).all(0)
        erased += bool(rectangle.any())
        assert (image[:, rectangle] == 0).all()
        torch.testing.assert_close(image[:, ~rectangle], expected[:, ~rectangle], atol=1e-6, rtol=0)
    assert 3 < erased < 17


def test_a_step_after_the_erasing() -> None:
    """Then the image is normalised and erased step by step, with the same numbers."""
    transform = compose("random_erase")
    longer = Compose([*transform.transforms, v2.Lambda(lambda image: image)])
    for seed in range(5):
        images = []
        for joint in (rebuild(transform), rebuild(longer)):
            with torch_seeded(seed):
                images.append(joint(photo()).image)
        torch.testing.assert_close(*images, atol=1e-6, rtol=0)


def colour_class(image: Tensor) -> Tensor:
    """int64 [H, W]: the region whose colour is nearest."""
    colours = torch.tensor(REGION_COLOURS, dtype=torch.float32) / 255
    return (image.permute(1, 2, 0)[:, :, None] - colours).square().sum(-1).argmin(-1)


def inside(labels: Tensor, margin: int = 3) -> Tensor:
    """bool [H, W]: pixels whose neighbours have the same label, so that colours do not mix."""
    size = 2 * margin + 1
    padded = torch.nn.functional.pad(labels[None].float(), [margin] * 4, mode="replicate")
    windows = padded[0].unfold(0, size, 1).unfold(1, size, 1)
    return (windows == labels[..., None, None]).all(-1).all(-1)


@pytest.mark.parametrize(
    "names",
    [("random_flip",), ("random_crop",), ("pad_crop",), ("random_flip", "pad_crop", "random_crop")],
)
def test_labels_stay_on_the_image(names: tuple[str, ...]) -> None:
    transform = compose(*names, **PLAIN)
    if "pad_crop" in names:
        transform = with_pad_crop(transform, HEIGHT, WIDTH)
    joint, moved = rebuild(transform), 0
    labels = person(np.random.default_rng(0))
    still = rebuild(compose())(painted(labels), labels).labels
    for seed in range(10):
        with torch_seeded(seed):
            view = joint(painted(labels), labels)
        sure = inside(view.labels)
        assert view.labels.shape == (HEIGHT, WIDTH) and view.labels.dtype == torch.uint8
        assert sure.float().mean() > 0.3
        assert torch.equal(colour_class(view.image)[sure], view.labels[sure].long())
        moved += not torch.equal(view.labels, still)
    assert moved >= 2


def test_pad_crop_pads_black_and_background() -> None:
    joint = rebuild(with_pad_crop(compose(**PLAIN), HEIGHT, WIDTH))
    white = Image.new("RGB", (WIDTH, HEIGHT), "white")
    labels = np.full((HEIGHT, WIDTH), 4, np.uint8)
    with torch_seeded(0):
        views = [joint(white, labels) for _ in range(5)]
    for view in views:
        assert set(view.labels.unique().tolist()) == {0, 4}
        assert torch.equal(view.image == 0, (view.labels == 0).expand(3, -1, -1))


def test_pad_crop_comes_after_the_flip() -> None:
    steps = with_pad_crop(compose("random_flip", "random_erase"), HEIGHT, WIDTH).transforms
    kinds = [type(step).__name__ for step in steps]
    assert kinds[:4] == ["Resize", "RandomHorizontalFlip", "RandomCrop", "ToTensor"]


def test_unknown_labels_are_resized_without_mixing() -> None:
    labels = np.full((64, 32), UNKNOWN, np.uint8)
    labels[:, 16:] = 7
    view = rebuild(compose())(photo(), labels)
    assert set(view.labels.unique().tolist()) == {7, UNKNOWN}


def test_patch_comes_from_its_source(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (20, 40), (255, 0, 0)).save(photo)
    joint = rebuild(compose("random_patch", **PLAIN), patch_sources=[str(photo)])
    joint.steps[1].p_upright = 1.0  # a rotated patch has black corners
    grey = Image.new("RGB", (WIDTH, HEIGHT), (9, 9, 9))
    labels = np.full((HEIGHT, WIDTH), 3, np.uint8)
    with torch_seeded(0):
        views = [joint(grey, labels) for _ in range(20)]
    shares = [(view.image[0] == 1).float().mean().item() for view in views]
    assert 3 < sum(share > 0 for share in shares) < 17
    assert max(shares) <= 0.5
    assert all((view.labels == 3).all() for view in views)
    assert grey.getcolors() == [(WIDTH * HEIGHT, (9, 9, 9))]


def test_a_seed_fixes_a_view_and_leaves_the_generator_alone() -> None:
    joint = rebuild(compose("random_flip", "random_crop", "color_jitter", "random_erase"))
    state, python_state = torch.get_rng_state(), random.getstate()
    key = SampleKey(image=3, seed=1, epoch=5)
    views = []
    for other in (None, key._replace(epoch=6), None):
        with torch_seeded(mixed_seed(*(other or key))):
            views.append(joint(photo()).image)
    assert torch.equal(views[0], views[2])
    assert not torch.equal(views[0], views[1])
    assert torch.equal(torch.get_rng_state(), state) and random.getstate() == python_state


def test_without_a_transform_nothing_changes() -> None:
    labels = person(np.random.default_rng(0))
    view = rebuild(None)(photo(), labels)
    assert isinstance(view.image, Image.Image)
    assert np.array_equal(view.labels.numpy(), labels)


def test_maps_come_out_as_plain_tensors() -> None:
    view = rebuild(compose())(
        photo(), np.zeros((64, 32), np.uint8), np.zeros((64, 32, 3), np.uint8)
    )
    assert not isinstance(view.labels, LabelMap) and not isinstance(view.iuv, IUV)
    assert type(view.image) is Tensor


@pytest.mark.slow
def test_speed(tmp_path: Path) -> None:
    """A sample with its label map takes less time than torchreid's image alone (-s)."""
    labels = person(np.random.default_rng(0), 128, 64)
    photo_file, label_file = str(tmp_path / "a.jpg"), tmp_path / "a.png"
    photo().resize((64, 128)).save(photo_file)
    write_labels(label_file, labels)
    names = ["random_flip", "random_crop", "random_erase"]
    transform = theirs.build_transforms(384, 192, names)[0]
    joint = rebuild(transform, exact=False)  # as for training

    def torchreids(_: int) -> None:
        transform(torchreid.utils.read_image(photo_file))

    def ours(n: int) -> None:
        image = read_image(photo_file)
        regions = read_labels(label_file, (image.height, image.width))
        with torch_seeded(mixed_seed(n)):
            joint(image, regions)  # only its pixels, which are normalised on the network's device

    seconds = Counter()
    for n in range(1000):
        for read in (torchreids, ours):
            start = process_time()
            read(n)
            seconds[read.__name__] += process_time() - start
    ratio = seconds["ours"] / seconds["torchreids"]
    print(f"{seconds['ours']:.2f} ms a sample, {ratio:.2f} × torchreid's")
    assert ratio < 1


def test_names() -> None:
    assert checked_names(None) == []
    assert checked_names("Random_Flip") == ["random_flip"]
    assert checked_names(TRANSFORMS) == list(TRANSFORMS)
    with pytest.raises(
        ValueError, match=r"'random_erasing'.*random_flip.*did you mean 'random_erase'"
    ):
        checked_names(["random_flip", "random_erasing"])


def test_torchreids_options_of_a_patch_arrive() -> None:
    step = theirs.RandomPatch(
        prob_happen=0.1,
        patch_min_area=0.02,
        patch_max_area=0.3,
        patch_min_ratio=0.4,
        prob_rotate=0.6,
        prob_flip_leftright=0.7,
    )
    ours = rebuild(Compose([step]), patch_sources=["a.jpg"]).steps[0]
    assert (ours.p, ours.area, ours.aspect) == (0.1, (0.02, 0.3), 0.4)
    assert (ours.p_upright, ours.p_unflipped) == (0.6, 0.7)


def test_refusals() -> None:
    with pytest.raises(TypeError, match=r"GaussianBlur, expected Resize.*RandomErasing"):
        rebuild(Compose([GaussianBlur(3)]))
    with pytest.raises(TypeError, match="expected torchvision.transforms.Compose, got function"):
        rebuild(lambda image: image)
    with pytest.raises(ValueError, match=r"Resize: expected a size \(height, width\), got 256"):
        rebuild(Compose([Resize(256)]))
    with pytest.raises(ValueError, match="RandomPatch: expected patch_sources"):
        rebuild(compose("random_patch"))
