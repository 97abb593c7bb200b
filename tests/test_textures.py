"""The sheet of DSAP-images."""

import numpy as np
import pytest
from mask_inputs import script
from PIL import Image

from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.regions import NUM_PARTS
from magnifier_plugin.visualize.sheets import spread_evenly
from magnifier_plugin.visualize.textures import (
    PART_COLOURS,
    file_texture_sheet,
    texture_sheet,
)

PHOTO = (77, 60, 20)


def person(size: int = 32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photo of one colour, an IUV of parts 2 and 9, textures of one colour except for a cell."""
    photo, iuv = np.full((64, 32, 3), PHOTO, np.uint8), np.zeros((64, 32, 3), np.uint8)
    iuv[:20, :, 0], iuv[40:, :, 0] = 2, 9
    textures = np.empty((NUM_PARTS, 3, size, size), np.uint8)
    textures[:] = colours()[..., None, None]
    textures[:, 1, 0, -1] = 255
    return photo, iuv, textures


def colours() -> np.ndarray:
    """uint8 [24, 3], all different, and different from the sheet's own colours."""
    parts = np.arange(NUM_PARTS)
    return np.stack([100 + parts, np.full(NUM_PARTS, 200), 30 + parts], axis=1).astype(np.uint8)


def places(sheet: np.ndarray, colour: tuple | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels that have a colour."""
    return np.nonzero((sheet == colour).all(axis=-1))


@pytest.mark.parametrize(("size", "side"), [(16, 96), (32, 96), (40, 80), (200, 200)])
def test_textures_are_enlarged_in_reading_order(size: int, side: int) -> None:
    sheet = np.asarray(texture_sheet(*person(size)))
    boxes = []
    for colour in colours():
        rows, columns = places(sheet, colour)
        top, left = rows.min(), columns.min()
        boxes.append((top, left))
        tile = sheet[top : top + side, left : left + side].copy()
        scale = side // size
        assert (tile[:scale, -scale:] == (colour[0], 255, colour[2])).all()
        tile[:scale, -scale:] = colour
        assert (tile == colour).all()
        assert len(rows) == side**2 - scale**2
    assert boxes == sorted(boxes)
    assert len({top for top, _ in boxes}) == 3
    assert len({left for _, left in boxes}) == 8
    assert sheet.shape[0] == boxes[-1][0] + side
    assert sheet.shape[1] >= boxes[-1][1] + side


def test_photo_and_parts_are_as_high_as_the_textures() -> None:
    sheet = np.asarray(texture_sheet(*person()))
    top, bottom = places(sheet, colours()[0])[0].min(), places(sheet, colours()[-1])[0].max() + 1
    rows, columns = places(sheet, PHOTO)
    width = (bottom - top) // 2  # the photo is 64 × 32
    assert (rows.min(), rows.max() + 1) == (top, bottom)
    assert (columns.min(), columns.max() + 1) == (0, width)
    assert len(rows) == (bottom - top) * width
    panel = sheet[top:bottom, width:][:, 10 : 10 + width]
    for part, share in ((2, 20 / 64), (0, 20 / 64), (9, 24 / 64)):
        assert abs((panel == PART_COLOURS[part]).all(axis=-1).mean() - share) < 0.01


def test_names_of_absent_parts_are_grey() -> None:
    photo, iuv, textures = person()
    sheet = np.asarray(texture_sheet(photo, iuv, textures))
    for part, seen in ((1, False), (2, True), (8, False), (9, True), (24, False)):
        rows, columns = places(sheet, colours()[part - 1])
        name = sheet[rows.min() - 39 : rows.min() - 8, columns.min() : columns.max()]
        assert (name.min() < 50) == seen, part
        assert name.min() < 180, part
        assert (sheet[rows.min() - 5, columns.min() :][:96] == PART_COLOURS[part]).all()


def test_colours_of_parts_differ() -> None:
    colours = PART_COLOURS.astype(int)
    apart = np.abs(colours[:, None] - colours).sum(axis=-1)
    assert colours.shape == (NUM_PARTS + 1, 3)
    assert apart[~np.eye(NUM_PARTS + 1, dtype=bool)].min() > 40


def test_refused_arguments() -> None:
    photo, iuv, textures = person()
    with pytest.raises(ValueError, match=r"iuv: expected the photo's \[64, 32, 3\], got \[63, 32"):
        texture_sheet(photo, iuv[1:], textures)
    with pytest.raises(ValueError, match=r"textures: expected \[24, 3, S, S\], got \[23, 3, 32"):
        texture_sheet(photo, iuv, textures[1:])
    with pytest.raises(ValueError, match=r"textures: expected .* got \[24, 3, 31, 32\]"):
        texture_sheet(photo, iuv, textures[:, :, 1:])


def test_sheets_of_files(tmp_path, monkeypatch, capsys) -> None:
    """render_pedestrians.py --textures and check_masks.py --textures draw the same people."""
    sheet = tmp_path / "textures.png"
    small = "--identities 4 --cameras 2 --images 1 --height 64 --width 32 --rows 3".split()
    argv = ["render_pedestrians.py", "--root", str(tmp_path), *small, "--textures", str(sheet)]
    monkeypatch.setattr("sys.argv", argv)
    assert script("render_pedestrians").main() == 0
    one = file_texture_sheet(
        [
            (image, tmp_path / "synthetic" / "densepose" / f"{image.stem}_IUV.png")
            for image in sorted((tmp_path / "synthetic").rglob("bounding_box_train/*.jpg"))[:1]
        ]
    )
    assert Image.open(sheet).size[1] > 2.5 * one.size[1]
    AnnotatedDataset("synthetic", tmp_path)  # writes label maps and IUV
    page = tmp_path / "page.html"
    argv = ["-s", "synthetic", "--root", str(tmp_path), "--textures", "2", "--out", str(page)]
    assert script("check_masks").main(argv) == 0
    assert f"Page: {tmp_path / 'page_textures.png'}" in capsys.readouterr().out
    assert 1.8 * one.size[1] < Image.open(tmp_path / "page_textures.png").size[1]


def test_spread_evenly() -> None:
    assert spread_evenly("abcde", 3) == ["a", "c", "e"]
    assert spread_evenly("ab", 3) == ["a", "b"]
