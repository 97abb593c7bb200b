"""The rows of the papers' tables: their changes, the papers' values, refusals."""

import sys
from pathlib import Path

import pytest

from magnifier_plugin.config import ConfigError, load_config, stage_settings

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
sys.path.insert(0, str(ROOT / "scripts"))
from reproduction import plan as plan_module  # noqa: E402
from reproduction.identity import identity  # noqa: E402
from reproduction.maps import VARIANTS  # noqa: E402
from reproduction.plan import make_runs  # noqa: E402
from reproduction.rows import TABLES  # noqa: E402
from reproduction.settings import Settings  # noqa: E402

OUT = Path("/out")
FULL = ["G", "M", "SAB", "SFB"]


def plan(table, config, *pairs, seeds=(1,), quick=False, start=None):
    """The runs of the first seed, by the row's name."""
    settings = Settings(
        table=TABLES[table],
        config_file=CONFIGS / f"{config}.yaml",
        seeds=seeds,
        out=OUT,
        pairs=pairs,
        quick=quick,
        start=start,
    )
    runs = make_runs(settings)
    return {run.row.name: run for run in runs if run.seed == seeds[0]}, runs


def sd(cfg):
    return stage_settings(cfg)[1]["loss_weights"]["sd"]


class TestTables:
    @pytest.mark.parametrize(
        "config",
        ["magnifier_market", "magnifier_market_authors", "magnifier_cuhk03_labeled"],
    )
    @pytest.mark.parametrize("table", ["table2", "figure4", "figure5", "sab", "stage2", "masks"])
    def test_magnifiernets_configurations_take_them(self, table, config):
        runs, _ = plan(table, config)
        for run in runs.values():
            assert run.cfg.train.max_epoch == 500
            assert run.folder == OUT / run.row.name / "seed-1"

    def test_label_maps_may_be_elsewhere(self):
        """Rows with maps of their own use these."""
        runs, _ = plan("table2", "magnifier_market", "masks.dir", "/maps")
        assert {run.cfg.masks.dir for run in runs.values()} == {"/maps"}
        runs, _ = plan("masks", "magnifier_market", "masks.dir", "/maps")
        assert runs["G+M+SAB+SFB+SD"].cfg.masks.dir == "/maps"
        assert runs["eroded"].cfg.masks.dir.startswith(f"{OUT}/")

    @pytest.mark.parametrize("config", ["dsa_market", "dsa_demo"])
    def test_dsas_configurations_take_them(self, config):
        runs, _ = plan("dsa", config)
        assert len(runs) == 12 + 1 + 2

    @pytest.mark.parametrize("table", TABLES)
    def test_names_are_folders_and_pairs_are_rows(self, table):
        rows = TABLES[table].rows
        assert len({row.name for row in rows}) == len(rows)
        assert not any(set(row.name) & set(" /") for row in rows)
        assert all(row.maps in ("", *VARIANTS) for row in rows)
        assert {name for row in rows for name in row.against} <= {row.name for row in rows}
        pairs = TABLES[table].pairs()
        assert len(pairs) >= len(rows) - 1
        assert all(first is not second for first, second in pairs)

    def test_what_is_compared(self):
        def compared(table):
            return [(a.name, b.name) for a, b in TABLES[table].pairs()]

        assert compared("table2") == [
            ("G", "G+M"),
            ("G+M", "G+M+SAB"),
            ("G+M", "G+M+SFB"),
            ("G+M+SAB", "G+M+SAB+SFB"),
            ("G+M+SFB", "G+M+SAB+SFB"),
            ("G", "G+M+SAB+SFB"),
            ("G+M+SAB+SFB", "G+M+SAB+SFB+SD"),
            ("G", "G+M+SAB+SFB+SD"),
        ]
        assert {first for first, _ in compared("masks")} == {"G+M+SAB+SFB+SD"}
        assert {first for first, _ in compared("stage2")} == {"no-SD-1e-3"}
        assert ("baseline-4", "G+M+SAB+SFB") in compared("figure5")
        assert ("Baseline-RE-LS", "Global-single") in compared("dsa")
        assert ("DSAP-alone", "MF-only-missing-30") not in compared("dsa")

    def test_rows_share_a_first_stage_with_the_same_seed_alone(self):
        names = {}
        for table, system in (("table2", "magnifier"), ("stage2", "magnifier"), ("dsa", "dsa")):
            _, runs = plan(table, f"{system}_market", seeds=(1, 2))
            names[table] = {run.name: run.shares.name for run in runs if run.shares}
            assert all(run.needs is None or run.needs in runs for run in runs)
            kept = {run for run in runs if "train.keep_freq" in run.pairs}
            assert kept == {run.shares for run in runs if run.shares}
        assert names["table2"] == {
            f"G+M+SAB+SFB+SD/seed-{seed}": f"G+M+SAB+SFB/seed-{seed}" for seed in (1, 2)
        }
        assert set(names["stage2"].values()) == {"no-SD-1e-3/seed-1", "no-SD-1e-3/seed-2"}
        assert len(names["stage2"]) == 8
        assert not names["dsa"]

    def test_some_rows_only(self):
        """Rows are in the table's order; a comparison disappears with the row that it needs."""
        table = TABLES["table2"].with_rows(["G+M+SAB+SFB", "G"])
        assert [row.name for row in table.rows] == ["G", "G+M+SAB+SFB"]
        assert [(a.name, b.name) for a, b in table.pairs()] == [("G", "G+M+SAB+SFB")]
        message = r"rows of table2 \(G, G\+M, .*\), got H, X"
        with pytest.raises(ValueError, match=message):
            TABLES["table2"].with_rows(["X", "G", "H"])
        tested = next(row for row in TABLES["dsa"].rows if row.weights_of)
        with pytest.raises(ValueError, match=f"weights of {tested.weights_of}; add that row"):
            TABLES["dsa"].with_rows([tested.name])

    def test_rows_with_the_same_name_have_the_same_configuration(self):
        """This lets tables in one folder share rows."""
        known = {}
        for table in ("table2", "figure4", "figure5", "sab", "masks"):
            for name, run in plan(table, "magnifier_market")[0].items():
                values = identity(run.cfg, OUT)
                assert known.setdefault(name, values) == values

    @pytest.mark.parametrize("config", ["magnifier_market", "magnifier_market_authors"])
    def test_sab_with_and_without_its_triplet_loss(self, config):
        """Whichever of the two the configuration has."""
        runs, _ = plan("sab", config)
        without = {name for name in runs if "-ce" in name}
        assert without == {"G+M+SAB-ce", "G+M+SAB-ce+SFB", "G+M+SAB-ce+SFB+SD"}
        for name in without:
            same = identity(runs[name.replace("-ce", "")].cfg, OUT)
            assert same["magnifier.sab_triplet"] is True
            assert identity(runs[name].cfg, OUT) == same | {"magnifier.sab_triplet": False}
        compared = [(a.name, b.name) for a, b in TABLES["sab"].pairs() if "-ce" in b.name]
        assert [a for a, b in compared if b == "G+M+SAB-ce"] == ["G+M+SAB", "G+M"]
        assert [a for a, b in compared if b == "G+M+SAB-ce+SFB"] == ["G+M+SAB+SFB", "G+M+SFB", "G"]

    def test_table2(self):
        runs, _ = plan("table2", "magnifier_market")
        for name, run in runs.items():
            parts = name.split("+")
            assert run.cfg.magnifier.branches == [part for part in parts if part != "SD"]
            assert sd(run.cfg) == (2e-3 if "SD" in parts else 0)
        assert runs["G+M+SFB"].row.printed["DukeMTMC"] == (75.2, 86.7)
        assert runs["G+M+SAB+SFB+SD"].row.printed["CUHK03-L"] == (79.6, 82.4)

    def test_figure4(self):
        runs, _ = plan("figure4", "magnifier_market")
        fusions = [(run.row.title, run.cfg.magnifier.fusion) for run in runs.values()]
        assert fusions == [("AB", "concat"), ("SFB", "gru")]
        assert {sd(run.cfg) for run in runs.values()} == {0}
        assert not any(run.row.printed for run in runs.values())

    def test_figure5(self):
        runs, _ = plan("figure5", "magnifier_market")
        got = {(run.cfg.magnifier.sampling, run.cfg.magnifier.keep) for run in runs.values()}
        assert got == {("torso", k) for k in (2, 4, 6)} | {("baseline", k) for k in range(2, 7)}
        assert all(run.row.x == run.cfg.magnifier.keep for run in runs.values())
        assert {sd(run.cfg) for run in runs.values()} == {0}
        assert {run.row.name: run.row.printed for run in runs.values() if run.row.printed} == {
            "G+M+SAB+SFB": {"CUHK03-L": (78.5, None)}
        }

    def test_stage2(self):
        runs, _ = plan("stage2", "magnifier_market")
        got = {}
        for name, run in runs.items():
            second = stage_settings(run.cfg)[1]
            got[name] = (second["optimizer"], second["lr"], second["stepsize"], sd(run.cfg))
        constant = ("fresh", 1e-3, [])
        kept = ("keep", 3.5e-4, [40, 70])
        assert list(got.values()) == [
            *((*constant, weight) for weight in (0, 2e-3, 1e-2)),
            *((*kept, weight) for weight in (2e-3, 1e-2)),
        ]

    def test_masks(self):
        runs, _ = plan("masks", "magnifier_market")
        for name, run in runs.items():
            assert run.cfg.masks.dir == (f"/out/maps/all-seeds/{name}" if run.row.maps else "")
            assert run.cfg.masks.max_missing == (1.0 if "missing" in name else 0.3)
            drawn = name == "keypoints"
            assert run.cfg.masks.label_set == ("keypoints" if drawn else "densepose")
        assert [run.row.title for run in runs.values()][3:6] == [
            *(f"{share} % missing" for share in (30, 70, 100))
        ]

    def test_dsa(self):
        runs, _ = plan("dsa", "dsa_demo")
        baseline = runs["Baseline"].cfg
        assert "random_erase" not in baseline.data.transforms
        assert (baseline.dsa.streams, baseline.dsa.branches) == (["MF"], ["global"])
        assert not baseline.loss.softmax.label_smooth
        assert not runs["Baseline-RE"].cfg.loss.softmax.label_smooth
        assert runs["Baseline-RE-LS"].cfg.loss.softmax.label_smooth
        for name, run in runs.items():
            if name != "Baseline":
                assert "random_erase" in run.cfg.data.transforms
        for name, features in (("Global", "z_G"), ("Local", "z_L")):
            single, joint = runs[f"{name}-single"].cfg, runs[f"{name}-joint"]
            assert single.dsa.branches == [name.lower()]
            assert joint.cfg.dsa.test_features == features
            assert joint.needs is runs["MF-only"]
            assert joint.cfg.test.evaluate
            assert joint.cfg.model.load_weights == str(runs["MF-only"].last_checkpoint)
        assert runs["DSAP-alone"].cfg.dsa.streams == ["DSAG"]
        assert runs["MF-only-missing-70"].cfg.masks.dir == "/out/maps/seed-1/missing-70"
        assert runs["CSA"].row.printed == {"Market-1501": (84.1, 94.1)}


