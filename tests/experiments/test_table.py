import dataclasses

import pandas as pd
import pytest

from experiments import table as tables
from experiments.table import Cell, first_crossing, matching, measured, planned, runs_table
from tests.experiments.synthetic import BEST, STEPS, cell, quickstart, record


def value(table, arm, metric, point, pair=0):
    rows = measured(table, metric, point)
    rows = rows[(rows["arm"] == arm) & (rows["seed_pair"] == pair)]
    assert len(rows) == 1
    return rows["value"].iloc[0]


def test_columns_are_those_that_others_rely_on():
    cells, records = quickstart(pairs=1)
    table = runs_table(cells, records, BEST)
    assert list(table.columns) == [
        "run_id", "arm", "seed_pair", "seed_base", "seed_data", "seed_select", "seed_train",
        "point", "suite", "metric", "value", "n", "tokens", "duplication", "duplication.rate", "duplication.k",
    ]  # fmt: skip


def test_every_number_of_a_record_is_there_at_its_point():
    a = cell("full", 0)
    table = runs_table([a], {a.run_id: record(a, [0.1, 0.3, 0.6, 0.5])}, BEST)
    assert [value(table, "full", "ood/em", f"step:{s}") for s in (0, *STEPS)] == [0, 0.1, 0.3, 0.6, 0.5]
    assert value(table, "full", "ood/em", "best_val") == 0.6
    assert value(table, "full", "ood/em", "end") == 0.5
    assert value(table, "full", "data/rows", "end") == 4096
    assert value(table, "full", "cost/train_s", "end") == 384 / 40
    rows = measured(table, "ood/em", "best_val")
    assert list(rows["tokens"]) == [192 * 500]
    assert list(rows["n"]) == [600]
    assert measured(table, "ood/em", "step:0")["tokens"].tolist() == [0]


def test_validation_chooses_the_point_not_the_test():
    a = cell("full", 0)
    made = record(a, ood := [0.1, 0.9, 0.2, 0.3], validation=[0.1, 0.2, 0.8, 0.3])
    assert value(runs_table([a], {a.run_id: made}, BEST), "full", "ood/em", "best_val") == ood[2]


def test_unfinished_runs_leave_a_trace():
    a, b = cell("full", 0), cell("random", 0)
    table = runs_table([a, b], {a.run_id: record(a, [0.1] * 4)}, BEST)
    done = table[(table["suite"] == "run") & (table["metric"] == "done")]
    assert dict(zip(done["arm"], done["value"], strict=True)) == {"full": 1.0, "random": 0.0}
    assert set(planned(table)["arm"]) == {"full", "random"}
    assert (table["arm"] == "random").sum() == 1


def test_nothing_planned_is_an_empty_table():
    assert runs_table([], {}, BEST).empty


def test_cells_that_share_a_run_are_told_apart_by_level():
    first = cell("full", 0, {"noise.rate": 0.2})
    second = Cell(first.run_id, "everything", first.seeds, {"noise.rate": 0.2})
    table = runs_table([first, second], {first.run_id: record(first, [0.1] * 4)}, BEST)
    assert set(measured(table, "ood/em", "end")["arm"]) == {"full", "everything"}


def test_reading_gives_what_was_written(tmp_path):
    cells, records = quickstart(pairs=2)
    made = runs_table(cells, records, BEST)
    found = tables.write(tmp_path / "runs.csv", made)
    assert (found["value"].to_numpy() == made["value"].to_numpy(float)).all()  # not one bit lost
    assert set(found["duplication"]) == {"none", "random", "concentrated"}  # "none" is a level, no missing value
    assert found["duplication.k"].isna().sum() == made["duplication.k"].isna().sum()
    assert tables.write(tmp_path / "again.csv", found).equals(found)


def test_selectors_match_by_value():
    frame = pd.DataFrame(
        {"arm": ["a", "a", "b"], "x": [0.25, 1.0, None], "y": ["none", "1", "none"], "z": [True, False, None]}
    )
    assert list(matching(frame, {"x": 0.25}).index) == [0]
    assert list(matching(frame, {"x": 1}).index) == [1]
    assert list(matching(frame, {"x": None}).index) == [2]
    assert list(matching(frame, {"y": "none", "arm": "a"}).index) == [0]
    assert list(matching(frame, {"z": False}).index) == [1]


