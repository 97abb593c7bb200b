"""The scripts' command lines: wrong values end with a message and status 2; --help is fast."""

import ast
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from mask_inputs import PROJECT, script

from magnifier_plugin.annotators import detections, keypoints
from magnifier_plugin.evaluation.distances import METRICS
from magnifier_plugin.evaluation.rerank import FORMS
from magnifier_plugin.files import absolute_path
from magnifier_plugin.regions import BODY_REGIONS
from magnifier_plugin.synthetic.options import SyntheticOptions

SCRIPTS = {
    "check_dataset": "-s market1501",
    "check_masks": "-s market1501",
    "convert_masks": "--source npy --npy a --images b --out c",
    "render_pedestrians": "--root a",
}


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        *((name, f"--workers {n}", "at least 1, got") for name in SCRIPTS for n in ("0", "-1")),
        *((name, "--workers two", "at least 1, got 'two'") for name in SCRIPTS),
        *(("check_masks", f"--max-missing {n}", "from 0 to 1, got") for n in ("nan", "1.1", "x")),
        ("check_masks", "--max-missing -0.1", "from 0 to 1, got '-0.1'"),
        ("check_masks", "--min-regions 8", "whole number, 1..7, got '8'"),
        ("check_masks", "--limit -1", "at least 0, got '-1'"),
        ("convert_masks", "--min-score nan", "from 0 to 1, got 'nan'"),
        ("render_pedestrians", "--rows 0", "at least 1, got '0'"),
        ("render_pedestrians", "--contact-sheet a.jpg", "expected a .png file to write, got "),
    ],
)
def test_wrong_values(name, wrong, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [f"{name}.py", *SCRIPTS[name].split(), *wrong.split()])
    with pytest.raises(SystemExit, match="2"):
        script(name).main()
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


HELP = """
import runpy, sys, time
start = time.process_time()
sys.argv = [sys.argv[1], "--help"]
sys.path.insert(0, "scripts")
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert end.code == 0
assert "torch" not in sys.modules, "torch was imported"
assert "magnifier_plugin" not in sys.modules, "the package was imported"
assert time.process_time() - start < 1
"""


@pytest.mark.parametrize("path", sorted((PROJECT / "scripts").glob("*.py")), ids=lambda p: p.name)
def test_help_imports_nothing_slow(path):
    if path.name == "arguments.py":
        return
    command = [sys.executable, "-c", HELP, str(path.relative_to(PROJECT))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout


def test_choices_repeated_in_scripts_equal_the_packages():
    """The scripts parse their arguments before the package is imported."""
    assert script("rerank").METRICS == METRICS
    assert script("rerank").FORMS == FORMS
    assert len(BODY_REGIONS) == script("check_masks").BODY_REGIONS
    converter = script("convert_masks")
    assert converter.MIN_SCORES == {
        "densepose-dump": detections.MIN_SCORE,
        "densepose-json": detections.MIN_SCORE,
        "keypoints": keypoints.MIN_SCORE,
    }
    assert set(converter.NEEDED) == set(converter.OPTIONAL) == set(converter.SOURCES)
    defaults = {
        name: default for name, (default, _) in script("render_pedestrians").OPTIONS.items()
    }
    assert defaults == {field.name: field.default for field in fields(SyntheticOptions)}
    for text in ("a/../b", "~/x", "/y/../z"):
        assert sys.modules["arguments"].path(text) == absolute_path(text)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("main", "-s market1501"),
        ("main", "--root=reid.data"),
        ("reproduce", "table2 --config-file a.yaml --out b.c --seeds 1 --quick"),
        ("reproduce", "table2 --config-file a.yaml --seeds 1 --out=b.c"),
        ("reproduce", "table2 --config-file a.yaml --out b.c --seeds 1 --rows G G+M"),
        ("saliency", "-s market1501 --weights w.tar --out b.c --branches"),
        ("search", "--gallery g.npz --query q.jpg --weights w.tar --out p.html --rerank"),
        ("extract", "my.photos --weights w.tar --out f.npz --flip"),
        ("export_onnx", "--weights w.tar --out f.onnx --regions"),
    ],
)
def test_the_first_key_ends_the_flags(name, line):
    """Also after a flag that takes no value, or several, or one after a =."""
    pairs = ["data.height", "64"]
    parsed = script(name).parse([*line.split(), *pairs])
    assert (parsed[1] if isinstance(parsed, tuple) else parsed.pairs) == pairs


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("npy --npy a --min-score 0.9", "--min-score: --source npy does not use it"),
        ("npy --npy a --hands background", "--hands: --source npy does not use it"),
        ("npy --npy a --label-set lip", "--label-set: --source npy does not use it"),
        ("densepose-iuv --iuv a --dump b", "--dump: --source densepose-iuv does not use it"),
        ("densepose-dump --dump a --annotations b", "--annotations: --source densepose-dump does"),
        (
            "parsing --parsing a --labels lip --min-score 0.9 --hands background --annotations b",
            "--annotations and --hands and --min-score: --source parsing does not use them",
        ),
        (
            "keypoints --keypoints a --hands background",
            "--hands: --source keypoints does not use it",
        ),
        ("keypoints --keypoints a --hands=background", "--hands: --source keypoints does not"),
    ],
)
def test_options_of_another_source(line, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        script("convert_masks").parse(["--source", *line.split(), "-s", "market1501"])
    assert f"error: {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "line", "source"),
    [
        ("check_dataset", "-s market1501", "market1501"),
        ("check_dataset", "-s cuhk03=photos", "cuhk03=photos"),
        ("check_masks", "-s market1501", "market1501"),
        ("convert_masks", "--source npy --npy a -s market1501", "market1501"),
        ("convert_masks", "--source npy --npy a --images b --out c", "images without -s"),
    ],
)
def test_labelled_boxes_of_another_data_set(name, line, source, capsys):
    with pytest.raises(SystemExit, match="2"):
        script(name).parse([*line.split(), "--cuhk03-labeled"])
    message = f"error: --cuhk03-labeled: has no effect on {source}"
    assert message in capsys.readouterr().err


