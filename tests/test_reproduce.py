"""One call of scripts/reproduce.py: rows kept, resumed, failed, refused; a stand-in trains."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "configs" / "magnifier_demo.yaml"
STANDIN = Path(__file__).parent / "standin_main.py"

sys.path.insert(0, str(ROOT / "scripts"))
import reproduce as script  # noqa: E402
from reproduction import command, plan, processes, record, runner  # noqa: E402

ROWS = ["G", "G+M", "G+M+SAB", "G+M+SFB", "G+M+SAB+SFB", "G+M+SAB+SFB+SD"]

pytestmark = pytest.mark.slow  # it starts processes


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Calls the script with a stand-in for training; `orders` determine what happens in a row."""
    monkeypatch.setattr(processes, "MAIN", STANDIN)
    monkeypatch.setattr(command, "prepare_data", lambda settings, runs: None)
    monkeypatch.setattr(command, "training_code", lambda: "beef")
    monkeypatch.setattr(runner, "_POLL", 0.01)
    monkeypatch.setenv("STANDIN", str(tmp_path / "orders.json"))

    def run(*more, table="table2", config=DEMO, seeds=(1,), **orders):
        (tmp_path / "orders.json").write_text(json.dumps(orders))
        line = [table, "--config-file", config, "--out", tmp_path / "out", "--seeds", *seeds]
        return script.main([*map(str, line), *more])

    return run


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def log(out, row, seed=1):
    return (out / row / f"seed-{seed}" / record.LOG).read_text()