# --- time to quality ------------------------------------------------------------------------------------------------


def test_first_crossing_is_interpolated():
    curve = [(0.0, 0.0), (10.0, 0.4), (20.0, 0.8), (30.0, 0.6)]
    assert first_crossing(curve, 0.6, "max") == pytest.approx(15.0)  # not 30, where it comes by again
    assert first_crossing(curve, 0.8, "max") == pytest.approx(20.0)
    assert first_crossing(curve, 0.9, "max") is None
    assert first_crossing([(0.0, 3.0), (10.0, 1.0)], 2.0, "min") == pytest.approx(5.0)
    assert first_crossing([(0.0, 3.0), (10.0, 1.0)], 0.5, "min") is None
    assert first_crossing([(7.0, 0.5)], 0.4, "max") == 7.0  # nothing is known of before
    assert first_crossing([(0.0, 0.3), (1.0, 0.3), (2.0, 0.5)], 0.3, "max") == 0.0


def test_minutes_to_the_full_arms_quality():
    full, quick, slow = cell("full", 0), cell("filtered", 0), cell("random", 0)
    records = {
        full.run_id: record(full, [0.1, 0.3, 0.6, 0.5]),
        quick.run_id: record(quick, [0.6, 0.7, 0.8, 0.9]),
        slow.run_id: record(slow, [0.1, 0.2, 0.3, 0.4]),
    }
    table = runs_table([full, quick, slow], records, BEST)
    assert value(table, "full", "cost/minutes_to_full", "to_full") == pytest.approx(192 / 40 / 60)
    assert value(table, "filtered", "cost/minutes_to_full", "to_full") == pytest.approx(48 / 40 / 60)
    assert value(table, "filtered", "cost/minutes_to_full_scored", "to_full") == pytest.approx(
        (48 / 40 + 3.0 + 0.1) / 60
    )
    assert value(table, "filtered", "cost/censored", "to_full") == 0
    assert value(table, "random", "cost/minutes_to_full", "to_full") == pytest.approx(384 / 40 / 60)
    assert value(table, "random", "cost/censored", "to_full") == 1
    # what was gained over the seconds until the best point, those of scoring and selecting with them
    assert value(table, "full", "cost/gain_per_minute", "best_val") == pytest.approx(0.6 / ((192 / 40 + 0.1) / 60))
    assert value(table, "filtered", "cost/gain_per_minute", "best_val") == pytest.approx(0.9 / ((384 / 40 + 3.1) / 60))


def test_a_runs_own_seconds_are_not_what_it_is_timed_by():
    """Equal runs take unequal seconds: tokens count, at one rate for all runs of a model."""
    arms = ("full", "filtered", "random")
    cells = [dataclasses.replace(cell(arm, 0), model="large" if arm == "random" else "small") for arm in arms]
    records = {c.run_id: record(c, [0.1, 0.3, 0.6, 0.5]) for c in cells}
    for c, seconds in zip(cells, (8.0, 12.0, 50.0), strict=True):
        records[c.run_id]["cost"] |= {"train_s": seconds, "train_s_at": {"384": seconds}}
    again = [*cells, dataclasses.replace(cells[0], arm="everything")]  # the same run under a second name counts once
    for table in (runs_table(cells, records, BEST), runs_table(again, records, BEST)):
        minutes = {arm: value(table, arm, "cost/minutes_to_full", "to_full") for arm in arms}
        small = (8.0 + 12.0) / (2 * 500 * 384)  # seconds a token
        assert minutes["full"] == minutes["filtered"] == pytest.approx(192 * 500 * small / 60)
        assert minutes["random"] == pytest.approx(192 / 384 * 50 / 60)
        gained = value(table, "full", "cost/gain_per_minute", "best_val")
        assert gained == pytest.approx(0.6 / ((192 * 500 * small + 0.1) / 60))


