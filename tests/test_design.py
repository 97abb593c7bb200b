"""Rules of the code base that a program can check."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "magnifier_plugin"
FILES = sorted(PACKAGE.rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
# The order of the design: a file imports from its own package or an earlier one.
PACKAGES = (
    ("regions",),
    ("wording",),
    ("files",),
    ("images",),
    ("folders",),
    ("text_files",),
    ("failures",),
    ("workers",),
    ("config_systems",),
    ("config_tree",),
    ("config_checks",),
    ("config_values",),
    ("config_files",),
    ("config_stages",),
    ("config",),
    ("annotators",),
    ("catalogue",),
    ("masks",),
    ("data",),
    ("models",),
    ("losses",),
    ("evaluation",),
    ("visualize",),
    ("engine",),
    ("synthetic",),
    ("export",),
    ("effects",),
    ("systems",),
    ("builders",),
    ("option_checks",),
    ("resuming",),
    ("retrieval",),
    ("recipe",),
    ("registry",),
    ("user_modules",),
    ("__init__",),
    ("__main__",),
)


def place(parts):
    name = parts[0].removesuffix(".py") if parts else "__init__"
    return next(i for i, names in enumerate(PACKAGES) if name in names)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_order_of_packages(path):
    own = place(path.relative_to(PACKAGE).parts)
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "magnifier_plugin":
            assert place(rest) <= own, f"{path} imports {name}"
        assert not name.startswith("torchreid."), f"{path}: {name} exists in one distribution only"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            start = first.end_lineno if docstring else node.lineno
            assert node.end_lineno - start <= 40, f"{path}:{node.lineno} {node.name}"


def test_importing_is_silent_quick_and_repeatable():
    code = """
import builtins, importlib, random, time
import torch

load, seconds = builtins.__import__, {}
def timed(name, *rest, **named):
    start = time.process_time()
    module = load(name, *rest, **named)
    seconds[name] = max(seconds.get(name, 0), time.process_time() - start)
    return module

random.seed(1); torch.manual_seed(1); state = random.getstate(), torch.get_rng_state()
builtins.__import__ = timed
import magnifier_plugin
builtins.__import__ = load
own = seconds["magnifier_plugin"] - seconds["torchreid"]  # 0.24 s; 0.6 on a slow machine
assert own < max(0.6, 0.5 * seconds["torchreid"]), seconds
magnifier_plugin.register(); importlib.reload(magnifier_plugin)
assert random.getstate() == state[0] and torch.equal(torch.get_rng_state(), state[1])
assert not torch.cuda.is_initialized()
"""
    command = [sys.executable, "-W", "always::UserWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "Warning" not in done.stderr


def test_a_taken_name_is_an_error():
    import torchreid

    from magnifier_plugin import registry

    models = vars(torchreid.models)["__model_factory"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models, "magnifiernet", print)
        with pytest.raises(RuntimeError, match="'magnifiernet' is taken already"):
            registry.register()
        patch.undo()
        patch.setattr(torchreid.engine, "ImageMagnifierEngine", print)
        with pytest.raises(RuntimeError, match="ImageMagnifierEngine' is taken"):
            registry.register()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_builds(path):
    from magnifier_plugin import builders, recipe
    from magnifier_plugin.config import load_config

    cfg = load_config(path, {}, ["model.pretrained", "False"])
    system = builders.find_system(cfg)
    recipe.check_options(cfg, system, typed=())
    with torch.device("meta"):
        model = builders.build_network(cfg, system, 5)
    assert model.feature_dim == (1024 if cfg[system.section].backbone == "resnet18" else 4096)
    assert (model.training_inputs, model.test_inputs) == system.inputs(cfg)
    assert isinstance(builders.build_criterion(cfg, system), system.criterion)
    if system.section == "magnifier":
        stages = builders.build_stages(cfg, system)
        assert [bool(stage.loss_weights.get("sd")) for stage in stages] == [False, True]


def test_types_are_shipped():
    """Without this file, type checkers of users' code treat the package as untyped."""
    assert (PACKAGE / "py.typed").is_file()
    assert '"py.typed"' in (ROOT / "setup.py").read_text(encoding="utf-8")