def test_labelled_boxes_of_cuhk03():
    for line in ("-s cuhk03", "-s cuhk03_masked", "-s mine --import my_module"):
        assert script("check_dataset").parse([*line.split(), "--cuhk03-labeled"]).cuhk03_labeled


def test_options_of_each_source():
    """All that it needs or can use together; the others have their defaults."""
    converter = script("convert_masks")
    values = {"hands": "background", "min_score": "0.9", "label_set": "lip"}
    for source, needed in converter.NEEDED.items():
        words = ["--source", source, "-s", "market1501"]
        for name in needed:
            words += [converter.flags([name]), values.get(name, "a")]
        args = converter.parse(words)
        assert args.hands == "lower arm" and args.min_score == converter.MIN_SCORES.get(source)
        for name in converter.OPTIONAL[source]:
            words += [converter.flags([name]), values.get(name, "a")]
        args = converter.parse(words)
        assert args.hands == (
            "background" if "hands" in converter.OPTIONAL[source] else "lower arm"
        )
        assert args.min_score == (0.9 if source in converter.MIN_SCORES else None)


@pytest.mark.parametrize("readme", ["README.md", "mask_labels/README.md"])
def test_commands_of_the_readmes_are_accepted(readme):
    text = (PROJECT / readme).read_text().replace("\\\n", " ")
    commands = re.findall(r"^ *python scripts/convert_masks.py (--source [^\n]*)$", text, re.M)
    commands += [f"{found} -s market1501" for found in re.findall(r"`(--source [^`…]*)`", text)]
    assert commands
    for command in commands:
        script("convert_masks").parse(shlex.split(command))


@pytest.mark.parametrize("flag", ["--masks-dir", "--masks"])
def test_both_spellings_of_the_folder_of_label_maps(flag):
    parsed = script("check_masks").parse(["-s", "market1501", flag, "maps"])
    assert parsed.masks_dir == absolute_path("maps")


@pytest.mark.parametrize("flag", ["--label-set", "--labels"])
def test_both_spellings_of_the_label_set(flag, capsys):
    parse = script("convert_masks").parse
    line = ["--source", "parsing", "--parsing", "found", "-s", "market1501"]
    assert parse([*line, flag, "lip"]).label_set == "lip"
    with pytest.raises(SystemExit, match="2"):
        parse(line)
    assert "--source parsing needs --label-set\n" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((PROJECT / "scripts").glob("*.py")), ids=lambda p: p.name)
def test_scripts_escape_what_standard_output_cannot_encode(path):
    """The first statement of `main`, since a path in any later message may be undecodable."""
    if path.name == "arguments.py":
        return
    functions = {
        f.name: f for f in ast.parse(path.read_text()).body if isinstance(f, ast.FunctionDef)
    }
    assert ast.unparse(functions["main"].body[1]) == "escape_unencodable()"


def test_undecodable_names_are_printed_as_escapes(tmp_path):
    folder = f"{tmp_path}/runs\udcff"
    pairs = ["data.save_dir", folder, "--root", f"{tmp_path}/data\udcfe"]
    command = [
        sys.executable,
        PROJECT / "scripts" / "main.py",
        *pairs[2:],
        "-s",
        "market1501",
        *pairs[:2],
    ]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "data\\udcfe" in done.stderr
    assert f"save_dir: {tmp_path}/runs\\udcff" in done.stdout
    [log] = Path(folder).iterdir()
    assert f"save_dir: {tmp_path}/runs\\udcff" in log.read_text()


@pytest.mark.parametrize(
    ("name", "line", "flag"),
    [
        ("main", "--config-file a.yaml train.lr 1e-3 --root b", "--root"),
        ("main", "--config-file a.yaml train.lr --root b", "--root"),
        ("main", "train.lr 1e-3 --gpu-devices=0", "--gpu-devices=0"),
        (
            "reproduce",
            "table2 --config-file a --seeds 1 --out b train.lr 1 --quick",
            "--quick",
        ),
        ("extract", "photos --weights w data.workers 0 --out f.npz", "--out"),
    ],
)
def test_a_flag_after_the_pairs_is_refused(name, line, flag, capsys):
    with pytest.raises(SystemExit) as end:
        script(name).parse(line.split())
    assert end.value.code == 2
    assert f"error: {flag}: expected flags before the KEY VALUE pairs" in capsys.readouterr().err


def test_a_value_may_start_with_a_dash():
    _, pairs = script("main").parse("test.eval_freq -1 train.lr 1e-3".split())
    assert pairs == ["test.eval_freq", "-1", "train.lr", "1e-3"]


def test_ctrl_c_ends_a_script_with_one_line(capsys):
    def interrupted():
        raise KeyboardInterrupt

    exit_with = script("arguments").exit_with
    for main, status in ((lambda: 0, 0), (lambda: 2, 2), (interrupted, 130)):
        with pytest.raises(SystemExit) as end:
            exit_with(main)
        assert end.value.code == status
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("path", sorted((PROJECT / "scripts").glob("*.py")), ids=lambda p: p.name)
def test_every_script_handles_ctrl_c(path):
    if path.name == "arguments.py":
        return
    text = path.read_text()
    assert text.endswith("    exit_with(main)\n") or "except KeyboardInterrupt:" in text
