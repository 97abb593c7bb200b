"""In CI, a test that is skipped because a program or a package is missing fails."""

from types import SimpleNamespace

import pytest
from conftest import no_skips


@pytest.mark.parametrize(
    ("reason", "ci", "outcome"),
    [
        ("could not import 'onnx'", "true", "failed"),
        ("expected one of chromium, found none", "true", "failed"),
        ("could not import 'onnx'", "", "skipped"),
        ("/x/shared/data/a.png is not here", "true", "skipped"),
        ("this user may write everywhere", "true", "skipped"),
        ("needs a CUDA device", "true", "skipped"),
    ],
)
def test_outcome(monkeypatch, reason, ci, outcome):
    monkeypatch.setenv("CI", ci)
    report = SimpleNamespace(skipped=True, outcome="skipped", longrepr=("a.py", 1, reason))
    assert no_skips(report).outcome == outcome
    assert reason in str(report.longrepr)


def test_an_expected_failure_is_not_a_skip(monkeypatch):
    monkeypatch.setenv("CI", "true")
    report = SimpleNamespace(skipped=True, wasxfail="", outcome="skipped", longrepr="")
    assert no_skips(report).outcome == "skipped"