class TestSeeds:
    def test_of_rendered_people_are_other_people_too(self):
        _, runs = plan("figure4", "magnifier_demo", "data.root", "data", seeds=(3, 4))
        assert [(run.row.title, run.seed) for run in runs] == [
            *(("AB", 3), ("SFB", 3), ("AB", 4), ("SFB", 4))
        ]
        for run in runs:
            cfg, seed = run.cfg, run.seed
            assert (cfg.train.seed, cfg.synthetic.seed) == (seed, seed)
            assert cfg.data.root == f"data/seed-{seed}"

    def test_of_other_data_sets_are_those_of_training(self):
        for config, pairs in (
            ("magnifier_market", ()),
            ("magnifier_demo", ("data.targets", "synthetic,market1501")),
        ):
            runs, _ = plan("figure4", config, *pairs, seeds=(5,))
            cfg = runs["G+M+SAB+AB"].cfg
            assert (cfg.train.seed, cfg.synthetic.seed) == (5, None)
            assert cfg.data.root == load_config(CONFIGS / f"{config}.yaml").data.root

    def test_quick_is_two_epochs_per_stage_at_most(self):
        for table, config in (("table2", "magnifier_demo"), ("dsa", "dsa_demo")):
            runs, _ = plan(table, config, quick=True)
            for run in runs.values():
                assert all(stage["max_epoch"] == 2 for stage in run.cfg.stages)
        runs, _ = plan("table2", "magnifier_demo", "stages.2.max_epoch", "1", quick=True)
        assert [stage["max_epoch"] for stage in runs["G"].cfg.stages] == [2, 1]