class TestRows:
    def test_all_rows_train_and_are_reported(self, call, out, capsys):
        assert call("--jobs", "3") == 0
        content = json.loads((out / "results.json").read_text())
        assert [row["name"] for row in content["rows"]] == ROWS
        assert content["rows"][0]["paper"]["CUHK03-L"] == [67.4, 69.8]
        assert content["interval"] is None
        assert content["differences"][0]["mAP"]["low"] is None
        text = (out / "table.md").read_text()
        assert "One seed: no standard deviations and no intervals" in text
        assert "data set synthetic, seed 1; code " in text
        assert "±" not in text
        assert "[" not in text.partition("## Differences")[2]
        assert "| G+M+SAB+SFB+SD | " in text and "79.6 / 82.4" in text
        assert "| twin | with | without |" in text
        assert "| G | 25.0 |" in text  # how often the first hit is the twin
        printed = capsys.readouterr().out
        assert "One seed: " in printed
        assert "G+M/seed-1: running\n" in printed
        assert "G+M/seed-1: finished mAP" in printed

    def test_several_seeds_have_deviations_and_intervals(self, call, out):
        assert call("--jobs", "4", seeds=(1, 2, 2)) == 0
        text = (out / "table.md").read_text()
        assert "seeds 1, 2, each with its own people" in text
        assert "With fewer than 5 seeds, intervals are somewhat too narrow" in text
        content = json.loads((out / "results.json").read_text())
        row = content["rows"][0]
        values = [row["seeds"][seed]["mAP"] for seed in ("1", "2")]
        assert row["mean"]["mAP"] == pytest.approx(sum(values) / 2)
        assert row["standard_deviation"]["mAP"] == pytest.approx(
            abs(values[0] - values[1]) / 2**0.5
        )
        pairs = [(entry["first"], entry["second"]) for entry in content["differences"]]
        assert pairs == [
            *(("G", "G+M"), ("G+M", "G+M+SAB"), ("G+M", "G+M+SFB")),
            *(("G+M+SAB", "G+M+SAB+SFB"), ("G+M+SFB", "G+M+SAB+SFB")),
            *(("G", "G+M+SAB+SFB"), ("G+M+SAB+SFB", "G+M+SAB+SFB+SD"), ("G", "G+M+SAB+SFB+SD")),
        ]
        for entry in content["differences"]:
            for found in (entry["mAP"], entry["conditions"]["twin"]["with"]["mAP"]):
                assert found["low"] <= found["difference"] <= found["high"]
        assert "±" in text
        first = content["differences"][0]
        groups = [first["conditions"]["twin"][label]["mAP"] for label in ("with", "without")]
        cells = [
            f"{100 * one['difference']:+.1f} [{100 * one['low']:+.1f}, {100 * one['high']:+.1f}]"
            for one in groups
        ]
        lines = text.partition("| difference in mAP | with | without |\n")[2].splitlines()
        assert lines[1] == f"| G → G+M | {' | '.join(cells)} |"
        assert [line.split(" | ")[0] for line in lines[1 : 1 + len(pairs)]] == [
            f"| {one} → {other}" for one, other in pairs
        ]

    def test_five_seeds_are_enough_for_an_interval(self, call, out):
        assert call("--jobs", "4", "--rows", "G", "G+M", seeds=range(1, 6)) == 0
        text = (out / "table.md").read_text()
        assert "is significant." in text
        assert "too narrow" not in text

    def test_the_precision_and_the_device_are_named(self, call, out, capsys):
        rows = "--jobs", "2", "--rows", "G", "G+M"
        assert call(*rows) == 0
        alike = "Computed in bf16; Abacus, 1 thread."
        assert f"\n\n{alike}\n\n" in (out / "table.md").read_text()
        assert alike not in capsys.readouterr().out  # it only tells if rows differ
        assert call(*rows, seeds=(1, 2), **{"G/seed-2": "fp32"}) == 0
        lines = [
            "Rows were computed in different ways, which may add to their differences:",
            "",
            "- bf16; Abacus, 1 thread: G/seed-1, G+M/seed-1, G+M/seed-2",
            "- fp32; Abacus, 1 thread: G/seed-2",
        ]
        assert "\n".join(["", "", *lines, "", "## Rows"]) in (out / "table.md").read_text()
        assert "\n".join(lines) in capsys.readouterr().out
        found = json.loads((out / "results.json").read_text())["rows"][0]["computed"]
        way = {"precision": "bf16", "device": "Abacus", "threads": 1}
        assert found == {"1": [way], "2": [{**way, "precision": "fp32"}]}

    def test_finished_rows_are_kept(self, call, out, capsys):
        assert call("--jobs", "3") == 0
        before = {row: log(out, row) for row in ROWS}
        table = (out / "table.md").read_text()
        (out / "table.md").unlink()
        assert call() == 0
        assert {row: log(out, row) for row in ROWS} == before
        assert (out / "table.md").read_text() == table
        assert capsys.readouterr().out.count(": kept mAP") == len(ROWS)

    def test_another_seed_joins_finished_ones(self, call, out):
        call("--jobs", "3")
        before = log(out, "G")
        assert call("--jobs", "3", seeds=(1, 2)) == 0
        assert log(out, "G") == before
        assert log(out, "G", seed=2)

    def test_the_data_of_finished_rows_is_not_prepared_again(self, call, monkeypatch):
        prepared = []
        call("--jobs", "2", "--rows", "G", "G+M", **{"G+M/seed-1": "fail"})
        monkeypatch.setattr(command, "prepare_data", lambda settings, runs: prepared.extend(runs))
        assert call("--jobs", "2", "--rows", "G", "G+M", seeds=(1, 2)) == 0
        assert [run.name for run in prepared] == ["G+M/seed-1", "G/seed-2", "G+M/seed-2"]

    def test_test_images_that_changed_between_two_rows(self, call, out, capsys):
        assert call("--rows", "G") == 0
        queries = out / "G" / "seed-1" / "queries.csv"
        queries.write_text("".join(queries.read_text().splitlines(keepends=True)[:-1]))
        assert call("--rows", "G", "G+M") == 2
        error = capsys.readouterr().err
        assert "rows 'G' and 'G+M': expected two results of the same queries, got 39 and" in error
        assert "have changed between these runs: remove the folders of the older ones" in error

    def test_rows_that_differ_in_the_second_stage_train_the_first_one_once(self, call, out):
        """The stand-in saves after 1, 2 and 10 epochs."""
        pairs = ("stages.1.max_epoch", "2")
        assert call("--jobs", "8", *pairs, **{"G+M+SAB+SFB/seed-1": "last"}) == 1
        assert "resume None" in log(out, "G+M+SAB+SFB+SD")  # the other failed
        assert "continues from the first stage" not in (out / "table.md").read_text()
        shutil.rmtree(out)
        assert call("--jobs", "8", *pairs) == 0
        stage = out / "G+M+SAB+SFB" / "seed-1" / "model" / "model.pth.tar-2"
        assert f"resume {stage}\n" in log(out, "G+M+SAB+SFB+SD")
        assert "keep 2\n" in log(out, "G+M+SAB+SFB")
        assert all("resume None" in log(out, row) for row in ROWS[:-1])
        note = "G+M+SAB+SFB+SD continues from the first stage of G+M+SAB+SFB,"
        assert (out / "table.md").read_text().count(note) == 1

    def test_some_rows_only(self, call, out, capsys):
        assert call("--rows", "G+M", "G") == 0
        content = json.loads((out / "results.json").read_text())
        assert [row["name"] for row in content["rows"]] == ["G", "G+M"]
        with pytest.raises(SystemExit):
            call("--rows", "H")
        assert "--rows: expected rows of table2 (G, G+M, " in capsys.readouterr().err

    def test_tables_in_one_folder_share_rows(self, call, out):
        call("--jobs", "3")
        before = log(out, "G+M+SAB+SFB")
        assert call(table="figure4") == 0
        assert log(out, "G+M+SAB+SFB") == before
        assert (out / "figure4.png").is_file()

    def test_a_failed_row_is_reported_and_the_others_go_on(self, call, out, capsys):
        assert call(**{"G+M/seed-1": "fail"}) == 1
        error = capsys.readouterr().err
        assert "G+M/seed-1 failed: exit status 1; the end of " in error
        assert "ValueError: the loss is not finite" in error
        text = (out / "table.md").read_text()
        assert "Missing: G+M/seed-1 failed: exit status 1" in text
        assert "| G+M (1 of the seeds missing) | – | – |" in text
        assert "79.6 / 82.4" in text
        assert call() == 0
        assert "Missing" not in (out / "table.md").read_text()
        assert log(out, "G+M").count("threads") == 2
        assert log(out, "G").count("threads") == 1

    def test_a_killed_row_resumes_from_its_last_checkpoint(self, call, out):
        assert call(**{"G/seed-1": "last"}) == 1
        assert call() == 0
        first, second = log(out, "G").split("threads")[1:]
        assert "resume None" in first
        assert "resume auto\n" in second
        assert json.loads((out / "G" / "seed-1" / record.RECORD).read_text())["seconds"] > 0

    def test_a_row_that_tests_anothers_weights_waits_for_it(self, call, out, monkeypatch):
        dsa = ROOT / "configs" / "dsa_demo.yaml"
        assert call("--jobs", "8", table="dsa", config=dsa) == 1  # the stand-in has no branches
        assert "magnifier.branches" in log(out, "MF-only")
        content = json.loads((out / "results.json").read_text())
        assert (
            "MF-only/seed-1, whose weights it needs, failed"
            in (content["failures"]["Two-streams-fused/seed-1"])
        )
        monkeypatch.setenv("STANDIN_KEY", "data.transforms")
        assert call("--jobs", "8", table="dsa", config=dsa) == 0
        weights = out / "MF-only" / "seed-1" / "model" / "model.pth.tar-24"
        assert f"weights {weights}" in log(out, "Global-joint")
        assert "weights None" in log(out, "MF-only")
        assert not list((out / "Global-joint").rglob("model.pth.tar-*"))


