"""The parts of scripts/reproduce.py: code digest, progress, maps, data, figures, a whole run."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from own_data import make_images, restored_registry, split_names
from PIL import Image
from test_reproduce_rows import plan

from magnifier_plugin.annotators.densepose import label_set_definition
from magnifier_plugin.annotators.keypoints import KeypointSource
from magnifier_plugin.config import ConfigError
from magnifier_plugin.data.annotated import AnnotatedDataset
from magnifier_plugin.masks.degradation import dilate, erode, scaled_radius
from magnifier_plugin.masks.label_maps import read_labels, write_labels
from magnifier_plugin.masks.manifest import Manifest, read_manifest, write_manifest
from magnifier_plugin.masks.paths import label_path

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "configs" / "magnifier_demo.yaml"
from reproduction import maps, preparation  # noqa: E402
from reproduction.code import MAIN, PACKAGE, imported_files, training_code  # noqa: E402
from reproduction.figures import save_figure  # noqa: E402
from reproduction.machines import computed  # noqa: E402
from reproduction.plan import make_runs  # noqa: E402
from reproduction.processes import last_epoch, visible_gpus  # noqa: E402
from reproduction.progress import FINISHED, RUNNING, Progress  # noqa: E402
from reproduction.record import RECORD, read_record  # noqa: E402
from reproduction.rows import FIGURE4, FIGURE5, TABLES  # noqa: E402
from reproduction.settings import Settings  # noqa: E402


class TestCode:
    @pytest.fixture
    def package(self, tmp_path):
        """A script that imports a package's modules in several ways."""
        files = {
            "main.py": "from pkg.a import f\ndef g():\n    import pkg.sub.lazy\n",
            "pkg/__init__.py": "",
            "pkg/a.py": "from pkg.sub import b\nf = 1\n",
            "pkg/other.py": "x = 1\n",
            "pkg/sub/__init__.py": "",
            "pkg/sub/b.py": 'def h():\n    """Says."""\n    return 1\n',
            "pkg/sub/lazy.py": "y = 1\n",
            "pkg/visualize/__init__.py": "",
        }
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "main.py", tmp_path / "pkg"

    def test_the_files_that_are_imported(self, package):
        names = {str(file.relative_to(package[0].parent)) for file in imported_files(*package)}
        assert names == {
            *("main.py", "pkg/__init__.py", "pkg/a.py"),
            *("pkg/sub/__init__.py", "pkg/sub/b.py", "pkg/sub/lazy.py"),
        }

    @pytest.mark.parametrize(
        ("name", "text", "changes"),
        [
            ("pkg/sub/b.py", "def h():\n    return 2\n", True),
            ("pkg/sub/lazy.py", "y = 2\n", True),
            ("main.py", "from pkg.a import f\n", True),
            ("pkg/sub/b.py", 'def h():  # why\n    """Tells."""\n\n    return 1\n', False),
            ("pkg/other.py", "x = 2\n", False),
        ],
    )
    def test_what_changes_the_digest(self, package, name, text, changes):
        before = training_code(*package)
        (package[0].parent / name).write_text(text)
        assert (training_code(*package) != before) == changes

    def test_a_run_imports_its_system_and_draws_outside_the_digest(self):
        names = {str(file.relative_to(ROOT)) for file in imported_files(MAIN, PACKAGE)}
        assert {
            *("scripts/main.py", "magnifier_plugin/recipe.py", "magnifier_plugin/__init__.py"),
            *("magnifier_plugin/losses/dsa.py", "magnifier_plugin/synthetic/renderer.py"),
        } <= names
        assert not any("visualize" in name or "bootstrap" in name for name in names)


class TestProcesses:
    def test_gpus_are_numbered_among_the_visible_ones(self, monkeypatch):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        assert visible_gpus([1, 0], count=lambda: 2) == ["1", "0"]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-abc")
        assert visible_gpus([1, 0], count=lambda: 2) == ["GPU-abc", "5"]

    def test_a_gpu_that_is_not_there(self):
        with pytest.raises(ConfigError, match=r"--gpus 2: no such GPU, found 0\.\.1"):
            visible_gpus([0, 2], count=lambda: 2)
        with pytest.raises(ConfigError, match="found none; leave out --gpus"):
            visible_gpus([0], count=lambda: 0)

    def test_the_last_epoch_of_a_log(self, tmp_path):
        log = tmp_path / "output.log"
        assert last_epoch(log) == ""
        log.write_bytes(b"\xffepoch: [1/30][2/9]\n" + b"x" * 2**15 + b"epoch: [12/30][9/9]\t\n")
        assert last_epoch(log) == "12/30"