class TestStart:
    @pytest.mark.parametrize(
        ("table", "config", "plain"),
        [
            ("table2", "magnifier_demo", {"magnifier.branches": ["G"]}),
            ("dsa", "dsa_demo", {"dsa.streams": ["MF"], "dsa.branches": ["global"]}),
        ],
    )
    def test_a_plain_network_of_other_people(self, table, config, plain):
        _, runs = plan(table, config, "data.root", "/data", start=1000)
        start, *rows = runs
        assert (start.seed, start.cfg.train.seed, start.cfg.synthetic.seed) == (1000, 1000, 1000)
        assert start.cfg.data.root == "/data/seed-1000"
        assert start.folder.parent == Path("/data/seed-1000/start")
        assert start.cfg.data.save_dir == str(start.folder)
        assert not start.cfg.model.pretrained
        for key, value in plain.items():
            section, _, name = key.partition(".")
            assert start.cfg[section][name] == value
        for run in rows:
            assert run.start is start
            assert run.cfg.model.pretrained
            assert run.cfg.model.backbone_weights == str(start.last_checkpoint)

    def test_tables_share_it_unless_configuration_or_code_differ(self, monkeypatch):
        folders = [
            plan(table, "magnifier_demo", *pairs, start=1000)[1][0].folder
            for table, pairs in (
                ("table2", ()),
                ("figure5", ()),
                ("figure5", ("train.lr", "0.002")),
            )
        ]
        monkeypatch.setattr(plan_module, "training_code", lambda: "beef")
        folders.append(plan("table2", "magnifier_demo", start=1000)[1][0].folder)
        assert folders[0] == folders[1]
        assert len(set(folders)) == 3

    def test_it_needs_rendered_people(self):
        with pytest.raises(ConfigError, match="--start: trains on rendered people.*market1501"):
            plan("table2", "magnifier_market", start=1000)

    def test_rows_have_no_start_of_their_own(self):
        with pytest.raises(ConfigError, match=r"model.backbone_weights: this script sets it"):
            plan("table2", "magnifier_demo", "model.backbone_weights", "w.pth", start=1000)


