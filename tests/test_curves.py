"""The figure of a training run's losses."""

from matplotlib.figure import Figure

from magnifier_plugin.visualize.curves import save_curves


def test_every_term_and_metric_of_any_stage_is_drawn(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.append(figure))
    monkeypatch.setattr("magnifier_plugin.visualize.curves.write_atomically", open_nothing)
    entry = {"epoch": 1, "stage": 1, "lr": 0.1, "loss": 3.0, "cls_G": 2.0, "cls_SAB": 1.0}
    later = {**entry, "epoch": 2, "stage": 2, "colour": 0.5, "mAP": 0.25}
    save_curves([entry, later], tmp_path / "curves.png")
    panels = {
        axes.get_title(): [line.get_label() for line in axes.get_lines()]
        for axes in drawn[0].axes
        if axes.get_title()
    }
    assert panels["cross entropy"][:2] == ["cls_G", "cls_SAB"]
    assert panels["total loss"][0] == "loss"
    assert panels["colour"][0] == "colour"  # only in stage 2, and with an unknown prefix
    assert panels["learning rate, and mAP in %"][0] == "lr"


def test_the_figure_is_written(tmp_path):
    save_curves([{"epoch": 1, "stage": 1, "lr": 0.1, "loss": 3.0}], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


class open_nothing:
    def __init__(self, path):
        self.path = path

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        return False
