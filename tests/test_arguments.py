"""The scripts' command lines: wrong values end with a message and status 2."""

import pytest
from mask_inputs import script

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
    ],
)
def test_wrong_values(name, wrong, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [f"{name}.py", *SCRIPTS[name].split(), *wrong.split()])
    with pytest.raises(SystemExit, match="2"):
        script(name).main()
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