class Terminal(io.StringIO):
    def isatty(self):
        return True


class TestProgress:
    def test_a_terminal_gets_one_table_updated_in_place(self, monkeypatch):
        monkeypatch.setenv("COLUMNS", "60")
        monkeypatch.setenv("LINES", "30")
        _, runs = plan("figure4", "magnifier_demo", seeds=(1, 2))
        screen = Terminal()
        progress = Progress(runs, screen)
        progress.set(runs[0], RUNNING)
        progress.detail(runs[0], "epoch 3/30")
        progress.draw()
        progress.set(runs[1], FINISHED, "mAP 50.0%")
        progress.draw()
        first, second = screen.getvalue().split("\x1b[3A")
        lines = second.replace("\x1b[K", "").replace("\r", "").splitlines()
        assert lines[0].split() == ["seed", "1", "seed", "2"]
        assert lines[1].split() == ["G+M+SAB+AB", "running", "epoch", "3/30", "waiting"]
        assert lines[2].split() == ["G+M+SAB+SFB", "finished", "mAP", "50.0%", "waiting"]
        assert "finished" not in first

    def test_the_start_has_a_seed_of_its_own(self, monkeypatch):
        monkeypatch.setenv("COLUMNS", "90")
        monkeypatch.setenv("LINES", "30")
        _, runs = plan("figure4", "magnifier_demo", start=1000)
        screen = Terminal()
        Progress(runs, screen).draw()
        lines = screen.getvalue().replace("\x1b[K", "").replace("\r", "").splitlines()
        assert lines[0].split() == ["seed", "1000", "seed", "1"]
        assert [line.split() for line in lines[1:4]] == [
            *(["start-1000", "waiting"], ["G+M+SAB+AB", "waiting"], ["G+M+SAB+SFB", "waiting"]),
        ]
        places = [line.index("waiting") for line in lines[1:4]]
        first, second = lines[0].index("seed"), lines[0].rindex("seed")
        assert places == [first, second, second]

    def test_a_small_terminal(self, monkeypatch):
        monkeypatch.setenv("COLUMNS", "20")
        monkeypatch.setenv("LINES", "5")
        _, runs = plan("table2", "magnifier_demo")
        screen = Terminal()
        Progress(runs, screen).draw()
        lines = screen.getvalue().replace("\x1b[K", "").replace("\r", "").splitlines()
        assert all(len(line) <= 20 for line in lines[:-1])
        assert lines[3] == "… and 4 more rows"

    def test_without_a_terminal_only_changes_are_printed(self):
        _, runs = plan("figure4", "magnifier_demo")
        stream = io.StringIO()
        progress = Progress(runs, stream)
        progress.set(runs[0], RUNNING)
        progress.detail(runs[0], "epoch 3/30")
        progress.draw()
        assert stream.getvalue() == "G+M+SAB+AB/seed-1: running\n"


