"""Statistics of more than two arms, from runs to verdicts, and what their claim files may say."""

import math

import numpy as np
import pytest
import yaml

from experiments import UserError, claims, shapes, statistics, store, surface
from experiments import table as tables
from experiments.claim_files import Claim, check, expand, load
from experiments.shape_files import Form, Needed
from tests.experiments.synthetic import BEST, STEPS, cell, record
from tests.experiments.test_claims import definition, judge, one

RATE, SIZE = "noise.rate", "selection.k"
RATES = (0.0, 0.1, 0.2, 0.4, 0.6)


def claim(statistic, **changes) -> Claim:
    return Claim(**tree(statistic, **changes))


def tree(statistic, **changes):
    made = definition(point="end", statistic=statistic) | changes
    if "control" not in changes:
        del made["control"]
    return made


def runs(value, levels, arm="a", pairs=6, bases=3, noise=0.004, missing=lambda pair, level: False):
    """Cells and records: `value(level)` is the exact match at the end, or the whole curve, of each cell of `levels`."""
    cells, records = [], {}
    for index, level in enumerate(levels):
        for pair in range(pairs):
            made = cell(arm, pair, level, bases=bases)
            cells.append(made)
            if missing(pair, level):
                continue
            rng = np.random.default_rng([pair, index, len(arm), ord(arm[0])])
            curve = np.atleast_1d(value(level)) * np.ones(len(STEPS)) * (1 + noise * rng.standard_normal())
            records[made.run_id] = record(made, (curve + 0.02 * (pair % bases)).tolist())
    return cells, records


def table(*made):
    return tables.runs_table(
        [c for cells, _ in made for c in cells], {k: v for _, r in made for k, v in r.items()}, BEST
    )


def along(key, values):
    return [{key: value} for value in values]


# --- slopes ---------------------------------------------------------------------------------------------------------


def falling(level):
    return 0.8 - 0.5 * level[RATE]


def test_a_slope_is_that_of_each_pair():
    t = table(runs(falling, along(RATE, RATES)))
    entry = one(t, claim({"name": "slope", "along": RATE}, kind="less", margin=0.1))
    assert (entry["verdict"], entry["pairs"], entry["control"]) == ("reproduced", 6, {})
    assert entry["statistic"] == {"name": "slope", "along": RATE, "log_x": False, "log_y": False}
    wide = t[(t["suite"] == "ood") & (t["metric"] == "em") & (t["point"] == "end")]
    by_pair = [np.polyfit(rows[RATE].astype(float), rows["value"], 1)[0] for _, rows in wide.groupby("seed_pair")]
    assert entry["estimate"] == pytest.approx(np.mean(by_pair), rel=1e-5)
    assert entry["ci_low"] == pytest.approx(statistics.estimate(np.array(by_pair), [0, 1, 2] * 2).interval(0.95)[0])


def test_logarithmic_slopes_are_exponents():
    t = table(runs(lambda level: 0.02 * level[SIZE] ** 0.5, along(SIZE, (16, 64, 256)), bases=1))
    entry = one(t, claim({"name": "slope", "along": SIZE, "log_x": True, "log_y": True}, margin=0.1))
    assert entry["estimate"] == pytest.approx(0.5, abs=0.01)
    logs = one(t, claim({"name": "slope", "along": SIZE, "log_x": True}, margin=0.01))
    assert logs["estimate"] == pytest.approx(np.polyfit(np.log([16, 64, 256]), [0.08, 0.16, 0.32], 1)[0], rel=0.02)


def test_with_a_control_slopes_are_compared():
    a, b = (
        runs(lambda level, f=f: 0.8 - f * level[RATE], along(RATE, RATES), arm) for f, arm in ((0.2, "a"), (0.5, "b"))
    )
    entry = one(table(a, b), claim({"name": "slope", "along": RATE}, control={"arm": "b"}, margin=0.05))
    assert entry["estimate"] == pytest.approx(0.3, abs=0.02)
    assert entry["verdict"] == "reproduced"
    back = claim({"name": "slope", "along": RATE}, treatment={"arm": "b"}, control={"arm": "a"}, margin=0.05)
    assert one(table(a, b), back)["estimate"] == -entry["estimate"]


