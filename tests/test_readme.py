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
# Not all *.md: scripts write such files too, such as `--out looks`.
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("[!.]*/**/README.md"))]
README = PAGES[0].read_text(encoding="utf-8")


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_configuration_keys_exist(page):
    """`key value` pairs in backticks, also several in one span, load with the system's file."""
    for span in re.findall(r"`((?:\w+\.)+\w+ [^`…]+)`", page.read_text(encoding="utf-8")):
        words = span.split()
        if words[0].split(".")[0] not in load_config(None) or len(words) % 2:
            continue
        section = "dsa" if " dsa." in f" {span}" else "magnifier"
        load_config(ROOT / "configs" / f"{section}_market.yaml", {}, words)


def test_lines_are_short():
    for page in [*PAGES, *ROOT.glob(".github/*.md")]:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
            is_table_or_link = line.startswith("|") or "](" in line
            assert len(line) <= 120 or is_table_or_link, f"{page}:{number}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_linked_files_exist(page):
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


def test_scripts_and_their_flags_exist():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    found = re.findall(r"```(?:bash|sh)\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(found).replace("\\\n", " ").splitlines()
    commands = [line for line in lines if "scripts/" in line]
    assert commands
    for line in commands:
        (script,) = re.findall(r"scripts/\w+\.py", line)
        source = (ROOT / script).read_text(encoding="utf-8")
        source += (ROOT / "scripts" / "arguments.py").read_text(encoding="utf-8")
        # Flags before the script's name belong to its launcher, such as torchrun.
        for flag in re.findall(r"\s(--[\w-]+)", line.partition(script)[2]):
            assert flag in source, f"{script} {flag}"
