"""What the table of arms says of an arm beside the ones it must beat."""

import numpy as np
import pytest

from experiments import table as tables
from experiments.report.content import arms
from experiments.report.differences import with_differences
from experiments.report.texts import FULL_COLUMNS, difference, full_cells, minutes, money
from tests.experiments.synthetic import BEST, cell, quickstart, record
from tests.experiments.test_report import EVALUATION


def found(cells, records):
    return {
        arm.label: arm for arm in with_differences(arms(tables.runs_table(cells, records, BEST), EVALUATION), "max")
    }


def test_differences_are_means_over_shared_pairs():
    cells, records = quickstart(missing=lambda c: c.arm == "filtered" and c.seeds["pair"] == 2)
    arm = found(cells, records)["filtered"]
    score = {(c.arm, c.seeds["pair"]): records[c.run_id]["metrics"]["best_val"]["ood"]["em"]["value"]
             for c in cells if c.run_id in records}  # fmt: skip
    shared = [pair for pair in range(6) if pair != 2]
    wanted = np.mean([score["filtered", pair] - score["full", pair] for pair in shared])
    assert (arm.to_full.mean, arm.to_full.pairs) == (pytest.approx(wanted), 5)
    assert arm.to_full.low < wanted < arm.to_full.high
    cells_of = dict(zip(FULL_COLUMNS, full_cells(arm), strict=True))
    assert cells_of["minus full"] == difference(arm.to_full)
    assert cells_of["control"] == "random_length_matched"


def test_the_control_is_chosen_by_validation_alone_and_has_the_same_size():
    cells, records = [], {}
    curves = {"filtered": (0.5, 0.5), "random": (0.9, 0.1), "longest": (0.2, 0.4), "random_length_matched": (0.8, 0.9)}
    for pair in range(2):
        for arm, (test, validation) in curves.items():
            c = cell(arm, pair)
            cells.append(c)
            records[c.run_id] = record(c, [test] * 4, [validation] * 4)
            if arm == "random_length_matched":  # by far the best, and of another size
                records[c.run_id]["data"]["rows"] = 900
    arms_of = found(cells, records)
    assert arms_of["filtered"].to_control.of == "longest"
    assert arms_of["filtered"].to_control.mean == pytest.approx(0.3)
    assert arms_of["random"].to_control is None and arms_of["filtered"].to_full is None


def test_each_level_has_its_own_reference():
    cells, records = [], {}
    for rate in (0.0, 0.4):
        for arm, top in (("full", 0.8 - rate), ("filtered", 0.8)):
            c = cell(arm, 0, {"noise.rate": rate})
            cells.append(c)
            records[c.run_id] = record(c, [top] * 4)
    arms_of = found(cells, records)
    assert arms_of["filtered rate=0"].to_full.mean == pytest.approx(0)
    assert arms_of["filtered rate=0.4"].to_full.mean == pytest.approx(0.4)
    assert difference(arms_of["filtered rate=0.4"].to_full) == "+0.400"  # one pair has no interval


def test_minutes_and_money_are_as_long_as_they_say_something():
    assert [minutes(s) for s in (None, 0.0, 3.0, 90.0, 7200.0)] == ["–", "0.00", "0.05", "1.50", "120"]
    assert [money(d) for d in (None, 0.0, 1.234)] == ["–", "–", "1.23"]
