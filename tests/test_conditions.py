"""Per-image conditions: the file, the bins, metrics by condition."""

import json
import logging
import os

import numpy as np
import pytest
import torch
from engines import make_engine, two_stages
from test_ranking import problem

from magnifier_plugin.engine.provenance import data_fingerprint
from magnifier_plugin.evaluation.bins import label_values
from magnifier_plugin.evaluation.conditions import (
    Conditions,
    conditions_of,
    metrics_by_condition,
    read_conditions,
    twin_hits,
    twin_share,
)
from magnifier_plugin.evaluation.matches import find_first_hits
from magnifier_plugin.evaluation.query_file import QueryScores, read_queries, write_queries
from magnifier_plugin.evaluation.ranking import evaluate_ranking


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class TestFile:
    def test_paths_are_relative_to_the_data_set_or_absolute(self, tmp_path):
        file = write(tmp_path / "c.csv", "path,sun", "query/a.jpg,yes", f"{tmp_path}/b.jpg,no")
        found = read_conditions(file, tmp_path / "market1501")
        images = [str(tmp_path / "b.jpg"), str(tmp_path / "market1501" / "query" / "a.jpg")]
        assert conditions_of(found, images).labels["sun"].tolist() == ["no", "yes"]
        assert conditions_of(found, images).twins is None

    def test_a_byte_order_mark_and_spaces_are_taken(self, tmp_path):
        file = tmp_path / "c.csv"
        file.write_bytes(b"\xef\xbb\xbfpath, sun\na.jpg , yes\n")
        found = read_conditions(file, tmp_path)
        assert (found.columns, list(found.rows.values())) == (("sun",), [("yes",)])

    def test_a_list_of_images_has_other_columns_too(self, tmp_path):
        file = write(tmp_path / "c.csv", "path,PID,camid,split,sun", "a.jpg,7,1,query,yes")
        found = read_conditions(file, tmp_path)
        assert (found.columns, list(found.rows.values())) == (("sun",), [("yes",)])

    @pytest.mark.parametrize("name", ["data_set", "average_precision", "first_hit_is_twin"])
    def test_names_of_results_are_refused(self, tmp_path, name):
        """queries.csv would have the column twice, and could not be read."""
        found = read_conditions(write(tmp_path / "c.csv", f"path,{name}", "a.jpg,1"), tmp_path)
        message = rf"c.csv: expected .* other than data_set, path.*of queries.csv; found {name}: "
        with pytest.raises(ValueError, match=message):
            conditions_of(found, [str(tmp_path / "a.jpg")])

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (["image,sun", "a.jpg,yes"], "the column path and at least one .*found image, sun"),
            (["path", "a.jpg"], "at least one condition"),
            (["path,pid,split", "a.jpg,1,query"], "at least one condition"),
            (["path,sun,sun", "a.jpg,1,2"], "all with different names"),
            (["path,", "a.jpg,1"], "all with different names"),
            ([""], "found nothing"),
            (["path,sun", "a.jpg"], "line 2: expected 2 fields.*found 1"),
            (["path,sun", "a.jpg,1", "./a.jpg,1"], "line 3: ./a.jpg is listed twice"),
        ],
    )
    def test_mistakes(self, tmp_path, lines, message):
        with pytest.raises(ValueError, match=message):
            read_conditions(write(tmp_path / "c.csv", *lines), tmp_path)

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="test.conditions"):
            read_conditions(tmp_path / "c.csv", tmp_path)

    def test_of_other_images(self, tmp_path):
        found = read_conditions(write(tmp_path / "c.csv", "path,sun", "a.jpg,1"), tmp_path)
        with pytest.raises(ValueError) as caught:
            conditions_of(found, [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg")])
        for part in ("c.csv", "each of the 3 query images", "2 of them", "b.jpg", 'conditions ""'):
            assert part in str(caught.value)

    @pytest.mark.parametrize("count", [30, 31])
    def test_a_column_of_many_words_is_left_out(self, tmp_path, caplog, count):
        names = [f"{n}.jpg" for n in range(count)]
        lines = [f"{name},t{n},yes" for n, name in enumerate(names)]
        found = read_conditions(write(tmp_path / "c.csv", "path,time,sun", *lines), tmp_path)
        labels = conditions_of(found, [str(tmp_path / name) for name in names]).labels
        assert list(labels) == (["time", "sun"] if count == 30 else ["sun"])
        warning = "c.csv: the column time is left out: expected a condition with at most 30"
        assert (warning in caplog.text) == (count > 30)


class TestBins:
    @pytest.mark.parametrize(
        ("values", "value", "label"),
        [
            ([*range(0, 360, 10)], "90", "90–180"),  # degrees: a round width for four bins
            ([*range(0, 360, 10)], "350", "270–360"),
            ([*range(0, 360, 10)], "0", "0–90"),
            (np.linspace(0.6, 1, 20).tolist(), "0.6", "0.5–0.75"),  # fractions: quarters
            (np.linspace(0, 1, 21).tolist(), "1.0", "0.75–1"),
            (np.linspace(0, 1, 21).tolist(), "0.25", "0.25–0.5"),
            ([*range(40, 101)], "99", "75–100"),  # bins begin at 0
            ([*range(110, 130)], "115", "115–120"),
            ([*range(110, 130)], "129", "125–130"),
            ([*range(-20, 20)], "-20", "-20–-10"),
            ([*range(-20, 20)], "19", "10–20"),
            ([*range(20240101, 20240121)], "20240101", "20240100–20240105"),  # dates
            ([20240101 + n / 2 for n in range(12)], "20240103.5", "20240102.5–20240104"),
            ([*range(1_700_000_000, 1_700_000_020)], "1700000019", "1700000015–1700000020"),
            ([10**9 * n for n in range(20)], "1000000000", "0–5000000000"),
        ],
    )
    def test_numbers_are_binned(self, values, value, label):
        labels = label_values([str(v) for v in values])
        assert labels[value] == label
        assert 2 <= len(set(labels.values()) - {"none"}) <= 4

    @pytest.mark.parametrize("start", [10.0**n for n in (3, 6, 9, 12, 15, 18, 300)])
    def test_bins_of_large_numbers_have_different_labels(self, start):
        values = [start + n * max(1, start * 2**-50) for n in range(20)]
        labels = label_values([repr(value) for value in values])
        assert len({labels[repr(value)] for value in values}) >= 2
        if start <= 1e12:
            assert not any("e" in text for text in labels.values() if text != "none")

    @pytest.mark.parametrize("scale", [1e-6, 0.37, 1, 59, 1e7])
    @pytest.mark.parametrize("start", [-3, 0, 0.9, 5, 1000])
    def test_every_number_is_in_its_bin(self, scale, start):
        values = scale * (start + np.random.default_rng(0).random(100))
        labels = label_values([repr(float(v)) for v in values])
        for value in values.tolist():
            low, high = (float(edge) for edge in labels[repr(value)].split("–"))
            assert low - 1e-5 * abs(low) <= value <= high + 1e-5 * abs(high)
        assert len(set(labels.values()) - {"none"}) <= 5

    def test_words_few_numbers_and_empty_cells_are_not_binned(self):
        assert label_values(["pole", "box", ""]) == {"pole": "pole", "box": "box", "": "none"}
        assert label_values(["1", "2", "2"]) == {"1": "1", "2": "2", "": "none"}

    def test_numbers_among_words_are_binned(self):
        labels = label_values([*map(str, range(20)), "n/a", "nan", ""])
        assert (labels["n/a"], labels["nan"], labels[""]) == ("n/a", "nan", "none")
        assert labels["3"] == "0–5"

    def test_a_number_has_one_label_however_it_is_written(self):
        labels = label_values(["0.50", "0.5", "1", "1.0", "01"])
        assert labels == {"0.50": "0.5", "0.5": "0.5", "1": "1", "1.0": "1", "01": "1", "": "none"}


class TestMetrics:
    def test_of_each_condition_equal_those_of_its_queries_alone(self):
        distmat, q_pids, g_pids, q_camids, g_camids = problem(3, num_queries=40)
        q_pids[:3] = 99  # without a match
        ranking = evaluate_ranking(distmat, q_pids, g_pids, q_camids, g_camids)
        labels = np.array(["10", "9", "pole", "box"])[np.arange(40) % 4]
        got = metrics_by_condition({"by": labels}, ranking.average_precision, ranking.first_match)
        assert list(got["by"]) == ["9", "10", "box", "pole"]
        for label, row in got["by"].items():
            own = labels == label
            alone = evaluate_ranking(distmat[own], q_pids[own], g_pids, q_camids[own], g_camids)
            assert row["mAP"] == pytest.approx(alone.mAP)
            assert (row["queries"], row["rank-1"]) == (alone.num_valid, alone.cmc[0])

    def test_a_condition_without_a_counting_query_is_left_out(self):
        labels = np.array(["yes", "no"])
        got = metrics_by_condition({"sun": labels}, np.array([0.5, np.nan]), np.array([2, 0]))
        assert got == {"sun": {"yes": {"queries": 1, "mAP": 0.5, "rank-1": 0.0}}}

    @pytest.mark.parametrize("block", [1, 2**24])
    @pytest.mark.parametrize("ties", [False, True])
    def test_first_hits_equal_a_loop(self, ties, block, monkeypatch):
        monkeypatch.setattr("magnifier_plugin.evaluation.matches._BLOCK_BYTES", block)
        distmat, q_pids, g_pids, q_camids, g_camids = problem(2, ties=ties)
        distmat[0] = np.inf
        distmat[1, 7] = np.inf
        q_pids[2], g_pids[:] = 5, np.where(np.arange(60) < 59, g_pids, 5)
        ids = q_pids, g_pids, q_camids, g_camids
        got = find_first_hits(torch.from_numpy(distmat), *ids)
        for query in range(len(distmat)):
            kept = [
                (distance, column)
                for column, distance in enumerate(distmat[query])
                if (g_pids[column], g_camids[column]) != (q_pids[query], q_camids[query])
            ]
            assert got[query] == min(kept)[1]

    def test_a_query_that_drops_the_whole_gallery_hits_nothing(self):
        hits = find_first_hits(torch.zeros(1, 2), *map(np.array, ([1], [1, 1], [0], [0, 0])))
        assert hits.tolist() == [-1]
        conditions = Conditions({}, np.array(["1"]))
        assert not twin_hits(conditions, hits, np.array([1, 1])).any()

    def test_twins_get_their_numbers(self, tmp_path):
        file = write(tmp_path / "c.csv", "path,twin", "a.jpg,dieter", "b.jpg,", "c.jpg,007")
        images = [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg")]
        found = conditions_of(read_conditions(file, tmp_path), images, {"dieter": 3, "7": 4})
        assert found.twins.tolist() == ["3", "", "4"]
        assert found.labels["twin"].tolist() == ["with", "without", "with"]

    def test_an_absent_twin_does_not_get_another_persons_number(self, tmp_path):
        """In a list of words and numbers, identities are renumbered: 3 may be another person."""
        file = write(tmp_path / "c.csv", "path,twin", "a.jpg,3")
        pids = {"anna": 2, "dieter": 3}
        found = conditions_of(read_conditions(file, tmp_path), [str(tmp_path / "a.jpg")], pids)
        assert not twin_hits(found, np.array([0]), np.array([3])).any()
        assert found.labels["twin"].tolist() == ["with"]
        assert twin_share(found, np.array([False]), np.ones(1)) == {"queries": 1, "share": 0}

    def test_twins(self):
        conditions = Conditions({}, np.array(["0004", "", "3", "4"]))
        is_twin = twin_hits(conditions, np.array([1, 1, 1, 0]), np.array([2, 4]))
        assert is_twin.tolist() == [True, False, False, False]
        precision = np.array([0.5, 0.5, 0.5, np.nan])
        assert twin_share(conditions, is_twin, precision) == {"queries": 2, "share": 0.5}
        nobody = Conditions({}, np.array(["", ""]))
        assert twin_share(nobody, is_twin[:2], precision[:2]) == {"queries": 0, "share": None}


def scores(**changed):
    given = {
        "paths": np.array(["query/a.jpg", "query/b, c.jpg"]),
        "pids": np.array([5, 6]),
        "average_precision": np.array([1 / 3, np.nan]),
        "first_match": np.array([3, 0]),
    }
    return QueryScores(**{**given, **changed})


class TestQueryFile:
    def test_what_is_written_is_read(self, tmp_path):
        labels = {"sun": np.array(["yes", "none"])}
        written = {
            "one": scores(labels=labels, first_hit_is_twin=np.array([True, False])),
            "two": scores(labels={"heading": np.array(["0–90", "90–180"])}),
        }
        write_queries(tmp_path / "queries.csv", written)
        found = read_queries(tmp_path / "queries.csv")
        assert list(found) == ["one", "two"]
        for name, expected in written.items():
            got = found[name]
            np.testing.assert_array_equal(got.pids, expected.pids)
            np.testing.assert_array_equal(got.first_match, expected.first_match)
            np.testing.assert_allclose(got.average_precision, expected.average_precision)
            assert got.paths.tolist() == expected.paths.tolist()
            assert {n: v.tolist() for n, v in got.labels.items()} == {
                n: v.tolist() for n, v in expected.labels.items()
            }
        assert found["one"].first_hit_is_twin.tolist() == [True, False]
        assert found["two"].first_hit_is_twin is None

    def test_metrics_of_a_query(self):
        np.testing.assert_array_equal(
            scores(first_match=np.array([1, 0])).metrics, [[1 / 3, 1], [np.nan, np.nan]]
        )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("path,pid\n", "expected the columns data_set, path,"),
            ("", "expected the columns"),
            (
                "data_set,path,pid,average_precision,first_match\na,b,c,0.5,1\n",
                "damaged.*test again",
            ),
        ],
    )
    def test_mistakes(self, tmp_path, text, message):
        (tmp_path / "queries.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_queries(tmp_path / "queries.csv")


class TestTesting:
    """With the engine, on the tiny Market-1501: identities 1 and 3, cameras 1 and 2."""

    def file(self, market_folder, tmp_path, twin=True):
        images = sorted((market_folder.images / "query").glob("*.jpg"))
        inside = [image.relative_to(market_folder.root / "market1501") for image in images]
        lines = [
            f"{image},{'c1' in image.name},{'' if image.name[3] == '1' else 1}" for image in inside
        ]
        return write(tmp_path / "c.csv", "path,first_camera,twin", *lines)

    def test_results_and_queries(self, market_folder, tmp_path, caplog):
        file = self.file(market_folder, tmp_path)
        engine = make_engine(market_folder, two_stages(), conditions=str(file))
        with caplog.at_level(logging.INFO):
            engine.test(save_dir=tmp_path, rerank=True)
        result = json.loads((tmp_path / "results.json").read_text())["results"]["market1501"]
        groups = result["conditions"]
        assert {name: list(labels) for name, labels in groups.items()} == {
            "first_camera": ["False", "True"],
            "twin": ["with", "without"],
        }
        assert [row["queries"] for row in groups["twin"].values()] == [4, 4]
        mean = np.mean([row["mAP"] for row in groups["first_camera"].values()])
        assert mean == pytest.approx(result["mAP"])
        assert "first_camera True: " in caplog.text

        found = read_queries(tmp_path / "queries.csv")["market1501"]
        assert found.paths[0].startswith("Market-1501-v15.09.15/query/0001_c1")
        assert np.nanmean(found.average_precision) == pytest.approx(result["mAP"])
        hits = found.metrics[:, 1].mean()
        assert hits == pytest.approx(result["rank-1"])
        # There are only two people, so a query with a twin can only miss by hitting the twin.
        share = {"queries": 4, "share": pytest.approx(1 - groups["twin"]["with"]["rank-1"])}
        assert result["first_hit_is_twin"] == share
        with_twin = found.labels["twin"] == "with"
        assert found.first_hit_is_twin[with_twin].mean() == share["share"]

    def test_a_file_name_that_is_not_unicode(self, market, tmp_path):
        folder = market()
        image = min((folder.images / "query").glob("*.jpg"))
        renamed = image.rename(image.with_name(f"{image.stem}\udcfc.jpg"))
        engine = make_engine(folder, two_stages(), cache=tmp_path / "cache")
        engine.test(save_dir=tmp_path, rerank=True)
        found = read_queries(tmp_path / "queries.csv")["market1501"]
        assert str(renamed.relative_to(folder.root / "market1501")) in found.paths.tolist()
        assert os.fsencode(renamed.name) in (tmp_path / "queries.csv").read_bytes()
        assert data_fingerprint(engine.datamanager)["market1501 query"]["files"] == 8

    def test_without_conditions(self, market_folder, tmp_path):
        make_engine(market_folder, two_stages()).test(save_dir=tmp_path)
        result = json.loads((tmp_path / "results.json").read_text())["results"]["market1501"]
        assert not {"conditions", "first_hit_is_twin"} & set(result)
        assert read_queries(tmp_path / "queries.csv")["market1501"].labels == {}

    def test_a_file_of_other_images_is_refused_before_training(self, market_folder, tmp_path):
        file = write(tmp_path / "c.csv", "path,sun", "query/9999_c1s1_000000_01.jpg,yes")
        with pytest.raises(ValueError, match="of the 8 query images, found none for 8 of them"):
            make_engine(market_folder, two_stages(), conditions=str(file))