class TestMaps:
    def dataset(self, folder, **options):
        return AnnotatedDataset("market1501", folder.root, masks_dir=folder.masks_dir, **options)

    @pytest.mark.parametrize(("name", "change"), [("eroded", erode), ("dilated", dilate)])
    def test_changed_label_maps(self, market, tmp_path, name, change):
        folder = market()
        write_manifest(
            folder.masks_dir / "market1501",
            Manifest("densepose", "densepose", label_set_definition()),
        )
        maps.make_maps(self.dataset(folder), tmp_path / "maps" / name, name)
        own = self.dataset(folder, inputs=("mask",)).files["labels"]
        moved = folder._replace(masks_dir=tmp_path / "maps" / name)
        made = self.dataset(moved, inputs=("mask",)).files["labels"]
        radius = scaled_radius(2, 32)
        for image, path in made.items():
            expected = change(read_labels(own[image]), radius)
            np.testing.assert_array_equal(read_labels(path), expected)
        assert read_manifest(tmp_path / "maps" / name / "market1501").label_set == "densepose"

    def test_missing_maps(self, market, tmp_path):
        folder = market(pids=tuple(range(10, 20)))
        found = {}
        for share in (30, 70, 100):
            name = f"missing-{share}"
            maps.make_maps(self.dataset(folder), tmp_path / name, name)
            moved = folder._replace(masks_dir=tmp_path / name)
            files = self.dataset(moved, inputs=("mask",), max_missing=1).files["labels"]
            found[share] = {image for image, file in files.items() if file is None}
            assert len(found[share]) == round(share / 100 * 40)
        assert found[30] < found[70] < found[100]

    def test_iuv_is_removed_with_the_label_maps(self, market, tmp_path):
        folder = market()
        labels = sorted((folder.masks_dir / "market1501" / "bounding_box_train").glob("*.png"))
        for label in labels:
            Image.new("RGB", (16, 32)).save(maps.iuv_path(label))
        maps.make_maps(self.dataset(folder), tmp_path / "maps", "missing-30")
        made = sorted(path.name for path in (tmp_path / "maps").rglob("*_IUV.png"))
        assert len(made) == round(0.7 * len(labels))
        assert all((next((tmp_path / "maps").rglob(n.replace("_IUV", "")))).is_file() for n in made)

    def test_they_are_made_once_and_of_one_source(self, market, tmp_path):
        folder, target = market(), tmp_path / "maps"
        maps.make_maps(self.dataset(folder), target, "eroded")
        before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
        maps.make_maps(self.dataset(folder), target, "eroded")
        assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before
        moved = folder.root.rename(tmp_path / "moved")
        folder = folder._replace(root=moved, masks_dir=moved / folder.masks_dir.name)
        label = next((folder.masks_dir / "market1501" / "bounding_box_train").glob("*.png"))
        os.utime(label, (0, 0))
        maps.make_maps(self.dataset(folder), target, "eroded")
        assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before
        write_labels(label, 7 - read_labels(label))
        with pytest.raises(ConfigError, match="made from other maps than market1501 has now"):
            maps.make_maps(self.dataset(folder), target, "eroded")


TINY = (
    "synthetic.identities 8 synthetic.cameras 2 synthetic.images 2 synthetic.height 64 "
    "synthetic.width 32 data.height 32 data.width 16 data.workers 0 train.batch_size 4 "
    "sampler.num_instances 2 train.checkpoint_freq 1 report.rankings 0 report.regions 0 amp off"
).split()


def test_people_of_each_seed_and_their_maps_are_made_before_any_row(tmp_path):
    pairs = (*TINY, "data.root", str(tmp_path / "data"))
    _, runs = plan("masks", "magnifier_demo", *pairs, seeds=(1, 2))
    settings = Settings(
        table=TABLES["masks"],
        config_file=DEMO,
        seeds=(1, 2),
        out=tmp_path / "out",
        pairs=pairs,
    )
    preparation.prepare_data(settings, runs)
    for seed in (1, 2):
        found = json.loads((tmp_path / f"data/seed-{seed}/synthetic/parameters.json").read_text())
        assert found["options"]["seed"] == seed
        folder = tmp_path / "out" / "maps" / f"seed-{seed}"
        labels = {n: len(list((folder / n).rglob("*[0-9].png"))) for n in maps.VARIANTS}
        assert list(labels.values()) == [16, 16, 11, 5, 0, 16]
        drawn = AnnotatedDataset(
            "synthetic",
            tmp_path / f"data/seed-{seed}",
            inputs=("mask",),
            masks_dir=folder / "keypoints",
            label_set="keypoints",
        )
        agreement = [
            (read_labels(path) == read_labels(label_path(image, *own))).mean()
            for own in [(drawn.dataset_dir, "market1501", drawn.dataset_dir.parent / "mask_labels")]
            for image, path in drawn.files["labels"].items()
        ]
        assert len(agreement) == 16 and 0.6 < np.mean(agreement) < 0.99
        dataset = AnnotatedDataset(
            "synthetic",
            tmp_path / f"data/seed-{seed}",
            inputs=("mask",),
            masks_dir=folder / "missing-30",
            max_missing=1,
        )
        assert sum(path is None for path in dataset.files["labels"].values()) == 5