def test_a_pair_that_lacks_a_level_is_left_out_and_named():
    made = runs(falling, along(RATE, RATES), missing=lambda pair, level: (pair, level[RATE]) == (4, 0.2))
    entry = one(table(made), claim({"name": "slope", "along": RATE}))
    assert entry["pairs"] == 5
    assert "without pair 4" in entry["note"]


def test_across_base_models_bases_count_once():
    t = table(runs(falling, along(RATE, RATES), pairs=12, bases=6))
    these, across = (one(t, claim({"name": "slope", "along": RATE}, kind="less", scope=s)) for s in ("these", "across"))
    assert across["estimate"] == pytest.approx(these["estimate"], rel=1e-4)
    assert (across["pairs"], across["scope"], across["verdict"]) == (12, "across base models", "reproduced")
    wide = t[(t["suite"] == "ood") & (t["metric"] == "em") & (t["point"] == "end")]
    by_pair = [np.polyfit(rows[RATE].astype(float), rows["value"], 1)[0] for _, rows in wide.groupby("seed_pair")]
    by_hand = statistics.estimate(np.array(by_pair), [pair % 6 for pair in range(12)], across=True).interval(0.95)
    assert (across["ci_low"], across["ci_high"]) == (pytest.approx(by_hand[0]), pytest.approx(by_hand[1]))
    few = one(table(runs(falling, along(RATE, RATES))), claim({"name": "slope", "along": RATE}, scope="across"))
    assert "3 base models say nothing about others" in few["note"]


# --- a reference ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "reference", "margin", "verdict"), [
    ("greater", -0.8, 0.05, "reproduced"), ("greater", -0.5, 0.05, "no_effect"), ("less", -0.2, 0.05, "reproduced"),
    ("greater", -0.2, 0.05, "contradicted"), ("equivalent", -0.5, 0.05, "reproduced"),
    ("noninferior", -0.5, 0.05, "reproduced"), ("noninferior", -0.3, 0.05, "contradicted"),
    ("equivalent", -0.3, 0.05, "contradicted"), ("equivalent", -0.5, 0.001, "inconclusive"),
])  # fmt: skip
def test_an_estimate_is_compared_with_its_reference(kind, reference, margin, verdict):
    t = table(runs(falling, along(RATE, RATES)))
    made = claim({"name": "slope", "along": RATE}, kind=kind, reference=reference, margin=margin)
    entry = one(t, made)
    assert (entry["verdict"], entry["reference"]) == (verdict, reference)
    assert entry["estimate"] == pytest.approx(-0.5, abs=0.02)  # raw
    assert entry["ci_low"] < entry["estimate"] < entry["ci_high"]
    assert (entry["p"] < 0.05) == (verdict != "inconclusive")


def test_a_contrast_has_a_reference_too():
    a, b = (runs(lambda level, v=v: v, [{}], arm, noise=0.02) for v, arm in ((0.8, "a"), (0.5, "b")))
    entry = one(table(a, b), Claim(**definition(point="end", reference=0.25, margin=0.02)))
    assert entry["verdict"] == "reproduced"
    assert one(table(a, b), Claim(**definition(point="end", reference=0.4, margin=0.02)))["verdict"] == "contradicted"


# --- one arm against itself, shares of a gain -----------------------------------------------------------------------


def test_an_arm_can_be_set_against_itself_before_training():
    t = table(runs(lambda level: 0.6, [{}], noise=0.02))
    made = Claim(**definition(point="end", control={"arm": "a"}, control_point="step:0"))
    entry = one(t, made)
    assert entry["verdict"] == "reproduced"  # the synthetic runs start at 0
    assert entry["estimate"] == pytest.approx(0.62, abs=0.02)


def test_two_metrics_of_one_arm_can_be_compared():
    t = table(runs(lambda level: 0.6, [{}], noise=0.02))
    entry = one(t, Claim(**definition(point="end", control={"arm": "a"}, control_metric="ood/nll")))
    assert entry["estimate"] == pytest.approx(0.62 - 3 * 0.38, abs=0.05)


