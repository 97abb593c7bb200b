"""Human parsing and the authors' arrays become label maps; label sets are data."""

import cv2
import numpy as np
import pytest
from mask_inputs import SAMPLES, needs_samples, save_photo, script
from PIL import Image

from magnifier_plugin.annotators import label_set
from magnifier_plugin.annotators.label_set import label_set_names, load_label_set
from magnifier_plugin.annotators.limbs import split_limb
from magnifier_plugin.annotators.npy import NpyFolder, read_npy
from magnifier_plugin.annotators.parsing import ParsingFolder, read_parsing, to_regions
from magnifier_plugin.masks.label_maps import read_labels
from magnifier_plugin.masks.manifest import Manifest, read_manifest, write_manifest
from magnifier_plugin.regions import REGIONS, UNKNOWN

PARSING = SAMPLES / "parsing"
HEAD, UPPER_ARM, LOWER_ARM, CHEST, UPPER_LEG, LOWER_LEG, FOOT = range(1, 8)


def save_palette(path, classes):
    """Saves a parsing PNG as SCHP writes it, with the palette of Pascal VOC."""
    image = Image.fromarray(np.asarray(classes, dtype=np.uint8))
    palette = []
    for i in range(256):
        palette += [
            sum((i >> (3 * bit + plane) & 1) << (7 - bit) for bit in range(3)) for plane in range(3)
        ]
    image.putpalette(palette)
    image.save(path)
    return path


# Label sets


def test_shipped_label_sets_have_the_classes_that_their_parsers_write():
    assert label_set_names() == ("atr", "cihp", "lip", "pascal", "sapiens")
    known = (("lip", 20), ("cihp", 20), ("atr", 18), ("pascal", 7), ("sapiens", 28))
    for name, classes in known:
        label_set = load_label_set(name)
        assert label_set.name == name
        assert sorted(label_set.classes) == list(range(classes))
        assert label_set.regions[0] == 0


def test_label_sets_survive_a_manifest(tmp_path):
    for name in label_set_names():
        manifest = Manifest("parsing", name, load_label_set(name).definition)
        write_manifest(tmp_path, manifest)
        assert read_manifest(tmp_path) == manifest