class TestStart:
    def test_every_row_waits_for_it(self, call, out, tmp_path, capsys):
        pairs = ("--start", "1000", "data.root", str(tmp_path / "data"))
        assert call("--jobs", "8", *pairs, **{"G/seed-1": "fail"}) == 1
        (start,) = (tmp_path / "data" / "seed-1000" / "start").glob("[!.]*")
        weights = start / "model" / "model.pth.tar-30"
        assert f"backbone {weights}\n" in log(out, "G+M")
        assert "backbone None\n" in (start / record.LOG).read_text()
        content = json.loads((out / "results.json").read_text())
        assert content["start"] == 1000
        assert [row["name"] for row in content["rows"]] == ROWS
        assert "people of seed 1000" in (out / "table.md").read_text()
        capsys.readouterr()
        assert call(*pairs) == 0
        assert f"start/{start.name}: kept" in capsys.readouterr().out

    def test_finished_rows_need_it_no_more(self, call, out, tmp_path, capsys):
        """Nor the folder of the data sets, in which it was."""
        line = "--start", "1000", "--rows", "G", "--root"
        assert call(*line, str(tmp_path / "data")) == 0
        before = log(out, "G")
        shutil.rmtree(tmp_path / "data")
        capsys.readouterr()
        assert call(*line, str(tmp_path / "moved")) == 0
        assert log(out, "G") == before
        assert "start" not in capsys.readouterr().out
        assert not (tmp_path / "data").exists()
        assert not list((tmp_path / "moved").rglob("model.pth.tar-*"))

    def test_a_deleted_checkpoint_is_named(self, call, out, tmp_path):
        pairs = ("--start", "1000", "--root", str(tmp_path / "data"))
        assert call("--rows", "G", *pairs) == 0
        (weights,) = (tmp_path / "data" / "seed-1000" / "start").rglob("model.pth.tar-30")
        weights.unlink()
        assert call("--rows", "G", "G+M", *pairs) == 1
        failures = json.loads((out / "results.json").read_text())["failures"]
        folder = weights.parents[1]
        assert failures == {
            "G+M/seed-1": f"not started: {weights} is missing; delete {folder}, so that it is "
            "trained again"
        }
        shutil.rmtree(folder)
        assert call("--rows", "G", "G+M", *pairs) == 0

    def test_without_it_no_row_starts(self, call, out, tmp_path, monkeypatch):
        pairs = ("--start", "1000", "data.root", str(tmp_path / "data"))
        arguments, typed = script.parse(
            ["table2", "--config-file", str(DEMO), "--seeds", "1", "--out", str(out), *pairs]
        )
        start = plan.make_runs(script.settings(arguments, typed))[0].name
        assert call(*pairs, **{start: "fail"}) == 1
        failures = json.loads((out / "results.json").read_text())["failures"]
        assert set(failures) == {start, *(f"{row}/seed-1" for row in ROWS)}
        assert f"{start}, whose weights it needs, failed" in failures["G/seed-1"]


