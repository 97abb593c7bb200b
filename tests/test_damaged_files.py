"""Every file format that is read, damaged 200 times: the error always names the file.

An error is a ValueError or OSError of one line that contains the path, which the scripts print.
"""

import json
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from dumps import dump, encode, make_iuv
from mask_inputs import PROJECT

from magnifier_plugin.annotators.densepose import read_iuv, write_iuv
from magnifier_plugin.annotators.densepose_dump import DumpFile
from magnifier_plugin.annotators.densepose_json import ResultsFile
from magnifier_plugin.annotators.label_set import load_label_set
from magnifier_plugin.annotators.npy import read_npy
from magnifier_plugin.catalogue.csv_list import read_image_csv
from magnifier_plugin.config import load_config
from magnifier_plugin.engine.checkpoint import read_checkpoint
from magnifier_plugin.evaluation.cache import read_embeddings
from magnifier_plugin.evaluation.conditions import read_conditions
from magnifier_plugin.evaluation.features import load_features, load_ids
from magnifier_plugin.evaluation.query_file import QueryScores, read_queries, write_queries
from magnifier_plugin.masks.label_maps import read_labels, write_labels
from magnifier_plugin.masks.manifest import Manifest, read_manifest, write_manifest
from magnifier_plugin.models.backbone import read_weights
from magnifier_plugin.synthetic.folder import ensure_rendered
from magnifier_plugin.synthetic.options import SyntheticOptions
from magnifier_plugin.synthetic.renderer import VERSION

sys.path.append(str(PROJECT / "scripts"))
from reproduction.record import Record, read_record

TRIALS = 200
RENDERED = SyntheticOptions(identities=4, cameras=2)
FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)
IDS = b"pid,camid,name\n12,3,a.jpg\n-1,4,b.jpg\n"
LABELS = np.repeat(np.arange(8, dtype=np.uint8), 64).reshape(32, 16)
PEOPLE = {"a.jpg": [(4.0, 3.0, 0.9, make_iuv(24, 8, 2))]}
SCORES = QueryScores(
    np.array(["a.jpg", "b.jpg"]), np.array([1, 2]), np.array([0.5, np.nan]), np.array([1, 0])
)


def save(write):
    """Writes a file through `write(file)`."""

    def to(path):
        with path.open("wb") as file:
            write(file)

    return to


def saved(content, **options):
    return save(lambda file: torch.save(content, file, **options))


def read_people(path, source):
    """Reads an annotator's file as a conversion does, which reports errors by the image's name."""
    for people in source:
        try:
            people.read((32, 16))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def read_dump(path):
    read_people(path, DumpFile(path))


def read_coco(path):
    """Reads DensePose's results, with valid annotations."""
    names = path.with_name("images.json")
    names.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}]}))
    read_people(path, ResultsFile(path, names))


def write_coco(path):
    shape, data = encode(make_iuv(24, 8, 2))
    detection = {"image_id": 1, "score": 0.9, "bbox": [4, 3, 8, 24]}
    path.write_text(json.dumps([{**detection, "uv_shape": shape, "uv_data": data}]))


def write_parameters(path):
    path.write_text(json.dumps({"renderer": VERSION, "options": asdict(RENDERED)}))


def read_images(path):
    errors = [problem.text for problem in read_image_csv(path).problems if problem.is_error]
    if errors:
        raise ValueError(f"{path}: {'; '.join(errors)}")


def write_images(path):
    for name in ("a.png", "ü.png"):
        (path.parent / name).touch()
    path.write_text("path,pid,camid,split\na.png,1,door,query\nü.png,1,2,gallery\n")


def manifest(path):
    write_manifest(path.parent, Manifest("npy", "magnifiernet-authors", {"ids": "as they are"}))