def test_own_label_set_works_by_its_path(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\nclasses:\n  0: {name: nothing, region: background}\n"
        "  7: {name: coat, region: chest}\n  9: {name: smoke, region: unknown}\n"
    )
    label_set = load_label_set(file)
    assert to_regions(np.array([[0, 7, 9]]), label_set).tolist() == [[0, CHEST, UNKNOWN]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "expected YAML in UTF-8"),
        ("5", "a label set has the keys name and classes"),
        ("name: a", "'classes'"),
        ("name: a\nclasses: {0: {name: b, region: sky}}", "region 'sky', expected one of back"),
        ("name: a\nclasses: {0: {name: b, regoin: head}}", r"\['regoin'\] in class 0"),
        ("name: a\nclasses: {0: {name: b}}", "class 0: expected either a region or a limb"),
        ("name: a\nclasses: {300: {name: b, region: head}}", r"class id 300, expected 0\.\.254"),
        (
            "name: a\nclasses: {0: {name: b, limb: arm}}",
            r"to the limbs \['arm'\], but `limbs` defines",
        ),
        ("name: a\ntrunk: [c]\nclasses: {0: {name: b, region: head}}", "no class has the name 'c'"),
        (
            "name: a\nclasses: {0: {name: b, limb: l}}\nlimbs: {l: {upper: upper leg, "
            "lower: lower leg, extent: [c]}}",
            "extent: no class has the name 'c'",
        ),
    ],
)
def test_wrong_label_sets_are_reported(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.yaml: .*{message}"):
        load_label_set(tmp_path / "a.yaml")


def test_unknown_label_set_names_the_known():
    with pytest.raises(
        ValueError, match="label set 'lipp', expected one of atr, cihp, lip, pascal, sap"
    ):
        load_label_set("lipp")
    with pytest.raises(FileNotFoundError):
        load_label_set("nowhere.yaml")


# Limbs


def test_limb_is_split_in_the_middle_with_the_upper_half_at_the_trunk():
    trunk, arm = np.zeros((2, 20, 40), dtype=bool)
    trunk[5:15, 30:] = True
    arm[8:12, 10:30] = True  # hangs to the left of the trunk
    halves = split_limb(arm, trunk, upper=2, lower=3)
    assert (halves[8:12, 20:30] == 2).all() and (halves[8:12, 10:20] == 3).all()
    assert not halves[~arm].any()


def test_without_a_trunk_the_higher_half_is_the_upper_one():
    leg = np.zeros((30, 10), dtype=bool)
    leg[4:24, 3:6] = True
    halves = split_limb(leg, np.zeros_like(leg), upper=5, lower=6)
    assert (halves[4:14, 3:6] == 5).all() and (halves[14:24, 3:6] == 6).all()


def test_a_hand_below_a_sleeve_stays_in_one_piece():
    trunk, arms = np.zeros((2, 40, 40), dtype=bool)
    trunk[5:30, 15:25] = True
    arms[5:25, 10:15] = True  # a bare arm
    arms[20:27, 26:31] = True  # a hand
    arms[0, 39] = True  # a speck
    halves = split_limb(arms, trunk, upper=2, lower=3, stubby=3)
    assert set(halves[5:25, 10:15].ravel()) == {2, 3}
    assert (halves[20:27, 26:31] == 3).all() and halves[0, 39] == 3
    assert not split_limb(trunk & False, trunk, 2, 3, stubby=3).any()


# Parsing


@needs_samples
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lip", {0: [0], HEAD: [2, 13], CHEST: [5, 7], LOWER_ARM: [14, 15]}),
        (
            "atr",
            {0: [0, 16], HEAD: [2, 11], CHEST: [4], LOWER_ARM: [15], UPPER_LEG: [6], FOOT: [10]},
        ),
        ("pascal", {0: [0], HEAD: [1], CHEST: [2], UPPER_ARM: [3], LOWER_ARM: [4]}),
    ],
)
def test_real_parsing_gives_the_areas_of_its_classes(tmp_path, name, expected):
    """An independent count: colours read with OpenCV, looked up in the palette of Pascal VOC.

    The photo shows a man in a coat from the head to the hips: his hands are all that LIP and ATR
    call arms, so nothing of them is upper arm. What ATR takes for trousers and a shoe is a
    microphone; both halves of the legs are counted together.
    """
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "demo.png").symlink_to(PARSING / f"demo_{name}.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "demo.jpg").symlink_to(PARSING / "demo.jpg")
    out = tmp_path / "masks" / "data"
    command = ["--source", "parsing", "--parsing", tmp_path / "in", "--labels", name]
    command += ["--images", tmp_path / "data", "--out", out]
    assert script("convert_masks").main([str(word) for word in command]) == 0
    assert read_manifest(out).label_set == name
    found = np.bincount(read_labels(out / "demo.png").ravel(), minlength=len(REGIONS))
    classes = voc_classes(cv2.imread(str(tmp_path / "in" / "demo.png")))
    legs = found[UPPER_LEG] + found[LOWER_LEG]
    found = {**dict(enumerate(found)), UPPER_LEG: legs, LOWER_LEG: 0}
    areas = {region: sum(classes[i] for i in ids) for region, ids in expected.items()}
    assert found == {**dict.fromkeys(found, 0), **areas}


def voc_classes(image):
    """Pixels of each class in a BGR image of Pascal VOC's colours, which encode the ids."""
    high, low = image >> 7 & 1, image >> 6 & 1
    weights = np.array([4, 2, 1])
    return np.bincount((high @ weights + 8 * (low @ weights)).ravel(), minlength=32).tolist()


def test_a_standing_person_is_split_at_elbow_and_knee(tmp_path):
    """A figure in a T-shirt and shorts: LIP knows shirt, arms, pants, legs and shoes."""
    classes = np.zeros((128, 64), dtype=np.uint8)
    classes[4:20, 26:38] = 13
    classes[20:60, 22:42] = 5
    classes[24:64, 16:22], classes[24:64, 42:48] = 14, 15
    classes[60:80, 22:42] = 9
    classes[80:116, 22:30], classes[80:116, 34:42] = 16, 17
    classes[116:122, 20:30], classes[116:122, 34:44] = 18, 19
    labels = to_regions(classes, load_label_set("lip"))
    assert labels[10, 30] == HEAD and labels[40, 30] == CHEST and labels[118, 24] == FOOT
    for column in (18, 44):
        assert labels[26, column] == UPPER_ARM and labels[62, column] == LOWER_ARM
    for column in (24, 40):
        assert labels[66, column] == UPPER_LEG and labels[84, column] == UPPER_LEG
        assert labels[92, column] == LOWER_LEG and labels[114, column] == LOWER_LEG


def test_wrong_label_set_is_reported(tmp_path):
    save_palette(tmp_path / "a.png", [[0, 5, 19]])
    read_parsing(tmp_path / "a.png", load_label_set("lip"))
    with pytest.raises(
        ValueError, match=r"a\.png: id 19, but label set atr has 0\.\.17.*--label-set"
    ):
        read_parsing(tmp_path / "a.png", load_label_set("atr"))


def test_the_example_in_the_docstring_is_a_label_set(tmp_path):
    (tmp_path / "mine.yaml").write_text(label_set.__doc__.partition("\n\n")[2])
    mine = load_label_set(tmp_path / "mine.yaml")
    assert mine.name == "mine" and len(mine.limbs) == 2


def test_lost_palette_is_reported(tmp_path):
    with Image.open(save_palette(tmp_path / "a.png", [[0, 2, 5, 13]])) as image:
        image.convert("L").save(tmp_path / "grey.png")
        image.convert("RGB").save(tmp_path / "rgb.png")
    with pytest.raises(ValueError, match=r"grey\.png: .*grey levels of the parser's palette"):
        read_parsing(tmp_path / "grey.png", load_label_set("lip"))
    with pytest.raises(ValueError, match=r"rgb\.png: image mode RGB, expected a palette PNG"):
        read_parsing(tmp_path / "rgb.png", load_label_set("lip"))


def test_parsing_of_another_size_is_refused(tmp_path):
    save_palette(tmp_path / "a.png", np.zeros((8, 8)))
    (item,) = ParsingFolder(tmp_path, "pascal")
    with pytest.raises(ValueError, match="8 × 8 .*image is 32 × 16"):
        item.read((32, 16))
    with pytest.raises(ValueError, match=r"contains no \*\.png or \*\.npy;"):
        ParsingFolder(save_photo(tmp_path / "b" / "c.jpg").parent, "pascal")


def test_hidden_files_are_not_annotations(tmp_path):
    """Such as an unfinished file of another process, or macOS's copy of a file's metadata."""
    save_palette(tmp_path / "a.png", np.zeros((8, 8)))
    for name in (".a.7-0.part.png", "._a.png"):
        (tmp_path / name).write_bytes(b"")
    assert [item.path.name for item in ParsingFolder(tmp_path, "pascal")] == ["a.png"]


# Sapiens


def sapiens_person(trousers: bool) -> np.ndarray:
    """Class ids of a person with long sleeves, in trousers or in shorts above bare legs."""
    classes = np.zeros((64, 32), dtype=np.int64)
    classes[2:10, 12:20] = 3  # hair
    classes[6:10, 14:18] = 2  # face and neck
    classes[10:30, 8:24] = 22  # upper clothing, sleeves and all
    classes[28:32, 6:8] = 14  # right hand
    classes[30:58, 11:21] = 12  # lower clothing
    if not trousers:
        classes[40:44, 11:21] = 20  # right upper leg
        classes[44:58, 11:21] = 16  # right lower leg
    classes[58:62, 11:21] = 17  # right shoe
    classes[20:24, 26:30] = 1  # apparel: a bag
    return classes


def test_sapiens_trousers_are_split_and_shorts_are_not(tmp_path):
    label_set = load_label_set("sapiens")
    for trousers, border in ((True, 44), (False, 44)):
        labels = to_regions(sapiens_person(trousers).astype(np.uint8), label_set)
        assert (labels[30:border, 11:21] == UPPER_LEG).all()
        assert (labels[border:58, 11:21] == LOWER_LEG).all()
        assert (labels[10:28, 8:24] == CHEST).all()
        assert (labels[58:62, 11:21] == FOOT).all() and (labels[28:32, 6:8] == LOWER_ARM).all()
        assert (labels[2:10, 12:20] == HEAD).all() and (labels[20:24, 26:30] == UNKNOWN).all()
    # Shorts without legs below them, as if the image ended at the knee, are split.
    short = sapiens_person(True)
    short[44:] = 0
    labels = to_regions(short.astype(np.uint8), label_set)
    assert set(labels[30:44, 11:21].ravel()) == {UPPER_LEG, LOWER_LEG}


@pytest.mark.parametrize("kind", ["_seg.npy", ".npy", ".png"])
def test_sapiens_files(tmp_path, kind):
    """The demo's ids, next to its foreground map and its visualisation; or a wrapper's PNG."""
    classes, found = sapiens_person(True), tmp_path / "found"
    found.mkdir()
    if kind == ".png":
        save_palette(found / "a.png", classes)
    else:
        np.save(found / f"a{kind}", classes)
        save_photo(found / "a.png", 64, 32)
    if kind != ".npy":
        np.save(found / "a.npy", classes > 0)
    np.save(found / "logits.npy", np.zeros((28, 64, 32), np.float32))
    save_photo(tmp_path / "data" / "a.jpg", 64, 32)
    out = tmp_path / "masks" / "data"
    command = ["--source", "parsing", "--parsing", found, "--labels", "sapiens"]
    command += ["--images", tmp_path / "data", "--out", out]
    assert script("convert_masks").main([str(word) for word in command]) == 0
    expected = to_regions(classes.astype(np.uint8), load_label_set("sapiens"))
    assert np.array_equal(read_labels(out / "a.png"), expected)
    assert read_manifest(out).label_set == "sapiens"


def test_arrays_without_ids_are_not_parsings(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((8, 8), dtype=bool))
    np.save(tmp_path / "b.npy", np.zeros((28, 8, 8), dtype=np.float32))
    with pytest.raises(ValueError, match=r"none of the 2 \*\.npy files is a 2-D array of integers"):
        ParsingFolder(tmp_path, "sapiens")


def test_wrong_arrays_of_class_ids_are_named(tmp_path):
    for content, message in ((28, "id 28, but label set sapiens has 0..27"), (-1, "id -1")):
        np.save(tmp_path / "a.npy", np.full((8, 8), content))
        (item,) = ParsingFolder(tmp_path, "sapiens")
        with pytest.raises(ValueError, match=rf"a\.npy: {message}"):
            item.read((8, 8))
    (tmp_path / "a.npy").write_bytes(b"damaged")
    (item,) = ParsingFolder(tmp_path, "sapiens")
    with pytest.raises(ValueError, match=r"a\.npy: damaged or truncated"):
        item.read((8, 8))
    np.save(tmp_path / "a.npy", np.zeros((4, 8), np.uint8))
    (item,) = ParsingFolder(tmp_path, "sapiens")
    with pytest.raises(ValueError, match="4 × 8 .*image is 8 × 8"):
        item.read((8, 8))


# MagnifierNet's authors' arrays


def test_authors_arrays_are_taken_as_they_are(tmp_path):
    ids = np.arange(32, dtype=np.int64).reshape(8, 4) % 8
    (tmp_path / "bounding_box_train").mkdir()
    np.save(tmp_path / "bounding_box_train" / "a.jpg.npy", ids)
    (item,) = NpyFolder(tmp_path)
    assert item.name.endswith("bounding_box_train/a.jpg")
    assert np.array_equal(item.read((8, 4)).labels, ids)
    with pytest.raises(ValueError, match="8 × 4 .*image is 16 × 8"):
        item.read((16, 8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.full((4, 4), 9), "id 9, expected 0..7 or 255"),
        (np.full((4, 4), 0.5), "id 0.5"),
        (np.zeros((4, 4, 2), np.uint8), r"uint8 \[4, 4, 2\], expected a 2-D array"),
        (np.array([["a"]]), r"U1 \[1, 1\], expected a 2-D array"),
        (np.array([[print]]), "refused, not a plain array"),
    ],
)
def test_other_arrays_are_refused(tmp_path, content, message):
    np.save(tmp_path / "a.npy", content)
    with pytest.raises(ValueError, match=message):
        read_npy(tmp_path / "a.npy")
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"a\.npy: "):
        read_npy(tmp_path / "a.npy")


@pytest.mark.filterwarnings("ignore")  # numpy's warnings about damaged headers
def test_damaged_arrays_never_end_in_another_error(tmp_path):
    path, random = tmp_path / "a.npy", np.random.default_rng(0)
    np.save(path, np.zeros((8, 4), np.uint8))
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for trial in range(500):
        damaged = whole[: len(whole) - trial % 5].copy()
        damaged[random.integers(0, 128, 2)] = random.integers(0, 256, 2)
        path.write_bytes(damaged.tobytes())
        try:
            read_npy(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
    for content in (b"", b"PK\x03\x04 a zip", b"\x93NUMPY\x01\x00\xff\xff", b"\x80\x04N."):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.npy: (damaged|refused)"):
            read_npy(path)
    np.savez(path.with_suffix(".npz"), a=whole)
    path.with_suffix(".npz").replace(path)
    with pytest.raises(ValueError, match=r"a\.npy: damaged or truncated, not a plain array"):
        read_npy(path)