def test_a_share_of_a_gain_counts_from_before_training():
    a, b = (runs(lambda level, v=v: v, [{}], arm, bases=1, noise=0.02) for v, arm in ((0.72, "a"), (0.8, "b")))
    for arm in (a, b):
        for made in arm[1].values():
            made["metrics"]["step:0"]["ood"]["em"]["value"] = 0.4
    made = Claim(**definition(point="end", scale="gain_share", kind="noninferior", reference=1.0, margin=0.4))
    entry = one(table(a, b), made)
    pairs = [
        (x["metrics"]["end"]["ood"]["em"]["value"] - 0.4) / (y["metrics"]["end"]["ood"]["em"]["value"] - 0.4)
        for x, y in zip(a[1].values(), b[1].values(), strict=True)
    ]
    assert entry["estimate"] == pytest.approx(np.mean(pairs), rel=1e-5)
    assert entry["verdict"] == "reproduced"  # above .6 of the gain


def test_a_control_that_gained_nothing_is_no_measure():
    a, b = (runs(lambda level, v=v: v, [{}], arm, bases=1) for v, arm in ((0.6, "a"), (0.01, "b")))
    entry = one(table(a, b), Claim(**definition(point="end", scale="gain_share")))
    assert entry["verdict"] == "inconclusive"
    assert "gained next to nothing" in entry["note"]
    for made in a[1].values():
        del made["metrics"]["step:0"]
    assert "no figure at step:0" in one(table(a, b), Claim(**definition(point="end", scale="gain_share")))["note"]


# --- optima and gains -----------------------------------------------------------------------------------------------

DOSES = (0.0, 0.1, 0.25, 0.5, 0.75)
PEAKED = dict(zip(DOSES, (0.5, 0.6, 0.7, 0.6, 0.3), strict=True))


def test_an_optimum_inside_is_located():
    t = table(runs(lambda level: PEAKED[level[RATE]], along(RATE, DOSES)))
    inside = claim({"name": "optimum", "along": RATE}, kind="equivalent", reference=0.25, margin=0.14)
    entry = one(t, inside)
    assert (entry["verdict"], entry["estimate"], entry["ci_low"], entry["ci_high"]) == ("reproduced", 0.25, 0.25, 0.25)
    elsewhere = claim({"name": "optimum", "along": RATE}, kind="equivalent", reference=0.6, margin=0.14)
    assert one(t, elsewhere)["verdict"] == "contradicted"
    least = claim({"name": "optimum", "along": RATE, "mode": "min"}, kind="greater", reference=0.5, margin=0.1)
    assert (one(t, least)["estimate"], one(t, least)["verdict"]) == (0.75, "reproduced")
    loss = claim({"name": "optimum", "along": RATE}, metric="ood/nll", kind="equivalent", reference=0.25, margin=0.14)
    assert one(t, loss)["estimate"] == 0.25  # less of it is better, by its name


def test_a_flat_response_locates_nothing():
    t = table(runs(lambda level: 0.5, along(RATE, DOSES), noise=0.02))
    entry = one(t, claim({"name": "optimum", "along": RATE}, kind="equivalent", reference=0.25, margin=0.14))
    assert entry["verdict"] == "inconclusive"
    assert (entry["ci_low"], entry["ci_high"]) == (0.0, 0.75)


def test_levels_that_contradict_from_both_sides_contradict_nothing():
    two = dict(zip(DOSES, (0.7, 0.5, 0.5, 0.5, 0.7), strict=True))
    t = table(runs(lambda level: two[level[RATE]], along(RATE, DOSES), noise=0.02))
    entry = one(t, claim({"name": "optimum", "along": RATE}, kind="equivalent", reference=0.25, margin=0.14))
    assert (entry["ci_low"], entry["ci_high"], entry["verdict"]) == (0.0, 0.75, "inconclusive")
    assert entry["p"] >= 0.05