EMBEDDINGS = {
    "features": torch.ones(2, 3),
    "pids": torch.ones(2).long(),
    "camids": torch.ones(2).long(),
}
NETWORK = {"state_dict": torch.nn.Linear(3, 2).state_dict(), "epoch": 1, "rank1": 0.5}
FORMATS = {  # name of the file → its reader, its writer
    "array.npy": (load_features, save(lambda file: np.save(file, FEATURES))),
    "stored.npz": (load_features, save(lambda file: np.savez(file, a=FEATURES))),
    "deflated.npz": (load_features, save(lambda file: np.savez_compressed(file, a=FEATURES))),
    "zip.pt": (load_features, saved(torch.from_numpy(FEATURES))),
    "legacy.pth": (
        load_features,
        saved({"a": torch.from_numpy(FEATURES)}, _use_new_zipfile_serialization=False),
    ),
    "ids.csv": (load_ids, lambda path: path.write_bytes(IDS)),
    "ids.npz": (load_ids, save(lambda file: np.savez(file, pid=np.arange(3), camid=np.arange(3)))),
    "embeddings.pt": (read_embeddings, saved(EMBEDDINGS)),
    "model.pth.tar-1": (read_checkpoint, saved(NETWORK)),
    "resnet50.pth": (read_weights, saved(NETWORK["state_dict"])),
    "resnet18.pth": (
        read_weights,
        saved(NETWORK["state_dict"], _use_new_zipfile_serialization=False),
    ),
    "images.csv": (read_images, write_images),
    "conditions.csv": (
        lambda path: read_conditions(path, path.parent),
        lambda path: path.write_text("path,weather,twin\na.jpg,sun,\nb.jpg,rain,12\n"),
    ),
    "queries.csv": (read_queries, lambda path: write_queries(path, {"market1501": SCORES})),
    "labels.json": (lambda path: read_manifest(path.parent), manifest),
    "mine.yaml": (
        load_label_set,
        lambda path: path.write_text("name: mine\nclasses: {0: {name: x, region: head}}\n"),
    ),
    "config.yaml": (
        load_config,
        lambda path: path.write_text("data: {height: 32}\nstages: [{max_epoch: 2}]\n"),
    ),
    "map.npy": (lambda path: read_npy(path, (32, 16)), save(lambda file: np.save(file, LABELS))),
    "label.png": (read_labels, lambda path: write_labels(path, LABELS)),
    "a_IUV.png": (read_iuv, lambda path: write_iuv(path, make_iuv(24, 8, 2))),
    "dump-2022.pkl": (read_dump, lambda path: dump(path, PEOPLE, 2022)),
    "dump-2020.pkl": (read_dump, lambda path: dump(path, PEOPLE, 2020)),
    "dump-2019.pkl": (read_dump, lambda path: dump(path, PEOPLE, 2019)),
    "results.json": (read_coco, write_coco),
    "synthetic/parameters.json": (
        lambda path: ensure_rendered(path.parents[1], RENDERED),
        write_parameters,
    ),
    "row.json": (
        lambda path: read_record(path.parent),
        lambda path: Record({"train.lr": 1}, "code").write(path.parent),
    ),
}


def damaged(rng, content):
    """The bytes, truncated, or with a few of them changed, removed or repeated."""
    kind = rng.integers(5)
    # Headers and directories are at both ends.
    end = min(len(content), 300)
    place = int(rng.choice([rng.integers(end), len(content) - 1 - rng.integers(end)]))
    length = int(rng.integers(1, 12))
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + content[place + length :]
    if kind == 2:
        return content[:place] + content[place : place + length] * 2 + content[place + length :]
    noise = rng.integers(0, 256, 1 if kind == 3 else length, dtype=np.uint8).tobytes()
    return content[:place] + noise + content[place + len(noise) :]


# Content that parsers of text files may not expect.
TEXTS = {
    "nothing": b"",
    "zeros": bytes(100),
    "Latin-1": "path,pid,camid,caf\u00e9\n1,2,3,4\n".encode("latin-1"),
    "UTF-16": "path,pid,camid\n".encode("utf-16"),
    "nested": b"[" * 5_000,
    "nested objects": b'{"a":' * 5_000,
    "a number": b"1",
    "a list": b"[1, 2]",
    "a text": b'"text"',
    "null": b"null",
    "long field": b"path,pid,camid\n" + b"x" * 140_000 + b",1,1\n",
    "30 digits": b"path,pid,camid\n1," + b"9" * 30 + b",1\n",
    "5000 digits": b"9" * 5000,
    "infinity": b'{"a": 1e999, "b": NaN}',
    "NUL in a line": b"path,pid,camid\n1,\0,1\n",
    "quote": b'path,pid,camid\n"1,2,3\n',
    "alias": b"name: &a {a: *a}\n",
    "tag": b"name: !!bool maybe\n",
    "python": b"!!python/object/apply:os.system ['true']\n",
}


def read(load, path):
    """Reads a file; returns whether it was refused, and checks the error."""
    try:
        load(path)
    except (ValueError, OSError) as error:
        assert str(path) in str(error), f"{type(error)} {error}"
        assert "\n" not in str(error), str(error)
        return True
    return False


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_an_error_that_names_the_file(tmp_path, name):
    load, write = FORMATS[name]
    path, refused = tmp_path / name, 0
    path.parent.mkdir(exist_ok=True)
    write(path)
    assert not read(load, path)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(TRIALS):
        path.write_bytes(damaged(rng, content))
        refused += read(load, path)
    assert refused > TRIALS // 10


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", FORMATS)
def test_other_content_is_an_error_that_names_the_file(tmp_path, name, text):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(TEXTS[text])
    read(FORMATS[name][0], path)