def test_time_is_measured_on_validation_and_in_its_direction():
    full, quick = cell("full", 0), cell("filtered", 0)
    records = {  # by em `filtered` never gets there; by nll = 3 (1 - em) turned round it does
        full.run_id: record(full, [0.9] * 4, validation=[0.1, 0.2, 0.3, 0.4]),
        quick.run_id: record(quick, [0.1] * 4, validation=[0.2, 0.4, 0.5, 0.6]),
    }
    for best in (BEST, tables.Best(suite="validation", metric="nll", mode="min")):
        table = runs_table([full, quick], records, best)
        assert value(table, "filtered", "cost/minutes_to_full", "to_full") == pytest.approx(96 / 40 / 60)


def test_the_reference_is_the_one_of_the_same_pair_and_levels():
    cells = [
        cell(arm, pair, {"noise.rate": rate}) for pair in (0, 1) for rate in (0.0, 0.5) for arm in ("full", "random")
    ]
    tops = {("full", 0, 0.0): 0.8, ("full", 0, 0.5): 0.4, ("full", 1, 0.0): 0.6, ("full", 1, 0.5): 0.3}
    records = {}
    for c in cells:
        top = tops.get((c.arm, c.seeds["pair"], c.levels["noise.rate"]), 0.5)
        records[c.run_id] = record(c, [0.0, top / 2, top, top])
    table = runs_table(cells, records, BEST)
    rows = measured(table, "cost/censored", "to_full")
    rows = rows[rows["arm"] == "random"]
    assert list(zip(rows["seed_pair"], rows["noise.rate"], rows["value"], strict=True)) == [
        (0, 0.0, 1.0), (0, 0.5, 0.0), (1, 0.0, 1.0), (1, 0.5, 0.0),
    ]  # fmt: skip


def test_without_a_full_run_there_is_no_time():
    a, full = cell("filtered", 0), cell("full", 0)
    assert measured(runs_table([a], {a.run_id: record(a, [0.5] * 4)}, BEST), "cost/minutes_to_full", "to_full").empty
    assert measured(runs_table([a, full], {a.run_id: record(a, [0.5] * 4)}, BEST), "cost/censored", "to_full").empty


def test_values_that_are_no_numbers_are_not_measured():
    a = cell("full", 0)
    made = record(a, [0.1, 0.2, 0.4, 0.3])
    made["metrics"]["end"]["ood"]["em"]["value"] = None
    table = runs_table([a], {a.run_id: made}, BEST)
    assert measured(table, "ood/em", "end").empty
    assert value(table, "full", "ood/em", "best_val") == 0.4


def test_a_large_table_is_looked_through_once_with_the_same_result(monkeypatch, tmp_path):
    cells, records = quickstart(pairs=2)
    for table in (
        runs_table(cells, records, BEST),
        tables.write(tmp_path / "runs.csv", runs_table(cells, records, BEST)),
    ):
        asked = table[["suite", "metric", "point"]].drop_duplicates().itertuples(index=False, name=None)
        measures = [(f"{suite}/{metric}", point) for suite, metric, point in asked] + [("no/such", "end")]
        plain = [measured(table, *measure) for measure in measures], planned(table)
        monkeypatch.setattr(tables, "MANY", 0)
        indexed = [measured(table, *measure) for measure in measures], planned(table)
        part = table[table["arm"] == "full"]  # another table has places of its own
        own = measured(part, "ood/em", "best_val")
        monkeypatch.undo()
        assert len(measures) > 50
        for before, after in zip([*plain[0], plain[1]], [*indexed[0], indexed[1]], strict=True):
            pd.testing.assert_frame_equal(before, after)
        pd.testing.assert_frame_equal(own, measured(part, "ood/em", "best_val"))


def test_a_table_is_written_as_pandas_would(tmp_path):
    odd = pd.DataFrame(
        {
            "text": ['x,"y', "", None, "l\nm", "plain"],
            "float": [0.0, -0.0, float("nan"), 1e-300, 0.1],
            "infinite": [float("inf"), float("-inf"), 1e22, 1 / 3, 2.0],
            "mixed": [1, True, None, "a,b", 1.0],
            "whole": [1, -2, 3, 10**12, 0],
            "flag": [True, False, True, True, False],
        }
    )
    cells, records = quickstart(pairs=2)
    for table in (odd, odd.iloc[:0], runs_table(cells, records, BEST), runs_table([], {}, BEST)):
        assert tables.csv_of(table) == table.to_csv(index=False, lineterminator="\n")