class TestResources:
    def test_threads_are_divided_and_gpus_taken_in_turn(self, call, out, monkeypatch):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(processes, "cores", lambda: 8)
        monkeypatch.setattr(command, "visible_gpus", lambda numbers: [str(n) for n in numbers])
        assert call("--jobs", "4", "--gpus", "0", "1") == 0
        used = [log(out, row).splitlines()[0] for row in ROWS]
        assert {line.split(" gpu")[0] for line in used} == {"threads 2"}
        assert {line.rpartition(" ")[2] for line in used} == {"0", "1"}

    def test_threads_are_divided_by_the_number_of_runs_at_most(self, call, out, monkeypatch):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(processes, "cores", lambda: 8)
        assert call("--jobs", "8", "--rows", "G", "G+M") == 0
        assert [log(out, row).splitlines()[0] for row in ROWS[:2]] == ["threads 4 gpu None"] * 2

    @pytest.mark.parametrize(
        ("given", "threads"),
        [({}, 4), ({"OMP": 1}, 1), ({"MKL": 3}, 3), ({"OMP": 3, "MKL": 2}, 2), ({"OMP": 99}, 4)],
    )
    def test_a_given_number_of_threads_is_the_limit(self, given, threads, monkeypatch):
        for name in processes.THREADS:
            monkeypatch.delenv(name, raising=False)
        for name, number in given.items():
            monkeypatch.setenv(f"{name}_NUM_THREADS", str(number))
        monkeypatch.setattr(processes, "cores", lambda: 8)
        found = processes.environment(2, None)
        assert [found[name] for name in processes.THREADS] == [str(threads)] * 2

    def test_a_gpu_that_is_not_there(self, call, out, capsys):
        assert call("--gpus", "97") == 2
        assert "error: --gpus 97: no such GPU, found " in capsys.readouterr().err
        assert not out.exists()

    def test_two_calls_in_one_folder(self, call, out, capsys):
        handle = processes.lock_folder(out)
        assert call() == 2
        assert "in use by another call of this script" in capsys.readouterr().err
        os.close(handle)
        assert call("--jobs", "3") == 0

    def test_two_calls_that_train_one_start(self, call, out, tmp_path, capsys):
        """It is shared by calls with another --out; a finished one can be used by both."""
        pairs = ("--start", "1000", "--rows", "G", "data.root", str(tmp_path / "data"))
        starts = tmp_path / "data" / "seed-1000" / "start"
        handle = processes.lock_folder(starts)
        assert call(*pairs) == 2
        assert f"error: {starts}: is in use by another call" in capsys.readouterr().err
        os.close(handle)
        assert call(*pairs) == 0
        handle = processes.lock_folder(starts)  # is no longer locked
        assert call(*pairs) == 0
        os.close(handle)

    @pytest.mark.parametrize("change", ["two", SyntaxError(), FileNotFoundError(), ValueError()])
    def test_code_that_changes_meanwhile_starts_no_row(
        self, call, out, monkeypatch, capsys, change
    ):
        """Also while a file is being saved or renamed, so that it cannot be parsed."""
        codes = iter(["one", "one", "one"])

        def code():
            found = next(codes, change)
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(command, "training_code", code)
        assert call() == 1
        states = [(out / row / "seed-1" / "results.json").is_file() for row in ROWS]
        assert states == [True, True, False, False, False, False]
        assert "the package's code has changed since this call began" in capsys.readouterr().err


