"""The page of a search: a self-contained file; searched, marked and saved in a browser."""

import csv
import json
import re
import time

import numpy as np
import pytest
from browser import Browser
from mask_inputs import save_photo
from PIL import Image
from test_label_page import Reader

from magnifier_plugin.regions import REGIONS
from magnifier_plugin.visualize.search_page import PageImage, PageQuery, write_search_page

# Names that would end a script, a quoted value or a cell, or that a spreadsheet would run.
NAMES = (
    *("</script><b>.jpg", "a\"b'c.jpg", "b/Jürgen_c2.jpg", "b/ü_c10.jpg", "=1+1.jpg"),
    *("plain_c2.jpg", "b/far.jpg", "b/further_c2.jpg"),
)
QUERIES = ("q<img src=x onerror=alert(1)>.jpg", "anna_c1.jpg")
LAST = len(NAMES) - 1


def make_images(folder):
    """Two queries, then the gallery."""
    labels = np.zeros((16, 8), np.uint8)
    labels[4:8] = REGIONS.index("chest")
    images = []
    for number, name in enumerate((*QUERIES, *NAMES)):
        folder_name, _, file = name.rpartition("/")
        camera = re.search(r"_c(\d+)", file)
        path = save_photo(folder / f"{number}.jpg", 64, 32)
        regions = labels if number < 5 else None
        images.append(
            PageImage(path, name, folder_name or ".", camera[1] if camera else "", regions)
        )
    return images


