"""The page of label maps: a self-contained file, sorted and filtered in a browser."""

import base64
import html.parser
import io
import json
import re
import subprocess

import numpy as np
import pytest
from mask_inputs import figure, placed, save_photo
from PIL import Image

from magnifier_plugin.annotators.densepose import write_iuv
from magnifier_plugin.masks.checking import check_labels
from magnifier_plugin.masks.label_maps import write_labels
from magnifier_plugin.masks.paths import iuv_path
from magnifier_plugin.regions import BODY_REGIONS, PART_TO_REGION
from magnifier_plugin.visualize.label_page import HEIGHT, MAX_WIDTH, thumbnail, write_label_page

# Inside a script it would hide the end of the script from a browser.
EVIL = "d<!--<script>"


class Reader(html.parser.HTMLParser):
    """Collects the cards and everything that a page would load from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.cards, self.fetched = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "figure":
            self.cards.append((attributes["data-kind"], attributes["data-name"]))
        self.fetched += [v for k, v in attrs if k in ("src", "href") and not v.startswith("data:")]


@pytest.fixture
def page(tmp_path):
    maps = {"a": figure(), "b": figure()[::-1], "c": None, EVIL: figure()[:8], "e": figure()}
    labels = dict(placed(tmp_path, name, labels) for name, labels in maps.items())
    findings = check_labels(labels, progress=False)
    path = tmp_path / "page.html"
    write_label_page(path, findings, title="a <b>", facts={"label set": "</script>"}, limit=4)
    return path


def test_page_is_self_contained(page):
    text = page.read_text()
    assert not Reader(text).fetched and not re.search("https?:", text)
    script = re.search(r'application/json">(.*?)</script>', text)[1]
    assert "<" not in script
    data = json.loads(script)
    assert [item["name"] for item in data["items"]] == [f"{EVIL}.jpg", "b.jpg", "c.jpg", "a.jpg"]
    assert (data["total"], data["kinds"]["fine"]) == (5, 2)
    assert all(item["picture"].startswith("data:image/jpeg;base64,") for item in data["items"])
    assert "a &lt;b&gt;" in text and "<dd>&lt;/script&gt;</dd>" in text


def test_iuv_alone_is_drawn_as_its_regions(tmp_path):
    place = dict([placed(tmp_path, "a", figure())])
    (finding,) = check_labels(place, progress=False)
    with_label = thumbnail(finding)
    (label,) = place.values()
    label.unlink()
    (nothing,) = check_labels(place, progress=False)
    iuv = np.zeros((*figure().shape, 3), np.uint8)
    for region in BODY_REGIONS:
        iuv[figure() == region, 0] = PART_TO_REGION.tolist().index(region)
    write_iuv(iuv_path(label), iuv)
    (finding,) = check_labels(place, progress=False)
    assert thumbnail(finding) == with_label != thumbnail(nothing)


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1)])
def test_thumbnails_are_small_whatever_the_photo(tmp_path, size):
    photo = save_photo(tmp_path / "a.jpg", *size)
    write_labels(tmp_path / "a.png", np.zeros(size, np.uint8))
    (finding,) = check_labels({str(photo): tmp_path / "a.png"}, progress=False)
    content = base64.b64decode(thumbnail(finding).partition(",")[2])
    width, height = read_size(content)
    assert width <= 2 * MAX_WIDTH + 2 and height <= HEIGHT and len(content) < 20_000


def test_a_photo_that_is_a_decompression_bomb_leaves_its_half_grey(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "a.jpg", format="PNG")
    (finding,) = check_labels({str(tmp_path / "a.jpg"): tmp_path / "a.png"}, progress=False)
    assert thumbnail(finding).startswith("data:image/jpeg;base64,")


def read_size(content):
    with Image.open(io.BytesIO(content)) as image:
        return image.size


def test_page_sorts_and_filters_in_a_browser(page, tmp_path, chromium):
    def cards(address):
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
        command += ["--no-first-run", "--disable-background-networking"]
        command += ["--disable-component-update", "--disable-sync"]
        command += [
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            page.as_uri() + address,
        ]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return Reader(result.stdout).cards

    shown = [
        ("wrong size", f"{EVIL}.jpg"),
        ("odd", "b.jpg"),
        ("missing", "c.jpg"),
        ("fine", "a.jpg"),
    ]
    assert cards("") == shown
    assert cards("#kind=odd") == [shown[1]]
    assert cards("#sort=name") == sorted(shown, key=lambda card: card[1])
    for text in ("b.", "B.J"):
        assert cards(f"#sort=name&text={text}") == [shown[1]]