class TestFolder:
    def test_results_of_other_code_are_named(self, call, out, monkeypatch, capsys):
        call("--jobs", "3")
        before = log(out, "G")
        monkeypatch.setattr(command, "training_code", lambda: "cafe")
        assert call() == 2
        error = capsys.readouterr().err
        assert "not mixed" in error
        assert "G+M/seed-1: code " in error and ", now cafe" in error
        assert "Choose another --out, remove these folders, or run the code" in error
        assert log(out, "G") == before

    def test_results_of_another_configuration_are_named(self, call, out, capsys):
        call("--jobs", "3")
        assert call("train.lr", "0.5", "data.workers", "7") == 2
        error = capsys.readouterr().err
        assert "G/seed-1: train.lr 0.001, now 0.5\n" in error
        assert call("--quick") == 2
        assert "stages.1.max_epoch 25, now 2" in capsys.readouterr().err

    def test_what_changes_no_result_is_no_other_configuration(self, call, out):
        call("--jobs", "3")
        file = out / "G" / "seed-1" / record.RECORD
        row = json.loads(file.read_text())
        row["configuration"]["data.cache_gb"] = 0.0  # recorded by an earlier version
        file.write_text(json.dumps(row))
        fast = "data.workers", "7", "data.cache_gb", "1"
        assert call(*fast, "train.print_freq", "1", "report.rankings", "0") == 0
        assert log(out, "G").count("threads") == 1

    def test_the_data_sets_can_be_moved(self, call, out, tmp_path):
        assert call("--root", str(tmp_path / "data"), "--rows", "G") == 0
        before = log(out, "G")
        assert call("--root", str(tmp_path / "moved"), "--rows", "G") == 0
        assert log(out, "G") == before

    def test_the_folder_can_be_moved(self, call, out, tmp_path):
        call("--jobs", "6", table="masks")
        before = log(out, "eroded")
        out.rename(tmp_path / "moved")
        assert call("--out", str(tmp_path / "moved"), table="masks") == 0
        assert log(tmp_path / "moved", "eroded") == before

    def test_a_folder_with_other_content(self, call, out, capsys):
        (out / "G" / "seed-1").mkdir(parents=True)
        (out / "G" / "seed-1" / "notes.txt").touch()
        assert call() == 2
        assert "G/seed-1: has no row.json" in capsys.readouterr().err

    def test_a_damaged_record(self, call, out, capsys):
        call("--jobs", "3")
        (out / "G" / "seed-1" / record.RECORD).write_text("{")
        assert call() == 2
        assert "row.json: damaged" in capsys.readouterr().err


