"""Checking a data set: its counts, its problems, and what the script prints."""

import shutil

import pytest
import torchreid
from conftest import make_market
from mask_inputs import script
from PIL import Image

from magnifier_plugin.catalogue.inspection import check_images, check_lists

main = script("check_dataset").main


def records(*identities_and_cameras, prefix=""):
    """torchreid's tuples: `records((3, 0), (3, 1))`."""
    return [(f"{prefix}{i}.jpg", *who, 0) for i, who in enumerate(identities_and_cameras)]


TRAIN = records((0, 0), (0, 1), (1, 0), (1, 1), prefix="train")
QUERY = records((7, 0), (8, 1), prefix="query")
GALLERY = records((7, 1), (8, 0), (8, 0), (9, 2), prefix="gallery")


def texts(lists, is_error):
    return [problem.text for problem in lists.problems if problem.is_error == is_error]


def test_counts():
    lists = check_lists(TRAIN, QUERY, GALLERY)
    assert lists.subsets == [
        ("train", 4, 2, 2, (2, 2, 2)),
        ("query", 2, 2, 2, (1, 1, 1)),
        ("gallery", 4, 3, 3, (1, 1, 2)),
    ]
    assert (lists.absent, lists.same_camera, lists.problems) == ([], [], [])


def test_queries_without_a_match_are_named_with_the_reason():
    query = [*QUERY, ("absent.jpg", 5, 0, 0), ("same.jpg", 9, 2, 0)]
    lists = check_lists(TRAIN, query, GALLERY)
    assert (lists.absent, lists.same_camera) == ([query[2]], [query[3]])
    absent, same = texts(lists, is_error=False)
    assert "1 image of an identity that is not in the gallery" in absent
    assert absent.endswith(": absent.jpg (identity 5, camera 0)")
    assert "in the gallery only in the query's own camera" in same and same.endswith(
        ": same.jpg (identity 9, camera 2)"
    )


def test_no_query_with_a_match_is_an_error():
    lists = check_lists(TRAIN, records((5, 0), (7, 1)), GALLERY)
    assert any("no image has a match in the gallery" in text for text in texts(lists, True))
    assert not texts(lists, False)


def test_one_camera_is_reported_as_the_reason():
    lists = check_lists(TRAIN, records((7, 3)), records((7, 3), (8, 3)))
    assert any("all images are of one camera" in text for text in texts(lists, True))


def test_an_empty_list_is_an_error():
    assert texts(check_lists(TRAIN, [], []), True) == []  # for training only
    assert texts(check_lists([], QUERY, GALLERY), True) == []  # for testing only
    assert texts(check_lists([], [], []), True) == ["query: no images", "gallery: no images"]
    assert texts(check_lists(TRAIN, [], GALLERY), True) == ["query: no images"]
    assert texts(check_lists(TRAIN, QUERY, []), True) == ["gallery: no images"]


@pytest.mark.parametrize("numbers", [(1, 2), (0, 2), (-1, 0)])
def test_training_identities_must_count_from_0(numbers):
    train = records(*[(number, camera) for number in numbers for camera in (0, 1)])
    (text,) = texts(check_lists(train, QUERY, GALLERY), True)
    assert (
        f"numbered {numbers[0]}..{numbers[1]}; a classifier for 2 identities needs the numbers 0..1"
        in text
    )


def test_identities_with_one_image_and_repeated_files_are_warned_of():
    lists = check_lists([*TRAIN, TRAIN[0], ("one.jpg", 2, 0, 0)], QUERY, GALLERY)
    single, repeated = texts(lists, False)
    assert "1 identity with only one image" in single
    assert repeated == "train: 1 image listed more than once: train0.jpg"