def test_the_interior_gain_is_measured_on_other_pairs_than_its_level_is_chosen_on():
    t = table(runs(lambda level: PEAKED[level[RATE]], along(RATE, DOSES)))
    entry = one(t, claim({"name": "interior_gain", "along": RATE}, margin=0.05))
    assert entry["verdict"] == "reproduced"
    assert entry["estimate"] == pytest.approx(0.2, abs=0.01)
    assert "0.25 (6 times)" in entry["note"]
    # with nothing to gain, the best of three is not above the first on the pairs that had no say
    rng = np.random.default_rng(5)
    gains = []
    for _ in range(200):
        grid = shapes.Grid(np.arange(5.0)[:, None], rng.standard_normal((6, 5)), [(p, p % 3) for p in range(6)])
        gains.append(shapes._interior_gain(grid, [p % 3 for p in range(6)], True).mean)
    assert abs(np.mean(gains)) < 3 * np.std(gains) / len(gains) ** 0.5
    damage = claim({"name": "interior_gain", "along": RATE, "mode": "min"}, kind="less", margin=0.05)
    dip = table(runs(lambda level: 1.1 - PEAKED[level[RATE]], along(RATE, DOSES)))
    assert one(dip, damage)["verdict"] == "reproduced"
    assert one(dip, damage)["estimate"] == pytest.approx(-0.2, abs=0.01)


@pytest.mark.parametrize("kind", ["greater", "less", "equivalent", "noninferior"])
@pytest.mark.parametrize("rising", [True, False])
def test_p_is_the_risk_at_which_the_other_intervals_decide_too(kind, rising):
    rng = np.random.default_rng(2)
    bases = [0, 1, 2] * 4
    for shift in np.linspace(-0.3, 0.3, 13):
        values = 0.1 * rng.standard_normal((12, 5)) + shift * np.array([0, 1, 2, 1, 0])
        found = (
            statistics.gain(values[:, 1:-1] - values[:, :1], bases, rising, 0.0),
            statistics.locate(values, bases, np.array([0.0, 0.1, 0.25, 0.5, 0.75]), rising),
        )
        for e, reference in zip(found, (0.02, 0.22), strict=True):
            p = e.p_value(kind, 0.05, reference)
            for a in (p * 0.98, p * 1.02):
                if 1e-9 < a < 0.999:
                    low, high = (end - reference for end in e.interval(1 - a))
                    assert (statistics.decide(kind, low, high, 0.05) != "inconclusive") == (a > p)


# --- surfaces -------------------------------------------------------------------------------------------------------

GRID = [{SIZE: n, RATE: eta} for n in (64, 256, 1024, 4096) for eta in (0.0, 0.2, 0.4)]


def additive(level):
    """Exact match whose loss, 3 (1 - em), is an additive surface with alpha .5 and beta 1."""
    return 1 - (0.1 + 8 * level[SIZE] ** -0.5 + 1.2 * level[RATE]) / 3


def surface_claim(statistic, **changes):
    return claim({"size": SIZE, "noise": RATE} | statistic, metric="ood/nll", **changes)


def test_a_parameter_of_a_surface_goes_through_the_same_machinery():
    t = table(runs(additive, GRID, bases=1, pairs=4, noise=0.004))
    statistic = {"name": "parameter", "form": "additive", "parameter": "alpha"}
    entry = one(t, surface_claim(statistic, kind="equivalent", reference=0.5, margin=0.15))
    assert entry["verdict"] == "reproduced"
    assert entry["estimate"] == pytest.approx(0.5, abs=0.05)
    assert "additive form, rmse of the log" in entry["note"]
    local = {"name": "parameter", "form": "additive", "parameter": "exchange", "at": {"size": 1024, "noise": 0.2}}
    entry = one(t, surface_claim(local, kind="less", margin=0.05))
    exact = surface.fit("additive", *(np.array([g[k] for g in GRID]) for k in (SIZE, RATE)),
                        np.array([3 * (1 - additive(g)) for g in GRID]))  # fmt: skip
    assert entry["estimate"] == pytest.approx(surface.exchange(exact, 1024, 0.2), abs=0.1)
    assert entry["verdict"] == "reproduced"  # a noisy row costs clean ones


def test_a_missing_run_costs_a_surface_a_cell_and_not_a_pair():
    made = runs(additive, GRID, bases=1, pairs=3, missing=lambda pair, level: pair == 1 and level == GRID[5])
    entry = one(table(made), surface_claim({"name": "parameter", "form": "additive", "parameter": "alpha"}))
    assert entry["pairs"] == 3
    assert "without 1 of 12 cells" in entry["note"]