def test_a_file_where_the_folder_of_results_should_be(call, out, capsys):
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("")
    assert call() == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {out}: expected a folder to write to, found a file")
    assert "Traceback" not in error


class TestFullDisk:
    def test_of_one_run_stops_the_others(self, call, out, capsys):
        assert call(**{"G+M/seed-1": "full"}) == 1
        error = capsys.readouterr().err
        assert "G+M/seed-1 failed: the disk is full; exit status 1" in error
        assert "G+M+SAB/seed-1 not started: the disk is full" in error
        assert (out / "G" / "seed-1" / "results.json").is_file()
        assert not (out / "G+M+SAB").exists()
        assert call("--jobs", "3") == 0

    @pytest.mark.parametrize("where", ["row.json", "table.md"])
    def test_of_this_script_is_a_message(self, call, out, monkeypatch, capsys, where):
        write = Path.write_text

        def full(self, *arguments, **options):
            if self.parent == out or (where == "row.json" and "row" in self.name):
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(self, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_text", full)
            assert call() == 2
        error = capsys.readouterr().err
        assert f"error: {out}: the disk is full; free some space" in error
        assert "Traceback" not in error
        assert call("--jobs", "3") == 0


DRIVER = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "scripts")!r}]
import reproduce
from reproduction import command, processes
from pathlib import Path
processes.MAIN = Path({str(STANDIN)!r})
command.prepare_data = lambda settings, runs: None
sys.exit(reproduce.main(sys.argv[1:]))
"""


def test_a_warning_about_many_rows_is_printed_once(tmp_path):
    config = Path(DEMO).with_name("magnifier_market.yaml")
    line = ["stage2", "--config-file", config, "--out", tmp_path / "out", "--root", tmp_path]
    done = subprocess.run(
        [sys.executable, script.__file__, *map(str, line), "--seeds", "1", "2"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("keep continues the optimiser of stage 1") == 1
    assert "market1501, which does not exist" in done.stderr


@pytest.mark.slow
class TestSignals:
    def start(self, tmp_path, **orders):
        (tmp_path / "orders.json").write_text(json.dumps(orders))
        line = ["figure4", "--config-file", DEMO, "--out", tmp_path / "out"]
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, *map(str, line), "--seeds", "1", "--jobs", "2"],
            env={**os.environ, "STANDIN": str(tmp_path / "orders.json")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def children(self, out):
        """Process numbers of the two rows, once both have a checkpoint."""
        rows = [out / name / "seed-1" for name in ("G+M+SAB+AB", "G+M+SAB+SFB")]
        deadline = time.monotonic() + 240  # a generous limit, for busy machines
        while not all((row / "model" / "model.pth.tar-1").is_file() for row in rows):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return [json.loads((row / record.RECORD).read_text())["processes"][0] for row in rows]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_the_end_of_the_script_ends_its_runs(self, tmp_path, number):
        hang = {"G+M+SAB+AB/seed-1": "hang", "G+M+SAB+SFB/seed-1": "hang"}
        process = self.start(tmp_path, **hang)
        children = self.children(tmp_path / "out")
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "interrupted; the same command continues" in error
        for child in children:
            with pytest.raises(ProcessLookupError):
                os.kill(child, 0)
        again = self.start(tmp_path)
        assert again.wait(timeout=60) == 0
        assert "resume auto\n" in log(tmp_path / "out", "G+M+SAB+AB")

    def test_a_killed_script_leaves_runs_that_keep_the_folder(self, tmp_path):
        hang = {"G+M+SAB+AB/seed-1": "hang", "G+M+SAB+SFB/seed-1": "hang"}
        process = self.start(tmp_path, **hang)
        children = self.children(tmp_path / "out")
        process.kill()
        process.wait()
        again = self.start(tmp_path)
        _, error = again.communicate(timeout=60)
        assert again.returncode == 2
        assert "or by a run that it left behind" in error
        for child in children:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.5)
        assert self.start(tmp_path).wait(timeout=60) == 0
