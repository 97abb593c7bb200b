"""Figures that are planned during a test and drawn after it."""

import logging

import torch

from magnifier_plugin.engine import pictures
from magnifier_plugin.engine.pictures import Pictures


def test_one_that_cannot_be_written_stops_no_other(monkeypatch, caplog, tmp_path):
    def full(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(pictures, "save_rankings", full)
    monkeypatch.setattr(pictures, "save_ranking_sheet", lambda *arguments: arguments[3])
    planned, distances = Pictures(), torch.zeros(1, 1)
    planned.plan_rankings(distances, ([], []), tmp_path, topk=1)
    planned.plan_sheet(distances, ([], []), tmp_path / "sheet.png", count=1, topk=1)
    with caplog.at_level(logging.ERROR):
        planned.draw()
        planned.draw()  # nothing is planned now
    assert planned.drawn == [tmp_path / "sheet.png"]
    assert [record.getMessage() for record in caplog.records] == ["Not drawn: no space left"]