def write(folder, *, plain=False, cosines=True, topk=3):
    images = make_images(folder)
    hits = np.arange(len(QUERIES), len(images))
    values = np.tile(np.linspace(0, 1, len(REGIONS)), (topk, 1))
    values[0, REGIONS.index("foot")] = np.nan
    distances = np.linspace(0.1, 1.7, len(hits))
    queries = [
        PageQuery(
            number, order, distances, distances / 2 if plain else None, values if cosines else None
        )
        for number, order in enumerate((hits, hits[::-1]))
    ]
    path = folder / "page.html"
    facts = {"gallery": "<i>photos</i>"}
    write_search_page(
        path, images, queries, title="<u>", facts=facts, metric="d", topk=topk, gallery=20
    )
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def open_browser(tmp_path_factory, chromium):
    with Browser(chromium, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(open_browser, page):
    """The page without marks."""
    open_browser.open(page)
    for _ in range(50):  # the browser's storage takes a moment
        open_browser.js("localStorage.clear()")
        open_browser.open(page)
        if open_browser.js("marks.size") == 0:
            return open_browser
    raise AssertionError("the page keeps its marks")


def hits(browser):
    return browser.js("[...document.querySelectorAll('#hits figure')].map(f => f.dataset.name)")


def marked(browser):
    return browser.js("[...document.querySelectorAll('#hits .marked')].map(f => f.dataset.name)")


def test_page_is_self_contained(page):
    text = page.read_text()
    assert not Reader(text).fetched and not re.search("https?:", text)
    assert "default-src 'none'" in text
    script = re.search(r'application/json">(.*?)</script>', text)[1]
    assert "<" not in script
    data = json.loads(script)
    assert [image[0] for image in data["images"]] == [*QUERIES, *NAMES]
    assert all(image[3].startswith("data:image/webp;base64,") for image in data["images"])
    layers = [image[4].startswith("data:image/png;base64,") for image in data["images"]]
    assert layers == [True] * 5 + [False] * 5
    assert data["queries"][0]["cosines"][0] == [0, 14, 29, 43, 57, 71, 86, None]
    assert "<dd>&lt;i&gt;photos&lt;/i&gt;</dd>" in text and "<title>&lt;u&gt;</title>" in text


def test_text_that_looks_like_a_field_stays_text(tmp_path):
    images = make_images(tmp_path)
    query = PageQuery(0, np.array([2]), np.array([0.5]), None, None)
    facts = {"{{data}}": "{{title}}"}
    options = {"facts": facts, "metric": "d", "topk": 1, "gallery": 1}
    write_search_page(tmp_path / "p.html", images, [query], title="{{facts}}", **options)
    text = (tmp_path / "p.html").read_text()
    assert "<title>{{facts}}</title>" in text and "<dt>{{data}}</dt><dd>{{title}}</dd>" in text


def test_a_photo_that_cannot_be_read_is_grey(tmp_path):
    images = make_images(tmp_path)
    images[2].path.write_bytes(b"")
    query = PageQuery(0, np.array([2]), np.array([0.5]), None, None)
    options = {"title": "", "facts": {}, "metric": "d", "topk": 1, "gallery": 1}
    write_search_page(tmp_path / "p.html", images, [query], **options)
    assert (tmp_path / "p.html").is_file()


def test_hits_are_shown_with_their_regions(browser):
    assert hits(browser) == list(NAMES[:3])
    assert browser.js("document.querySelector('#count').textContent") == (
        "3 of 8 hits, from 20 gallery images"
    )
    rows = browser.js(
        "[...document.querySelectorAll('#hits figure:first-child tr')].map(r => r.innerText)"
    )
    assert [row.split("\t")[0] for row in rows] == [*REGIONS[1:], REGIONS[0]]
    assert [row.split("\t")[-1] for row in rows][-3:] == ["0.86", "–", "0.00"]
    assert browser.js("document.querySelector('#hits figure').innerText").startswith("1 · 0.1000")
    browser.click("#more")
    assert hits(browser) == list(NAMES[:6])
    assert browser.js("document.querySelectorAll('#hits table').length") == 3
    injected = "document.querySelectorAll('u, h2 img, #hits b b, dd i').length"
    assert browser.js(injected) == 0


def test_regions_are_drawn_over_both_pictures(browser):
    visible = """[...document.querySelectorAll('.regions')].map(
        image => getComputedStyle(image).display + ' ' + image.naturalHeight)"""
    assert browser.js(visible) == ["none 192"] * 4
    browser.click("#regions")
    assert browser.js(visible) == ["block 192"] * 4
    same_place = """[...document.querySelectorAll('.photo')].every(photo => {
        const box = image => JSON.stringify([image.getBoundingClientRect(),
            image.naturalWidth, image.naturalHeight]);
        return box(photo.children[0]) === box(photo.children[1]);
    })"""
    assert browser.js(same_place)
    fit = "[...document.querySelectorAll('.photo img')].map(i => getComputedStyle(i).objectFit)"
    assert set(browser.js(fit)) == {"contain"}
    browser.press("r")
    assert browser.js(visible) == ["none 192"] * 4


def test_filters_look_through_all_hits_in_any_case(browser):
    browser.click("#text")
    browser.write("JÜRGEN")
    assert hits(browser) == ["b/Jürgen_c2.jpg"]
    assert browser.js("document.querySelector('#count').textContent").startswith(
        "1 of 1 hits that match the filter, among the 8 nearest"
    )
    browser.js(
        "byId('text').value = 'ju\u0308rgen'; byId('text').oninput({ target: byId('text') })"
    )
    assert hits(browser) == ["b/Jürgen_c2.jpg"]  # as macOS writes it
    browser.press("Escape")

    def choose(field, value):
        browser.js(f"""(() => {{
            const field = byId({json.dumps(field)});
            field.value = {json.dumps(value)};
            field.dispatchEvent(new Event("change"));
        }})()""")

    browser.js("change({ text: '' })")
    options = "[...byId({!r}).options].map(option => option.textContent)"
    assert browser.js(options.format("camera")) == ["all", "2", "10"]
    assert browser.js(options.format("folder")) == ["all", ".", "<", "b"]
    choose("camera", "2")
    assert hits(browser) == [NAMES[2], NAMES[5], NAMES[7]]
    choose("folder", "b")
    assert hits(browser) == [NAMES[2], NAMES[7]]
    assert "camera=2" in browser.js("location.hash")


def test_keys_move_and_mark(browser):
    browser.press("2", "0", "ArrowRight", " ")
    assert marked(browser) == [NAMES[1], NAMES[2]]  # there is no tenth hit
    browser.press("2", "ArrowLeft", "ArrowLeft", "ArrowLeft", " ")
    assert marked(browser) == [NAMES[0], NAMES[2]]
    browser.press("ArrowDown")
    assert hits(browser)[0] == NAMES[LAST] and marked(browser) == []
    browser.press("ArrowDown", "1", "ArrowUp", "ArrowUp")
    assert marked(browser) == [NAMES[0], NAMES[2]]
    assert browser.js("byId('save').textContent") == "Save marks (3)"
    browser.press("/")
    browser.write("far")
    browser.press("1")  # typed into the field, so not a key of the page
    assert browser.js("byId('text').value").startswith("far")
    browser.press("Escape", "?")
    assert browser.js("byId('help').open")
    assert "mark or unmark the selected hit" in browser.js("byId('help').innerText")


def test_space_marks_the_hit_whose_mark_has_the_focus(browser):
    browser.js("document.querySelectorAll('.mark')[2].focus()")
    browser.press(" ")
    assert marked(browser) == [NAMES[2]]


def test_marks_are_saved_as_csv_and_kept(browser, page):
    # A page that is closed at once may lose its marks: Chromium stores them later.
    for _ in range(5):
        browser.click("#hits figure:nth-child(1) .mark")
        browser.click("#hits figure:nth-child(2) .mark")
        assert marked(browser) == list(NAMES[:2])
        browser.click("#queries [data-query='1']")
        browser.press("4")  # there is no fourth hit on the page
        browser.click("#more")
        browser.press("4")
        browser.open(page, "#query=0")
        if marked(browser) == list(NAMES[:2]):
            break
    assert marked(browser) == list(NAMES[:2])
    browser.click("#save")
    file, start = browser.profile / "marks.csv", time.monotonic()
    while not file.is_file():
        assert time.monotonic() - start < 30, "nothing was saved"
        time.sleep(0.05)
    with file.open(newline="", encoding="utf-8") as content:
        rows = list(csv.reader(content))
    assert rows == [
        ["query", "rank", "gallery", "distance"],
        [QUERIES[0], "1", NAMES[0], "0.1"],
        [QUERIES[0], "2", NAMES[1], "0.32857"],
        [QUERIES[1], "4", "./=1+1.jpg", "0.78571"],
    ]


def test_address_chooses_the_view(browser, page):
    browser.open(page, "#query=1&camera=2&regions=on")
    assert hits(browser) == [NAMES[7], NAMES[5], NAMES[2]]
    assert browser.js("document.body.className") == "with-regions"
    browser.open(page, "#query=7&text=far")
    assert browser.js("document.querySelector('#query h2').textContent") == QUERIES[0]
    assert hits(browser) == [NAMES[6]]


def test_a_page_that_is_only_opened_stores_nothing(browser):
    """Otherwise it would overwrite the marks of another tab."""
    assert browser.js("localStorage.length") == 0
    browser.press("1")
    assert browser.js("localStorage.length") == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_width(browser, page, scheme):
    browser.open(page, "#regions=on", 390, 844, scheme=scheme)
    assert browser.js("document.documentElement.scrollWidth") == 390
    columns = "new Set([...document.querySelectorAll('#hits figure')].map(f => f.offsetLeft)).size"
    assert browser.js(columns) == 2
    background, text = (
        sum(map(int, re.findall(r"\d+", browser.js(f"getComputedStyle({element}).{name}"))[:3]))
        for element, name in (("byId('controls')", "backgroundColor"), ("document.body", "color"))
    )
    dark, bright = sorted((background, text))
    assert dark < 200 and bright > 600
    assert (background == bright) == (scheme == "light")


def test_other_models_show_only_the_distance(open_browser, tmp_path):
    page = write(tmp_path, cosines=False, plain=True)
    open_browser.open(page)
    assert open_browser.js("document.querySelectorAll('#hits table').length") == 0
    text = open_browser.js("document.querySelector('#hits figure').innerText")
    assert text.split("\n")[:3] == ["1 · 0.1000", "before re-ranking 0.0500", NAMES[0]]


@pytest.mark.slow
def test_ten_thousand_images(open_browser, tmp_path):
    """The file takes less than 30 MB and a click less than 200 ms, until the screen is drawn."""
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{number}.jpg" for number in range(200)]
    for file in files:  # smooth shapes and noise, whose files are larger than those of real crops
        coarse = Image.fromarray(rng.integers(0, 256, (24, 12, 3), dtype=np.uint8))
        photo = np.asarray(coarse.resize((64, 128), Image.Resampling.BICUBIC)).astype(int)
        noise = rng.normal(0, 12, photo.shape)
        Image.fromarray((photo + noise).clip(0, 255).astype(np.uint8)).save(file, quality=90)
    labels = np.asarray(
        Image.fromarray(rng.integers(0, 8, (16, 8), dtype=np.uint8)).resize((24, 48), 0)
    )
    images = [
        PageImage(
            *(files[number % 200], f"c{number % 7}/{number:05d}_c{number % 6}.jpg"),
            *(f"c{number % 7}", str(number % 6), labels if number % 3 == 0 else None),
        )
        for number in range(10_100)
    ]
    queries = [
        PageQuery(
            *(number, rng.permutation(np.arange(100, 10_100))[:200], np.linspace(0, 2, 200)),
            *(None, rng.random((20, 8))),
        )
        for number in range(100)
    ]
    page = tmp_path / "page.html"
    options = {"title": "", "facts": {}, "metric": "d", "topk": 20, "gallery": 10_000}
    write_search_page(page, images, queries, **options)
    assert page.stat().st_size < 30e6
    open_browser.open(page)
    click = """new Promise(done => {
        const start = performance.now();
        document.querySelector("[data-query='%d']").click();
        requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
    })"""
    times = [open_browser.js(click % number) for number in range(1, 20)]
    print(f"{page.stat().st_size / 1e6:.1f} MB, a click {np.median(times):.0f} ms")
    assert np.median(times) < 200
