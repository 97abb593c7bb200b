"""Images from untrusted files."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngImageFile

from magnifier_plugin.annotators.densepose import read_iuv
from magnifier_plugin.images import (
    MAX_PIXELS,
    PHOTO_FORMATS,
    decode_png,
    image_size,
    read_image,
    read_png,
)
from magnifier_plugin.masks.label_maps import read_labels

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 32\n%%EndComments\nshowpage\n%%EOF\n"
KEEP_COLOURS = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
READERS = (read_image, read_png, image_size, read_iuv, read_labels)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".eps"])
def test_no_file_starts_another_program(tmp_path, monkeypatch, reader, suffix):
    """Pillow hands an EPS file, whatever it is called, to Ghostscript."""
    started = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: started.append(1))
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: started.append(2))
    path = tmp_path / f"0002_c1s1_000451_03{suffix}"
    path.write_bytes(EPS)
    with pytest.raises((ValueError, OSError), match="0002_c1s1_000451_03"):
        reader(path)
    assert not started


@pytest.mark.parametrize("kind", PHOTO_FORMATS)
def test_photos_of_every_format_are_read(tmp_path, kind):
    photo = Image.new("RGB", (16, 32), (200, 30, 40))
    photo.save(tmp_path / "photo.jpg", format=kind)
    assert image_size(tmp_path / "photo.jpg") == (32, 16)
    found = read_image(tmp_path / "photo.jpg")
    assert (
        found.mode == "RGB" and np.abs(np.subtract(found.getpixel((8, 8)), (200, 30, 40))).max() < 4
    )
    if kind != "PNG":
        with pytest.raises(ValueError, match=r"photo\.jpg: damaged or truncated image, or not a"):
            read_png(tmp_path / "photo.jpg")


@pytest.mark.filterwarnings("ignore")  # Pillow's warnings about metadata and sizes
@pytest.mark.parametrize("kind", PHOTO_FORMATS)
def test_damaged_photos_never_end_in_another_error(tmp_path, kind):
    path, random = tmp_path / "photo", np.random.default_rng(0)
    pixels = random.integers(0, 256, (32, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format=kind)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    failed = 0
    for trial in range(200):
        damaged = whole[: len(whole) - trial % 7 * 20].copy()
        damaged[random.integers(0, min(len(damaged), 200), 4)] = random.integers(0, 256, 4)
        path.write_bytes(damaged.tobytes())
        for reader, error in ((read_image, OSError), (image_size, ValueError)):
            try:
                reader(path)
            except error as raised:
                assert str(raised).startswith(f"{path}: ")
                failed += 1
    assert failed > 50


@pytest.mark.parametrize("side", [int(MAX_PIXELS**0.5) + 1, 20_000])
def test_bombs_are_refused_before_they_are_decoded(tmp_path, side):
    """From 178 million pixels on, Pillow raises its own exception."""
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    with pytest.raises(OSError, match=r"bomb\.png: refused, .*pixels"):
        read_image(tmp_path / "bomb.png")
    for reader in (image_size, read_png):
        with pytest.raises(ValueError, match=r"bomb\.png: refused, .*pixels"):
            reader(tmp_path / "bomb.png")


def test_a_size_is_checked_before_decoding(tmp_path, monkeypatch):
    Image.new("L", (16, 32)).save(tmp_path / "a.png")
    content = io.BytesIO((tmp_path / "a.png").read_bytes())
    assert decode_png(content, "a", (32, 16)).size == (16, 32)
    monkeypatch.setattr(PngImageFile, "load", None)
    with pytest.raises(ValueError, match=r"^a: 32 × 16 \(height × width\), expected 16 × 32$"):
        decode_png(content, "a", (16, 32))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_photos_are_turned_upright(tmp_path, kind, orientation):
    """The camera writes its rows as they come from the sensor, and how it was held."""
    upright = np.zeros((32, 16, 3), np.uint8)
    upright[:16, :8], upright[:16, 8:], upright[16:, :8] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    photo = Image.fromarray(np.ascontiguousarray(stored))
    photo.save(tmp_path / "photo", format=kind, exif=exif, **KEEP_COLOURS.get(kind, {}))
    found = read_image(tmp_path / "photo")
    assert np.abs(np.subtract(found, upright, dtype=int)).max() < 12
    assert image_size(tmp_path / "photo") == (32, 16)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0damaged", b"damaged"])
def test_a_damaged_orientation_is_ignored(tmp_path, kind, exif):
    Image.new("RGB", (16, 32)).save(tmp_path / "photo", format=kind, exif=exif)
    assert read_image(tmp_path / "photo").size == (16, 32)
    assert image_size(tmp_path / "photo") == (32, 16)


def test_annotations_are_not_turned(tmp_path):
    """Annotators write the pixels of the upright photo."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("L", (16, 32)).save(tmp_path / "a.png", exif=exif)
    assert read_png(tmp_path / "a.png").size == (16, 32)