class TestPairs:
    def test_each_row_gets_those_that_have_an_effect_in_it(self):
        runs, _ = plan("table2", "magnifier_market", "magnifier.sab_triplet", "False", "amp", "off")
        got = {name for name, run in runs.items() if "magnifier.sab_triplet" in run.pairs}
        assert got == {"G+M+SAB", "G+M+SAB+SFB", "G+M+SAB+SFB+SD"}
        assert all(not runs[name].cfg.magnifier.sab_triplet for name in got)
        assert runs["G"].cfg.magnifier.sab_triplet
        assert all(run.cfg.amp == "off" for run in runs.values())

    @pytest.mark.parametrize(
        ("table", "config", "key", "value"),
        [
            ("figure5", "world", "magnifier.sab_triplet", "False"),
            ("masks", "world", "magnifier.keep", "6"),
            ("dsa", "dsa_demo", "dsa.texture_size", "16"),
        ],
    )
    def test_the_start_ignores_those_without_effect(self, table, config, key, value):
        runs, every = plan(table, config, key, value, start=1000)
        assert any(key in run.pairs for run in runs.values())
        start = next(run for run in every if run.seed == 1000)
        assert key not in start.pairs

    def test_the_hint_is_about_stages(self):
        with pytest.raises(ConfigError, match="got 3.*odd numbers too.$"):
            plan("table2", "magnifier_market", "magnifier.keep", "3")


class TestRefused:
    @pytest.mark.parametrize(
        ("table", "config", "pairs", "messages"),
        [
            ("table2", "dsa_demo", (), ("magnifiernet", "table2", "dsa_reid")),
            ("dsa", "magnifier_demo", (), ("expected a configuration of dsa_reid",)),
            (
                *("stage2", "magnifier_demo", ()),
                (
                    "'SD 2e-3, optimiser and rate kept'",
                    "does not fit this configuration",
                    "cosine",
                    "multi_step",
                ),
            ),
            (
                *("table2", "magnifier_demo", ("dsa.width", "0.5")),
                ("dsa.width: has no effect in any row of table2", "magnifiernet is not a dsa"),
            ),
            (
                *("table2", "magnifier_market", ("stages.2.max_epoch", "0")),
                ("stages.2.max_epoch",),
            ),
            ("table2", "magnifier_market", ("train.seed", "3"), ("train.seed: this script sets",)),
            ("table2", "magnifier_demo", ("synthetic.seed", "3"), ("synthetic.seed: this script",)),
            (
                *("table2", "magnifier_market", ("magnifier.branches", "G")),
                ("magnifier.branches: the rows of table2 set it",),
            ),
            (
                *("table2", "magnifier_market", ("cuhk03.use_metric_cuhk03", "True")),
                ("cuhk03.use_metric_cuhk03: a row's rank-1 would count one image per identity",),
            ),
            ("table2", "magnifier_market", ("train.lrr", "3"), ("did you mean train.lr?",)),
        ],
    )
    def test_before_anything_starts(self, table, config, pairs, messages):
        with pytest.raises(ConfigError) as caught:
            plan(table, config, *pairs)
        for message in messages:
            assert message in str(caught.value)

    def test_a_configuration_without_a_second_stage(self, tmp_path):
        text = f"extends: {CONFIGS / 'magnifier_market.yaml'}\nstages: [{{max_epoch: 3}}]\n"
        (tmp_path / "one.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            plan("table2", tmp_path / "one")
        for part in (
            "row 'G' of table2",
            "does not fit this configuration",
            "stages.2.max_epoch",
            "second stage",
        ):
            assert part in str(caught.value)

    def test_a_configuration_in_which_a_row_changes_nothing(self, tmp_path):
        stages = "stages: [{max_epoch: 3}, {max_epoch: 1, loss_weights: {sd: 0}}]"
        text = f"extends: {CONFIGS / 'magnifier_market.yaml'}\n{stages}\n"
        (tmp_path / "same.yaml").write_text(text)
        with pytest.raises(
            ConfigError, match="rows 'G.M.SAB.SFB' and 'G.M.SAB.SFB.SD' .* have the same"
        ):
            plan("table2", tmp_path / "same")