@pytest.mark.parametrize(
    ("table", "config", "row"),
    [
        *(("masks", "magnifier_demo", row) for row in ("eroded", "missing-70", "keypoints")),
        ("dsa", "dsa_demo", "MF-only-missing-30"),
    ],
)
def test_a_row_with_maps_of_its_own_may_be_alone(tmp_path, table, config, row):
    pairs = (*TINY, "data.root", str(tmp_path / "data"))
    settings = Settings(
        table=TABLES[table].with_rows([row]),
        config_file=ROOT / "configs" / f"{config}.yaml",
        seeds=(1,),
        out=tmp_path / "out",
        pairs=pairs,
    )
    settings, note = preparation.leave_out_rows(settings)
    assert not note
    (run,) = make_runs(settings)
    preparation.prepare_data(settings, [run])
    assert (
        len(list(Path(run.cfg.masks.dir).rglob("*[0-9].png")))
        == {
            "eroded": 16,
            "keypoints": 16,
            "missing-70": 5,
            "MF-only-missing-30": 11,
        }[row]
    )


def test_interrupted_drawing_of_label_maps_is_done_again(tmp_path, monkeypatch):
    pairs = (*TINY, "data.root", str(tmp_path / "data"))
    _, runs = plan("masks", "magnifier_demo", *pairs, seeds=(1,))
    settings = Settings(
        table=TABLES["masks"], config_file=DEMO, seeds=(1,), out=tmp_path / "out", pairs=pairs
    )

    def interrupted(*arguments, images, **options):
        convert(*arguments, images=images[:3], **options)
        raise KeyboardInterrupt

    convert = maps.convert
    with monkeypatch.context() as patch:
        patch.setattr(maps, "convert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            preparation.prepare_data(settings, runs)
    folder = tmp_path / "out" / "maps" / "seed-1" / "keypoints"
    first = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert len(first) == 3
    preparation.prepare_data(settings, runs)
    assert len(list(folder.rglob("*.png"))) == 16
    assert all(path.stat().st_mtime_ns > time for path, time in first.items())


def test_rendered_people_without_keypoints_must_be_rendered_again(tmp_path):
    pairs = (*TINY, "data.root", str(tmp_path / "data"))
    _, runs = plan("masks", "magnifier_demo", *pairs, seeds=(1,))
    settings = Settings(
        table=TABLES["masks"], config_file=DEMO, seeds=(1,), out=tmp_path / "out", pairs=pairs
    )
    preparation.prepare_data(settings, runs)
    (tmp_path / "data/seed-1/synthetic/keypoints.json").unlink()
    with pytest.raises(ConfigError, match=r"synthetic: has no keypoints, .*remove .*synthetic to"):
        preparation.prepare_data(settings, runs)


def test_conditions_of_other_images(tmp_path):
    file = tmp_path / "c.csv"
    file.write_text("path,sun\nquery/9999_c1s1_000000_01.jpg,yes\n")
    pairs = (*TINY, "data.root", str(tmp_path / "data"), "test.conditions", str(file))
    _, runs = plan("table2", "magnifier_demo", *pairs)
    settings = Settings(
        table=TABLES["table2"], config_file=DEMO, seeds=(1,), out=tmp_path / "out", pairs=pairs
    )
    with pytest.raises(ValueError, match="query images, found none for 8 of them"):
        preparation.prepare_data(settings, runs)


def test_how_a_row_was_computed(tmp_path):
    """A row that was resumed elsewhere; interrupted and older runs say nothing."""
    facts = {"precision": "bf16", "gpus": ["H", "H"], "processor": "Abacus", "threads": 4}
    runs = [facts, {**facts, "gpus": []}, facts, {"precision": "fp8"}]
    for number, run in enumerate(runs):
        (tmp_path / f"run-{number}.json").write_text(json.dumps(run))
    (tmp_path / "run-9.json").write_text("{")
    way = {"precision": "bf16", "device": "H, H", "threads": 4}
    assert computed(tmp_path) == [way, {**way, "device": "Abacus"}]
    assert computed(tmp_path / "none") == []


class TestTheRowFromKeypoints:
    def settings(self, out, table="masks", config="magnifier_market", pairs=()):
        file = ROOT / "configs" / f"{config}.yaml"
        return Settings(table=TABLES[table], config_file=file, seeds=(1,), out=out, pairs=pairs)

    def own_maps(self, folder):
        """What convert_masks.py writes first."""
        write_manifest(folder, Manifest("keypoints", "keypoints", KeypointSource.definition))

    def test_needs_a_data_set_that_has_keypoints(self, tmp_path):
        left, note = preparation.leave_out_rows(self.settings(tmp_path))
        assert [row.name for row in left.table.rows] == [
            row.name for row in TABLES["masks"].rows if row.name != "keypoints"
        ]
        place = tmp_path / "maps" / "all-seeds" / "keypoints" / "market1501"
        assert f"-s market1501 --root reid-data --out {place}, and this command again" in note

    def test_alone_is_refused_without_keypoints(self, tmp_path):
        settings = self.settings(tmp_path)
        alone = replace(settings, table=settings.table.with_rows(["keypoints"]))
        with pytest.raises(ConfigError, match="no row is left; left out: .*market1501 has none"):
            preparation.leave_out_rows(alone)

    @pytest.mark.parametrize(
        ("table", "config"), [("masks", "magnifier_demo"), ("table2", "magnifier_market")]
    )
    def test_other_rows_do_not_change(self, tmp_path, table, config):
        settings = self.settings(tmp_path, table, config)
        assert preparation.leave_out_rows(settings) == (settings, "")

    def test_takes_label_maps_that_the_user_made(self, market, tmp_path):
        place = tmp_path / "maps" / "all-seeds" / "keypoints"
        self.own_maps(place / "market1501")
        settings = self.settings(tmp_path)
        assert preparation.leave_out_rows(settings) == (settings, "")
        folder = market()
        dataset = AnnotatedDataset("market1501", folder.root, masks_dir=folder.masks_dir)
        before = sorted(place.rglob("*"))
        maps.make_maps(dataset, place, "keypoints")
        assert sorted(place.rglob("*")) == before

    def test_of_own_data_is_named_as_its_label_maps_are(self, tmp_path):
        word = f"shop={make_images(tmp_path / 'photos', split_names())}"
        pairs = ("data.sources", f"market1501,{word}", "data.targets", "market1501")
        settings = self.settings(tmp_path, pairs=pairs)
        place = tmp_path / "maps" / "all-seeds" / "keypoints"
        self.own_maps(place / "market1501")
        with restored_registry():
            _, note = preparation.leave_out_rows(settings)
            assert "because shop has none" in note
            assert f"-s {word} --root reid-data --out {place / 'shop'}, and this" in note
            dataset = AnnotatedDataset(word)
            with pytest.raises(ConfigError, match="shop: expected keypoints or label") as caught:
                maps.make_maps(dataset, place, "keypoints")
            assert "remove" not in str(caught.value)
            self.own_maps(place / "shop")
            assert preparation.leave_out_rows(settings) == (settings, "")
            maps.make_maps(dataset, place, "keypoints")


def test_missing_data_end_it_before_a_row_starts(tmp_path):
    _, runs = plan("table2", "magnifier_market", "data.root", str(tmp_path), seeds=(1, 2))
    settings = Settings(
        table=TABLES["table2"],
        config_file=ROOT / "configs" / "magnifier_market.yaml",
        seeds=(1, 2),
        out=tmp_path / "out",
    )
    for unfinished in (runs, runs[-1:]):
        with pytest.raises(FileNotFoundError, match="bounding_box_train"):
            preparation.prepare_data(settings, unfinished)


def content(table, seeds=(1, 2)):
    """A report's rows, for drawing."""
    rng = np.random.default_rng(0)
    return {
        "seeds": list(seeds),
        "data_set": "synthetic",
        "rows": [
            {
                "name": row.name,
                "mean": {m: float(rng.uniform(0.5, 0.7)) for m in ("mAP", "rank-1")},
                "standard_deviation": dict.fromkeys(
                    ("mAP", "rank-1"), 0.02 if len(seeds) > 1 else None
                ),
            }
            for row in table.rows
        ],
    }


@pytest.mark.parametrize("seeds", [(1,), (1, 2, 3)])
@pytest.mark.parametrize("table", [FIGURE4, FIGURE5], ids=lambda table: table.name)
def test_figures_are_drawn(table, seeds, tmp_path):
    for data_set in ("", "CUHK03-L"):
        save_figure(table, content(table, seeds), tmp_path / f"figure{data_set}.png", data_set)
    drawn = [np.asarray(Image.open(tmp_path / f"figure{name}.png")) for name in ("", "CUHK03-L")]
    assert drawn[0].shape[1] > 800
    same = drawn[0].shape == drawn[1].shape and (drawn[0] == drawn[1]).all()
    assert same == (table is FIGURE4)  # the paper prints no value of Fig. 4


@pytest.mark.slow
def test_a_row_that_is_killed_while_it_trains_continues(tmp_path):
    """With the real script: a run of figure4 is killed, and the next call resumes it."""
    out = tmp_path / "out"
    line = [sys.executable, ROOT / "scripts" / "reproduce.py", "figure4", "--config-file", DEMO]
    line += ["--seeds", "1", "--out", out, "--jobs", "2", "data.root", tmp_path / "data", *TINY]
    line += ["stages.1.max_epoch", "30", "train.print_freq", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = {"env": environment, "cwd": tmp_path, "capture_output": True, "text": True}
    process = subprocess.Popen(
        list(map(str, line)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    row = out / "G+M+SAB+AB" / "seed-1"
    deadline = time.monotonic() + 120
    while not any((row / "model").glob("model.pth.tar-?")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(read_record(row).processes[0], signal.SIGKILL)
    assert process.wait(timeout=300) == 1
    assert not (row / "results.json").is_file()
    assert (out / "G+M+SAB+SFB" / "seed-1" / "results.json").is_file()

    again = subprocess.run(list(map(str, line)), **options, check=False)
    assert again.returncode == 0, again.stderr
    log = (row / "output.log").read_text()
    assert "=> Resumed from" in log
    assert [log.count(f"epoch: [{epoch}/35][1/") for epoch in (1, 35)] == [1, 1]
    assert read_record(row).finished
    assert "| SFB | " in (out / "table.md").read_text()
    results = json.loads((out / "results.json").read_text())
    assert {row["name"] for row in results["rows"]} == {"G+M+SAB+AB", "G+M+SAB+SFB"}
    conditions = results["rows"][0]["seeds"]["1"]["conditions"]
    assert {"occluded", "visible", "twin", "heading", "cut"} <= set(conditions)
    assert (row / RECORD).is_file()


@pytest.mark.slow
def test_a_shared_first_stage_changes_no_number(tmp_path):
    """With the real script: Table 2's last row alone, and after the row with the same stage 1."""
    queries, losses = [], []
    for rows in (["G+M+SAB+SFB+SD"], ["G+M+SAB+SFB", "G+M+SAB+SFB+SD"]):
        out = tmp_path / str(len(rows))
        line = [sys.executable, ROOT / "scripts" / "reproduce.py", "table2", "--config-file", DEMO]
        line += ["--rows", *rows, "--seeds", "1", "--out", out]
        line += ["data.root", tmp_path / "data", *TINY]
        subprocess.run(list(map(str, line)), env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
        queries.append((out / "G+M+SAB+SFB+SD" / "seed-1" / "queries.csv").read_text())
        losses.append(last_losses(out / "G+M+SAB+SFB+SD" / "seed-1" / "output.log"))
    log = (tmp_path / "2" / "G+M+SAB+SFB+SD" / "seed-1" / "output.log").read_text()
    assert "=> Resumed from" in log
    assert "epoch: [1/" not in log
    assert queries[0] == queries[1]
    assert losses[0] == losses[1]
    # Eight queries have the same ranks with and without L_SD on some processors; losses do not.
    assert losses[0] != last_losses(tmp_path / "2" / "G+M+SAB+SFB" / "seed-1" / "output.log")


def last_losses(log):
    """The branches' losses that the last epoch printed."""
    *_, last = re.findall(
        r"^epoch: \[30/30\].*\t(cls_G .*\tcls_regions [^\t]+)", log.read_text(), re.M
    )
    return last