def test_the_form_that_predicts_better_wins():
    t = table(runs(additive, GRID, bases=1, pairs=3))
    forms = {"name": "form", "better": "additive", "than": "product"}
    entry = one(t, surface_claim(forms, kind="less", margin=0.01))
    assert entry["verdict"] == "reproduced"
    turned = one(t, surface_claim(forms | {"better": "product", "than": "additive"}, kind="less", margin=0.01))
    assert (turned["verdict"], turned["estimate"]) == ("contradicted", -entry["estimate"])


def test_each_pair_has_its_own_say_on_the_form():
    t = table(runs(additive, GRID, bases=1, pairs=3, noise=0.01))
    grid = shapes.grid(t, {"arm": "a"}, "ood/nll", "best_val", [SIZE, RATE], surface=True)
    n, eta = grid.cells.T
    shaped = shapes._surface(Form(name="form", better="additive", than="product", size=SIZE, noise=RATE), grid)
    errors = [[surface.left_out_rmse(form, n, eta, y) for form in ("additive", "product")] for y in grid.values]
    assert shaped.each == pytest.approx([a - b for a, b in errors])
    assert len(set(shaped.each)) == 3 and shaped.mean == pytest.approx(np.mean(shaped.each))


# --- what is needed -------------------------------------------------------------------------------------------------


def reaching(law):
    """Curves that reach .5 after a number of tokens that follows `law` of the noise rate."""

    def curve(level):
        tokens = 30_000 * np.exp(law(level[RATE]))
        return np.minimum(0.5 * 500 * np.array(STEPS) / tokens, 0.9)

    return curve


@pytest.mark.parametrize(("law", "verdict"), [
    (lambda eta: 2.5 * eta, "reproduced"), (lambda eta: -1.8 * np.log(1 - eta), "contradicted"),
])  # fmt: skip
def test_the_law_of_effort_is_told(law, verdict):
    t = table(runs(reaching(law), along(RATE, RATES), bases=1, noise=0.002))
    entry = one(t, claim({"name": "needed", "along": RATE, "target": 0.5}, kind="less", margin=2.0))
    assert entry["verdict"] == verdict
    turned = {"name": "needed", "along": RATE, "target": 0.5, "forms": ["power", "exponential"]}
    assert one(t, claim(turned, kind="less", margin=2.0))["estimate"] == pytest.approx(-entry["estimate"], rel=1e-3)


def test_levels_that_never_get_there_are_left_out_and_said():
    t = table(runs(reaching(lambda eta: 6 * eta), along(RATE, RATES), bases=1))
    entry = one(t, claim({"name": "needed", "along": RATE, "target": 0.5}, kind="less", margin=2.0))
    assert "censored and left out: 0.5 is never reached at 0.4, 0.6" in entry["note"]
    assert entry["estimate"] is not None
    nothing = one(t, claim({"name": "needed", "along": RATE, "target": 0.95}, kind="less", margin=2.0))
    assert nothing["verdict"] == "inconclusive"
    assert "fewer than 3 levels reach the target" in nothing["note"]


def test_rows_needed_are_interpolated_over_the_sizes():
    def value(level):
        return 0.3 * math.log10(level[SIZE] / 16) * math.exp(-level[RATE])

    levels = [{SIZE: n, RATE: eta} for n in (32, 128, 512, 2048) for eta in (0.0, 0.2, 0.4)]
    statistic = {"name": "needed", "along": RATE, "target": 0.4, "size": SIZE}
    t = table(runs(value, levels, bases=1))
    entry = one(t, claim(statistic, kind="less", margin=2.0))
    expected = 16 * 10 ** (0.4 / 0.3)
    assert float(entry["note"].partition("rows needed: ")[2].split(" ")[0]) == pytest.approx(expected, rel=0.05)


def test_aic_is_that_of_the_residuals():
    rates, law = np.array(RATES), Needed(name="needed", along=RATE, target=0.5)
    straight = 2 + 3 * rates
    curved = straight + np.array([0.1, -0.1, 0.0, -0.1, 0.1])
    x = np.log(1 - rates)
    residual = straight - np.polyval(np.polyfit(x, straight, 1), x)
    assert shapes.aic(law, rates, straight, 0.01) == pytest.approx(-(residual @ residual) / 0.01)
    assert shapes.aic(law, rates, curved, 0.01) > shapes.aic(law, rates, straight, 0.01)


