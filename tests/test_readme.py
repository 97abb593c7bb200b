"""The README's python blocks run, its configuration keys and files exist."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torchreid
from tiny import tiny_model

import magnifier_plugin
from magnifier_plugin.config import load_config
from magnifier_plugin.engine.stages import Stage
from magnifier_plugin.systems import SYSTEMS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_blocks_run(market_folder, tmp_path, monkeypatch):
    manager = torchreid.data.ImageDataManager
    small = {"height": 32, "width": 16, "batch_size_train": 4, "workers": 0, "use_gpu": False}
    monkeypatch.setenv("MAGNIFIER_MASKS", str(market_folder.masks_dir))
    monkeypatch.setattr(torchreid.data, "ImageDataManager", lambda **o: manager(**{**o, **small}))
    monkeypatch.setattr(magnifier_plugin, "build_model", lambda _, classes: tiny_model(classes))
    row = replace(SYSTEMS["magnifiernet"], stages=lambda: (Stage(max_epoch=1),))
    monkeypatch.setitem(SYSTEMS, "magnifiernet", row)
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("python"):
        exec(block, names)
    names["train"](str(market_folder.root))
    assert (tmp_path / "log" / "magnifiernet" / "results.json").is_file()


def test_configuration_keys_exist():
    pairs = re.findall(r"`((?:\w+\.)+\w+) ([^`\s…]+)[^`]*`", README)
    known = [(key, value) for key, value in pairs if key.split(".")[0] in load_config(None)]
    assert len(known) > 10
    market = ROOT / "configs" / "magnifier_market.yaml"
    for key, value in known:
        load_config(market, {}, [key, value.rstrip(",;")])


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_linked_files_exist(link):
    assert (ROOT / link).exists()


def test_scripts_and_their_flags_exist():
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    commands = [line for line in lines if "scripts/" in line]
    assert commands
    for line in commands:
        (script,) = re.findall(r"scripts/\w+\.py", line)
        source = (ROOT / script).read_text(encoding="utf-8")
        for flag in re.findall(r"\s(--[\w-]+)", line):
            assert flag in source, f"{script} {flag}"
