"""From runs to surfaces: which combinations have one, what they share, and where they may be asked."""

import numpy as np
import pytest

from experiments import shapes, slices, surface
from tests.experiments import spanning
from tests.experiments.spanning import CONCENTRATED, DELTA, DESIGN, KAPPA, levels

pytestmark = pytest.mark.xdist_group("simulator")  # in one process, that what all share is fitted once

AXES = slices.Axes()


def measured(**options):
    return slices.measured(spanning.table(**options), "ood/nll", "best_val", AXES)


@pytest.fixture
def found():
    return spanning.found()


@pytest.fixture
def one_form(monkeypatch):
    """The form that was planted, where nothing hangs on which one wins."""
    monkeypatch.setattr(surface, "FORMS", {"product": surface.FORMS["product"]})


def test_the_design_has_a_surface_and_two_that_borrow_from_it(found):
    assert found.keys == ("duplication", "noise")  # duplication.k follows from duplication
    assert [one.choice for one in found.slices] == [
        {"duplication": "random", "noise": "near_miss"},
        {"duplication": "random", "noise": "swapped_response"},
        {"duplication": "concentrated", "noise": "near_miss"},
    ]
    assert [one.own for one in found.slices] == [(), ("kappa",), ("delta",)]
    assert [len(one.cells) for one in found.slices] == [61, 8, 8]
    assert found.left_over == ()


def test_what_was_planted_is_found(found):
    whole, swapped, concentrated = (one.prediction.fit for one in found.slices)
    assert whole.form == next(iter(found.slices[0].left_out)) == "product"
    assert list(found.slices[0].left_out.values()) == sorted(found.slices[0].left_out.values())
    assert whole.values["delta"] == pytest.approx(DELTA, abs=0.05)
    assert swapped.values["kappa"] == pytest.approx(KAPPA, abs=0.05)
    assert concentrated.values["delta"] == pytest.approx(CONCENTRATED, abs=0.1)
    assert swapped.values["alpha"] == concentrated.values["alpha"] == whole.values["alpha"]


def test_the_cells_are_means_over_pairs(found):
    one = found.slices[0]
    t = spanning.table()
    rows = t[(t["suite"] == "ood") & (t["metric"] == "nll") & (t["point"] == "best_val")]
    for cell, values in zip(one.cells[::7], one.values.T[::7], strict=True):
        same = (rows[list(AXES.names())].astype(float) == cell).all(axis=1) & (rows["noise"] == "near_miss")
        own = rows[same & (rows["duplication"] == "random")].sort_values("seed_pair")["value"]
        assert values == pytest.approx(own.to_numpy())


def test_left_out_errors_are_those_of_the_forms(found):
    one = found.slices[0]
    n, eta, d = one.cells.T
    error = surface.left_out_rmse("effective", n, eta, one.values.mean(0), d)
    assert one.left_out["effective"] == pytest.approx(error)
    assert one.prediction.left_out == one.left_out["product"]


@pytest.mark.parametrize(("index", "at", "inside"), [
    (0, (1000, 0.3, 0.3), True),
    (0, (256, 0.8, 0.0), True),
    (0, (256, 0.8, 0.01), False),  # the corner that was not measured
    (0, (4096, 0.6, 0.75), True),
    (0, (4096, 0.61, 0.75), False),
    (0, (255, 0.0, 0.0), False),
    (1, (2000, 0.3, 0.0), True),
    (1, (2000, 0.0, 0.0), True),  # no noise: of whatever kind
    (1, (2000, 0.3, 0.01), False),  # swapped rows were measured without copies
    (1, (1000, 0.3, 0.0), False),
    (1, (2000, 0.7, 0.0), False),
    (2, (2000, 0.0, 0.5), True),
    (2, (2000, 0.1, 0.5), False),  # concentrated copies were measured without noise
])  # fmt: skip
def test_where_it_may_be_asked(found, index, at, inside):
    assert bool(found.slices[index].inside(*map(np.array, at))) is inside


def test_every_cell_is_inside_its_hull(found):
    for one in found.slices:
        assert one.inside(*one.cells.T).all()


def test_a_missing_run_costs_a_cell(one_form):
    lost = levels(512, 0.4, 0.0)
    one = measured(missing=lambda pair, at: pair == 1 and at == lost).slices[0]
    assert len(one.cells) == 60
    assert one.notes == ("without 1 of 61 cells, in which a pair has no run",)


def test_without_copies_there_are_two_axes(one_form):
    design = [at for at in DESIGN if at["duplication.rate"] == 0 and at["noise"] == "near_miss"]
    t = spanning.table(design=design).drop(columns="duplication.rate")
    found = slices.measured(t, "ood/nll", "best_val", slices.Axes(copies=None))
    (one,) = found.slices
    assert (found.keys, one.choice, len(one.cells)) == ((), {}, 25)
    assert "delta" not in one.prediction.fit.values
    assert one.inside(1000, 0.3, 0.0) and not one.inside(1000, 0.3, 0.1)


def test_another_model_has_its_own_level_or_its_own_surface(one_form):
    near = [at for at in DESIGN if at["noise"] == "near_miss" and at["duplication.rate"] == 0]
    few = [at for at in near if at["data.rows"] in (256, 1024) and at["noise.rate"] in (0.0, 0.4)]
    small = [{**at, "model": "small"} for at in near]
    for large, own in ((few, ("shift",)), (near, ())):
        t = spanning.table(design=[*small, *({**at, "model": "large"} for at in large)])
        found = slices.measured(t, "ood/nll", "best_val", slices.Axes(copies=None))
        assert found.keys == ("model",)
        assert {one.choice["model"]: one.own for one in found.slices} == {"small": (), "large": own}


def test_too_few_cells_for_anything_are_said(one_form):
    near = [at for at in DESIGN if (at["noise"], at["duplication"]) == ("near_miss", "random")]
    found = measured(design=[*near, levels(1024, 0.4, 0.0, kind="truncated")])
    assert len(found.slices) == 1
    assert found.left_over[0].startswith("noise truncated: cells of its own: 1,")


@pytest.mark.parametrize(("keep", "words"), [
    (lambda at: at["data.rows"] in (256, 512), "sizes that every pair has: 2,"),
    (lambda at: at["noise.rate"] < 0.4, "rates of noise that every pair has: 2,"),
    (lambda at: False, "no runs"),
])  # fmt: skip
def test_what_bears_no_surface_says_why(keep, words):
    design = [at for at in DESIGN if at["noise"] == "near_miss" and at["duplication"] == "random" and keep(at)]
    t = spanning.table(design=design) if design else spanning.table().iloc[:0]
    with pytest.raises(shapes.Unfit, match=words):
        slices.measured(t, "ood/nll", "best_val", AXES)


def test_a_metric_that_is_no_loss_and_a_constant_are_refused():
    t = spanning.table()
    t.loc[t["metric"] == "nll", "value"] = -1.0
    with pytest.raises(shapes.Unfit, match="not above 0"):
        slices.measured(t, "ood/nll", "best_val", AXES)
    t.loc[t["metric"] == "nll", "value"] = 2.0
    with pytest.raises(shapes.Unfit, match="the same loss"):
        slices.measured(t, "ood/nll", "best_val", AXES)


def test_the_axes_must_be_spanned():
    assert slices.spanned(spanning.table(), AXES)
    assert not slices.spanned(spanning.table(design=[at for at in DESIGN if at["duplication.rate"] == 0]), AXES)
    assert not slices.spanned(spanning.table().drop(columns="duplication.rate"), AXES)