# --- jackknife ------------------------------------------------------------------------------------------------------


def test_pseudo_values_of_a_mean_are_the_values():
    values = np.array([[0.1, 0.5], [0.3, 0.2], [0.7, 0.1]])
    whole, each = statistics.jackknife(lambda mean: float(mean[0] - mean[1]), values)
    assert each == pytest.approx(values[:, 0] - values[:, 1])
    assert whole == pytest.approx(each.mean())


# --- what is refused ------------------------------------------------------------------------------------------------

SLOPE = {"name": "slope", "along": RATE}
PARAMETER = {"name": "parameter", "form": "additive", "parameter": "alpha", "size": SIZE, "noise": RATE}


@pytest.mark.parametrize(("changes", "words"), [
    ({"statistic": {"name": "bend", "along": RATE}}, ["statistic", "bend", "slope"]),
    ({"statistic": {"name": "slope"}}, ["along", "not set"]),
    ({"statistic": SLOPE | {"logx": True}}, ["logx"]),
    ({"statistic": PARAMETER | {"parameter": "delta"}}, ["parameter=delta", "alpha"]),
    ({"statistic": PARAMETER | {"parameter": "exchange"}}, ["parameter=exchange", "give at"]),
    ({"statistic": PARAMETER | {"at": {"size": 10, "noise": 0.1}}}, ["leave out at"]),
    ({"statistic": PARAMETER | {"noise": SIZE}}, ["same column"]),
    ({"statistic": {"name": "form", "better": "product", "than": "product", "size": SIZE, "noise": RATE}},
     ["same form"]),
    ({"statistic": {"name": "needed", "along": RATE, "target": 1, "forms": ["power", "power"]}}, ["same form twice"]),
    ({"statistic": SLOPE, "treatment": {"arm": "a", RATE: 0.1}}, ["runs along noise.rate", "leave it out"]),
    ({"statistic": SLOPE, "scale": "log_ratio"}, ["leave out scale"]),
    ({"statistic": SLOPE, "control_point": "step:0"}, ["leave out scale, control_metric, control_point"]),
    ({"statistic": SLOPE, "point": "to_full", "metric": "cost/minutes_to_full"}, ["point=to_full"]),
    ({"statistic": {"name": "optimum", "along": RATE}, "control": {"arm": "b"}}, ["optimum takes none"]),
    ({"statistic": SLOPE, "control": {"best_of": [{"arm": "b"}, {"arm": "c"}]}}, ["not the best of several"]),
    ({"statistic": None}, ["control", "selector"]),
    ({"statistic": SLOPE, "margin": 0}, ["margin=0"]),
    ({"statistic": SLOPE, "reference": float("inf")}, ["reference"]),
    ({"statistic": SLOPE, "reference": 1.0, "margin": 0.06, "quoted": {"figure": "x", "at": "y", "effect": 1.1}},
     ["margin=0.06", "less reference=1", "at most 0.05"]),
    ({"statistic": SLOPE, "reference": 1.0, "quoted": {"figure": "x", "at": "y", "effect": 0.5}},
     ["quoted.effect=0.5", "kind=greater"]),
    ({"statistic": None, "control": {"arm": "a"}, "control_point": "best"}, ["control_point=best"]),
    ({"statistic": None, "control": {"arm": "b"}, "control_point": "to_full"}, ["control_point=to_full"]),
    ({"statistic": None, "control": {"arm": "b"}, "scale": "gain_share", "point": "step:0"}, ["nothing is gained"]),
    ({"statistic": None, "control": {"arm": "a"}, "control_point": "end"}, ["same as the treatment"]),
])  # fmt: skip
def test_a_wrong_statistic_is_refused_in_one_line(tmp_path, changes, words):
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(tree(SLOPE) | changes))
    with pytest.raises(UserError) as error:
        load(["test"], tmp_path)
    assert "\n" not in str(error.value)
    for word in [*words, str(path)]:
        assert word in str(error.value)


