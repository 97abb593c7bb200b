"""Folders that are read, with symbolic links among them."""

import pytest

from magnifier_plugin.annotators.source import annotation_files
from magnifier_plugin.catalogue.images import list_images


@pytest.fixture
def photos(tmp_path):
    """Two images, one of them in a folder."""
    for name in ("photos/a.png", "photos/inner/b.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


def found(photos):
    both = list_images(photos), annotation_files(photos, ".png")
    assert both[0] == both[1]
    return [str(path.relative_to(photos)) for path in both[0]]


@pytest.mark.parametrize("link", ["photos", "inner/photos", "inner/again/photos"])
def test_a_link_to_a_folder_that_contains_it_repeats_nothing(photos, link):
    (photos / link).parent.mkdir(exist_ok=True)
    (photos / link).symlink_to(photos)
    assert found(photos) == ["a.png", "inner/b.png"]


def test_two_links_to_each_others_folders_end(photos):
    (photos / "inner" / "x").symlink_to(photos / "other")
    (photos / "other").mkdir()
    (photos / "other" / "y").symlink_to(photos / "inner")
    assert found(photos) == ["a.png", "inner/b.png", "other/y/b.png"]


def test_other_links_are_followed(photos, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.png").touch()
    (photos / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "whole").symlink_to(photos)
    assert found(tmp_path / "whole") == ["a.png", "inner/b.png", "link/c.png"]