def test_identities_in_train_and_test_are_found_by_file_names():
    train = [("a/0002_c1s1_000001_01.jpg", 0, 0, 0), ("a/0002_c2s1_000001_01.jpg", 0, 1, 0)]
    gallery = [*GALLERY, ("b/0002_c3s1_000001_01.jpg", 2, 2, 0)]
    (text,) = texts(check_lists(train, QUERY, gallery), True)
    assert text.startswith("1 identity in both training and test images") and text.endswith(
        ": 0002"
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_images_are_decoded_and_compared(tmp_path, workers):
    paths = [tmp_path / f"{i}.jpg" for i in range(70)]
    for i, path in enumerate(paths):
        Image.new("RGB", (8 + i % 2, 16), (i, 0, 0)).save(path)
    paths[3].write_bytes(paths[3].read_bytes()[:200])
    paths[5].write_text("not an image")
    shutil.copy(paths[0], paths[69])
    train, test = [[(str(path), 0, 0, 0) for path in part] for part in (paths[:40], paths[40:])]
    train.append(("gone.jpg", 0, 0, 0))
    images = check_images(train, test, workers=workers, progress=False)
    assert images.sizes == {(8, 16): 36, (9, 16): 32}
    found = [problem.text for problem in images.problems]
    assert all(problem.is_error for problem in images.problems)
    assert len(found) == 4
    assert found[0].startswith(f"{paths[3]}: ") and found[1].startswith(f"{paths[5]}: ")
    assert found[2].startswith("gone.jpg: no such image")
    assert found[3] == f"in both training and test images: {paths[0]} = {paths[69]}"


def test_the_same_file_twice_in_one_list_is_no_error(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (8, 16)).save(tmp_path / name)
    twice = [(str(tmp_path / name), 0, 0, 0) for name in ("a.jpg", "b.jpg")]
    assert check_images(twice, [], progress=False).problems == []


# The script


def test_a_sound_data_set_passes(market_folder, capsys):
    assert main(["-s", "market1501", "--root", str(market_folder.root)]) == 0
    shown = capsys.readouterr().out
    assert "| train | 12 | 3 | 2 | 4, 4, 4 |" in shown
    assert "Decoded images: 28 in 1 size, most often 16 × 32 (28)" in shown
    assert "0 errors, 0 warnings" in shown


def test_a_masked_name_is_the_same_data_set(market_folder, capsys):
    arguments = ["-s", "market1501_masked", "--root", str(market_folder.root), "--quick"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "| query | 8 | 2 | 2 |" in shown and "decode" not in shown


def test_a_damaged_file_fails(tmp_path, capsys):
    folder = make_market(tmp_path)
    path = next((folder.images / "query").iterdir())
    path.write_bytes(path.read_bytes()[:100])
    assert main(["-s", "market1501", "--root", str(folder.root)]) == 1
    shown = capsys.readouterr().out
    assert "1 error, 0 warnings" in shown and f"error   {path}: " in shown
    assert main(["-s", "market1501", "--root", str(folder.root), "--quick"]) == 0


def test_a_decompression_bomb_fails(tmp_path, capsys):
    folder = make_market(tmp_path)
    path = next((folder.images / "query").iterdir())
    Image.new("1", (20_000, 20_000)).save(path, format="PNG")
    assert main(["-s", "market1501", "--root", str(folder.root)]) == 1
    assert f"error   {path}: refused, " in capsys.readouterr().out


def test_overlapping_identities_fail(tmp_path, capsys):
    folder = make_market(tmp_path, pids=(1, 2), test_pids=(1, 3))
    assert main(["-s", "market1501", "--root", str(folder.root), "--quick"]) == 1
    assert "1 identity in both training and test images" in capsys.readouterr().out


def test_many_problems_are_counted(tmp_path, capsys):
    folder = make_market(tmp_path, images=6)
    damaged = sorted((folder.images / "query").iterdir())
    for path in damaged:
        path.write_bytes(b"")
    assert main(["-s", "market1501", "--root", str(folder.root)]) == 1
    shown = capsys.readouterr().out
    assert "24 errors" in shown and "error   … and 4 more" in shown
    assert str(damaged[19]) in shown and str(damaged[20]) not in shown


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("market1502", "did you mean 'market1501'"),
        ("market1501", "does not exist"),
        ("synthetic", "Render it with: python scripts/render_pedestrians.py --root"),
        ("synthetic_masked", "Render it with: python scripts/render_pedestrians.py --root"),
    ],
)
def test_what_cannot_be_opened_is_reported_and_not_downloaded(
    tmp_path, capsys, name, message, monkeypatch
):
    def download(*args):
        raise AssertionError("tried to download")

    def render(*args):
        raise ValueError("tried to render")

    monkeypatch.setattr(torchreid.data.datasets.dataset.Dataset, "download_dataset", download)
    monkeypatch.setattr("magnifier_plugin.synthetic.dataset.ensure_rendered", render)
    assert main(["-s", name, "--root", str(tmp_path)]) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("check_dataset.py: ") and message in stderr
    assert not list(tmp_path.iterdir())


def test_a_killed_worker_is_reported(market_folder, monkeypatch, capsys):
    def killed(*_, **__):
        raise RuntimeError("a worker process was killed")

    monkeypatch.setitem(main.__globals__, "check_images", killed)
    assert main(["-s", "market1501", "--root", str(market_folder.root)]) == 2
    assert capsys.readouterr().err == "check_dataset.py: a worker process was killed\n"


def test_an_empty_list_cannot_be_opened(tmp_path, capsys):
    folder = make_market(tmp_path, test_pids=())
    assert main(["-s", "market1501", "--root", str(folder.root)]) == 2
    assert "expected *.jpg images, found none" in capsys.readouterr().err