def planned(levels, arm="a", pairs=range(3)):
    return [cell(arm, pair, level) for level in levels for pair in pairs]


@pytest.mark.parametrize(("made", "cells", "words"), [
    (claim(SLOPE), planned(along("noise.kind", "xyz")), ["noise.rate is no swept key", "noise.kind"]),
    (claim(SLOPE), planned(along(RATE, (0, 0.5))), ["2 levels", "at least 3"]),
    (claim(SLOPE), planned(along(RATE, (0, 0.5))) + planned(along(RATE, (0.7,)), pairs=[0]), ["2 levels"]),
    (claim(SLOPE), planned(along(RATE, ("low", "middle", "high"))), ["noise.rate=low", "no number"]),
    (claim(SLOPE | {"log_x": True}), planned(along(RATE, RATES)), ["noise.rate=0 has no logarithm"]),
    (claim(SLOPE, control={"arm": "b"}), planned(along(RATE, RATES)) + planned(along(RATE, RATES[:2]), "b"),
     ["2 levels"]),
    (claim({"name": "optimum", "along": RATE}, kind="equivalent", margin=0.9), planned(along(RATE, RATES)),
     ["margin=0.9"]),
    (claim({"name": "needed", "along": RATE, "target": 1}), planned(along(RATE, (0, 0.5, 1))), ["below 1"]),
    (claim(PARAMETER), planned([{SIZE: n, RATE: n / 100} for n in (1, 2, 3, 4)]), ["4 cells", "at least 8"]),
    (claim(PARAMETER), planned([{SIZE: n, RATE: r} for n in (1, 2, 3) for r in (0, 1, 2)]), ["no share of noise"]),
    (Claim(**definition()), planned([{}], "a", [0, 1]) + planned([{}], "b", [2, 3]), ["no pair in common"]),
])  # fmt: skip
def test_statistics_that_no_planned_run_can_bear_are_refused(made, cells, words):
    with pytest.raises(UserError) as error:
        check([made], cells)
    assert "\n" not in str(error.value)
    for word in [*words, "test.yaml"]:
        assert word in str(error.value)


def test_other_open_columns_make_a_claim_each():
    levels = [{RATE: r, "noise.kind": kind} for kind in ("near_miss", "swapped") for r in RATES]
    parts = expand(claim(SLOPE), tables.cells_frame(planned(levels)))
    assert [part.id for part in parts] == ["test@noise.kind=near_miss", "test@noise.kind=swapped"]
    assert RATE not in parts[0].treatment


# --- published evidence ---------------------------------------------------------------------------------------------


def test_statistics_are_recomputed_to_the_byte(tmp_path):
    some = [
        claim(SLOPE, id="slope", kind="less"),
        claim({"name": "optimum", "along": RATE}, id="optimum", kind="equivalent", reference=0.25, margin=0.1),
        claim({"name": "interior_gain", "along": RATE}, id="gain"),
        claim({"name": "needed", "along": RATE, "target": 0.5}, id="needed", kind="less", margin=2.0),
        Claim(**definition(id="itself", point="end", control={"arm": "a", RATE: 0.2}, control_point="step:48",
                           treatment={"arm": "a", RATE: 0.2})),
    ]  # fmt: skip
    made = tables.write(tmp_path / "runs.csv", table(runs(reaching(lambda eta: 2 * eta), along(RATE, RATES), bases=1)))
    found = judge(made, *some)
    store.write_atomic(tmp_path / "claims.json", store.canonical(found))
    assert claims.recompute(tmp_path)
    assert all(entry["estimate"] is not None for entry in found)
    assert claims.changed(found, tmp_path) == []


def test_entries_of_before_there_were_statistics_are_not_taken_for_changed(tmp_path):
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(definition()))
    entry = {"definition": load(["test"], tmp_path)[0].model_dump(mode="json")}
    for key in ("statistic", "reference", "control_point", "control_metric"):
        del entry["definition"][key]
    assert claims.changed([entry], tmp_path) == []
    entry["definition"]["reference"] = 0.5
    assert claims.changed([entry], tmp_path) == ["test.reference"]
