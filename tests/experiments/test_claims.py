import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from experiments import UserError, claims, statistics, store
from experiments import table as tables
from experiments.claim_files import FOLDER, Claim, check, expand, load, undecidable
from tests.experiments.synthetic import BEST, QUICK, STEPS, cell, quickstart, record

QUICKSTART = [
    "alpagasus_best_control", "alpagasus_full", "alpagasus_time", "alpagasus_time_scored", "random_selection",
    "longest_selection", "reward_model_bt_best_control", "duplication_25", "duplication_100",
]  # fmt: skip


def definition(**changes):
    tree = {
        "id": "test",
        "title": "a beats b",
        "source": "arXiv:0000.00000",
        "quoted": {"figure": "more", "at": "7B"},
        "reading": "as it stands",
        "kind": "greater",
        "metric": "ood/em",
        "treatment": {"arm": "a"},
        "control": {"arm": "b"},
        "margin": 0.02,
    }
    return tree | changes


def claim(**changes) -> Claim:
    return Claim(**definition(**changes))


def table_of(scores, bases=3, validation=None, levels=None) -> pd.DataFrame:
    """scores: arm -> value for each pair (None = the run is missing)."""
    cells, records = [], {}
    for arm, values in scores.items():
        for pair, score in enumerate(values):
            made = cell(arm, pair, (levels or {}).get(arm), bases=bases)
            cells.append(made)
            if score is not None:
                valid = (validation or {}).get(arm, [score] * (pair + 1))[pair]
                records[made.run_id] = record(made, [0.0, 0.1 * score, 0.5 * score, score], [0, 0, 0.5 * valid, valid])
    return tables.runs_table(cells, records, BEST)


def judge(table, *some, **options):
    return claims.judge(list(some), table, best=BEST, experiment="test", **options)


def one(table, made):
    (entry,) = judge(table, made)
    return entry


# --- verdicts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "low", "high", "verdict"), [
    ("greater", 0.03, 0.09, "reproduced"), ("greater", -0.09, -0.03, "contradicted"),
    ("greater", -0.01, 0.01, "no_effect"), ("greater", 0.01, 0.09, "inconclusive"),
    ("greater", 0.02, 0.09, "inconclusive"), ("greater", -0.09, -0.01, "inconclusive"),
    ("greater", 0.005, 0.019, "no_effect"), ("greater", -0.5, 0.5, "inconclusive"),
    ("less", 0.03, 0.09, "contradicted"), ("less", -0.09, -0.03, "reproduced"), ("less", -0.01, 0.01, "no_effect"),
    ("less", -0.09, -0.01, "inconclusive"),
    ("equivalent", -0.01, 0.01, "reproduced"), ("equivalent", 0.03, 0.09, "contradicted"),
    ("equivalent", -0.09, -0.03, "contradicted"), ("equivalent", -0.03, 0.01, "inconclusive"),
    ("noninferior", -0.01, 0.5, "reproduced"), ("noninferior", -0.5, -0.03, "contradicted"),
    ("noninferior", -0.03, 0.5, "inconclusive"), ("noninferior", 0.3, 0.5, "reproduced"),
])  # fmt: skip
def test_the_table_of_verdicts(kind, low, high, verdict):
    assert statistics.decide(kind, low, high, 0.02) == verdict


def test_less_is_greater_turned_round():
    swap = {"reproduced": "contradicted", "contradicted": "reproduced"}
    for low, high in itertools.combinations(np.linspace(-0.1, 0.1, 21), 2):
        said = statistics.decide("greater", low, high, 0.025)
        assert statistics.decide("less", low, high, 0.025) == swap.get(said, said)
        assert statistics.decide("less", -high, -low, 0.025) == said


@pytest.mark.parametrize("kind", ["greater", "less", "equivalent", "noninferior"])
def test_p_is_the_level_at_which_the_interval_decides(kind):
    for mean in np.linspace(-0.2, 0.2, 41):
        e = statistics.Estimate(mean, 0.03, 0.012, 4, 3)
        p = float(statistics.p_value(kind, e, 0.05))
        for a in (p * 0.98, p * 1.02):
            if 0 < a < 0.999:
                assert (statistics.decide(kind, *e.interval(1 - a), 0.05) != "inconclusive") == (a > p)


# --- estimates ------------------------------------------------------------------------------------------------------


def test_bases_are_fixed_blocks():
    d = np.array([0.1, 0.5, 0.2, 0.6])
    e = statistics.estimate(d, [0, 1, 0, 1])
    assert (e.mean, e.df, e.blocks) == (pytest.approx(0.35), 2, 2)
    assert e.sd == pytest.approx(math.sqrt((2 * 0.05**2 * 2) / 2))
    assert e.se == pytest.approx(e.sd / 2)


def test_unequal_blocks():
    d = np.array([0.1, 0.3, 0.2, 0.7])  # bases 0, 0, 0, 1
    e = statistics.estimate(d, [0, 0, 0, 1])
    assert (e.mean, e.df) == (pytest.approx(0.325), 2)
    assert e.sd == pytest.approx(0.1)


@pytest.mark.parametrize("bases", [[0] * 5, list(range(5))])
def test_one_base_or_one_pair_a_base_is_the_ordinary_paired_t(bases):
    d = np.array([0.1, 0.3, 0.2, 0.7, -0.1])
    low, high = statistics.estimate(d, bases).interval(0.95)
    expected = stats.ttest_1samp(d, 0).confidence_interval(0.95)
    assert (low, high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_across_bases_is_the_t_of_base_means():
    d = np.array([0.1, 0.3, 0.2, 0.7, -0.1, 0.5])
    e = statistics.estimate(d, [0, 1, 2, 0, 1, 2], across=True)
    expected = stats.ttest_1samp([0.4, 0.1, 0.35], 0).confidence_interval(0.95)
    assert e.interval(0.95) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_one_pair_has_no_error():
    with pytest.raises(ValueError, match="fewer than two"):
        statistics.estimate(np.array([0.1]), [0])


# --- several claims -------------------------------------------------------------------------------------------------


def test_holm_levels_step_down_and_stop():
    found = statistics.levels([0.001, 0.04, 0.013, 0.5])
    assert found == [
        pytest.approx(1 - 0.05 / 4),
        pytest.approx(1 - 0.05 / 2),
        pytest.approx(1 - 0.05 / 3),
        pytest.approx(1 - 0.05 / 2),
    ]
    assert statistics.levels([0.02, 0.02, 0.001]) == [
        pytest.approx(0.975),
        pytest.approx(0.95),
        pytest.approx(1 - 0.05 / 3),
    ]
    assert statistics.levels([None, 0.01]) == [pytest.approx(0.95), pytest.approx(0.975)]
    assert statistics.levels([]) == []


def test_a_claim_that_cannot_be_tested_still_counts_and_one_that_is_not_comparable_does_not():
    table = table_of({"a": [0.5, 0.6, 0.55, 0.5, 0.61, 0.55], "b": [0.3, 0.4, 0.36, 0.3, 0.4, 0.35]})
    why = {"reason": "saturated.", "command": "python -m experiments.run ..."}
    untestable = claim(id="missing", treatment={"arm": "c"})
    far = claim(id="far", not_comparable=why)
    first = judge(table, claim(), untestable, far)
    assert [e["level"] for e in first] == [0.975, None, None]
    assert [e["verdict"] for e in first] == ["reproduced", "inconclusive", "not_comparable"]
    assert first[2]["note"] == f"saturated; to decide it: {why['command']}"


# --- from runs to verdicts ------------------------------------------------------------------------------------------


def test_planted_effects_are_found_and_labelled():
    cells, records = quickstart(noise=0.005)
    found = {e["id"]: e for e in judge(tables.runs_table(cells, records, BEST), *load(QUICKSTART))}
    expected = {
        "alpagasus_best_control": "reproduced",
        "alpagasus_full": "reproduced",
        "alpagasus_time": "reproduced",
        "random_selection": "contradicted",
        "longest_selection": "contradicted",
        "reward_model_bt_best_control": "reproduced",
        "duplication_100": "reproduced",
    }
    assert {name: found[name]["verdict"] for name in expected} == expected
    assert found["alpagasus_best_control"]["control"] == {"arm": "random_length_matched"}
    assert found["duplication_100"]["treatment"] == {"arm": "duplicated", "duplication.rate": 1.0}
    assert found["alpagasus_full"]["estimate"] == pytest.approx(0.16, abs=0.03)
    assert found["alpagasus_full"]["pairs"] == 6
    assert found["alpagasus_full"]["scope"] == "these 3 base models"


def test_swapping_the_arms_turns_the_verdict_round():
    table = table_of({"a": [0.5, 0.6, 0.55, 0.5, 0.61, 0.55], "b": [0.3, 0.4, 0.36, 0.3, 0.4, 0.35]})
    there, back = one(table, claim()), one(table, claim(treatment={"arm": "b"}, control={"arm": "a"}))
    assert (there["verdict"], back["verdict"]) == ("reproduced", "contradicted")
    assert there["estimate"] == -back["estimate"]
    assert (there["ci_low"], there["ci_high"]) == (-back["ci_high"], -back["ci_low"])


def test_estimate_and_interval_can_be_had_from_the_two_files_alone():
    cells, records = quickstart(seed=3)
    table = tables.runs_table(cells, records, BEST)
    for entry in judge(table, *load(QUICKSTART)):
        suite, metric = entry["metric"].split("/")
        rows = table[(table["suite"] == suite) & (table["metric"] == metric) & (table["point"] == entry["point"])]
        arm = {}
        for side in ("treatment", "control"):
            chosen = rows
            for key, level in entry[side].items():
                chosen = chosen[chosen[key] == level]
            arm[side] = chosen.set_index("seed_pair")["value"].sort_index().astype(float)
        d = arm["treatment"] - arm["control"]
        if entry["scale"] == "log_ratio":
            d = np.log(arm["treatment"]) - np.log(arm["control"])
        assert entry["estimate"] == pytest.approx(d.mean(), rel=1e-5)
        blocks = d - d.groupby(d.index % 3).transform("mean")
        half = stats.t.ppf((1 + entry["level"]) / 2, 3) * math.sqrt((blocks**2).sum() / 3 / 6)
        assert entry["ci_low"] == pytest.approx(d.mean() - half, rel=1e-4, abs=1e-5)
        assert entry["ci_high"] == pytest.approx(d.mean() + half, rel=1e-4, abs=1e-5)
        bounds = entry["ci_low"], entry["ci_high"], entry["margin"]
        assert entry["verdict"] == statistics.decide(entry["kind"], *bounds)


def test_a_best_point_that_was_the_last_of_several_is_told(monkeypatch):
    table = table_of({"a": [0.5, 0.6, 0.55], "b": [0.3, 0.3, 0.35]})
    single = table[~table["point"].isin([f"step:{step}" for step in STEPS[:-1]])]  # nothing to choose from
    for least in (tables.MANY, 0):
        monkeypatch.setattr(tables, "MANY", least)
        assert "the treatment was best at the end of its curve in 3 of 3 runs" in one(table, claim())["note"]
        assert "best at the end" not in one(single, claim())["note"]


def test_pairs_are_matched_by_pair_and_not_by_order():
    cells, records = quickstart(seed=5)
    table = tables.runs_table(cells, records, BEST)
    shuffled = table.sample(frac=1, random_state=1).reset_index(drop=True)
    assert store.canonical(judge(table, *load(QUICKSTART))) == store.canonical(judge(shuffled, *load(QUICKSTART)))


def test_pairing_matters():
    """Control runs shuffled among the pairs: the mean stays, the interval does not."""
    level = [0.2, 0.5, 0.8, 0.25, 0.55, 0.85]
    table = table_of({"a": [v + 0.1 for v in level], "b": [v + e for v, e in zip(level, [0, 0.01] * 3, strict=True)]})
    broken = table.copy()
    rows = broken["arm"] == "b"
    broken.loc[rows, "seed_pair"] = broken.loc[rows, "seed_pair"].map({0: 1, 1: 2, 2: 0, 3: 5, 4: 3, 5: 4})
    broken.loc[rows, "seed_base"] = broken.loc[rows, "seed_pair"] % 3
    right, wrong = one(table, claim()), one(broken, claim())
    assert right["verdict"] == "reproduced"
    assert wrong["verdict"] == "inconclusive"
    assert right["estimate"] == pytest.approx(wrong["estimate"], abs=1e-6)


def test_permuted_labels_show_nothing():
    """The sign of each pair's difference flipped in all ways: a verdict is rarer than the nominal rate."""
    d = np.array([0.16, 0.12, 0.15, 0.13, 0.17, 0.14])
    decided = [
        statistics.decide("greater", *statistics.estimate(d * signs, [0, 1, 2] * 2).interval(0.95), 0.02)
        != "inconclusive"
        for signs in itertools.product([1, -1], repeat=6)
    ]
    assert decided[0]
    assert np.mean(decided) <= 8 / 64  # only where the signs agree inside every base


def test_several_draws_are_averaged_inside_their_pair():
    cells, records = [], {}
    for pair in range(4):
        for arm, draws in (("a", [0]), ("b", [0, 1, 2])):
            for draw in draws:
                made = cell(arm, pair, select=draw)
                cells.append(made)
                score = 0.5 + 0.01 * pair if arm == "a" else 0.3 + 0.1 * draw + 0.002 * pair * pair
                records[made.run_id] = record(made, [0, 0, 0, score])
    entry = one(tables.runs_table(cells, records, BEST), claim())
    assert entry["pairs"] == 4
    assert entry["estimate"] == pytest.approx(0.1 + np.mean([0.01 * p - 0.002 * p * p for p in range(4)]), abs=1e-6)


def test_missing_pairs_are_named_and_the_rest_is_used():
    table = table_of({"a": [0.5, None, 0.55, 0.5, 0.61, 0.55], "b": [0.3, 0.4, 0.36, 0.3, None, 0.35]})
    entry = one(table, claim())
    assert entry["pairs"] == 4
    assert "without pair 1, 4" in entry["note"]
    assert entry["estimate"] == pytest.approx(np.mean([0.2, 0.19, 0.2, 0.2]))


@pytest.mark.parametrize(("scores", "reason"), [
    ({"a": [0.5], "b": [0.3]}, "one pair"),
    ({"a": [0.5, None], "b": [0.3, 0.2]}, "one pair"),
    ({"a": [None, 0.4], "b": [0.3, None]}, "no pair"),
    ({"a": [None, None], "b": [None, None]}, "no pair"),
    ({"a": [0.5, 0.5, 0.5], "b": [0.3, 0.3, 0.3]}, "do not differ"),
    ({"a": [0.99, 1.0, 0.98], "b": [0.98, 0.99, 1.0]}, "within 0.02 of 1"),
    ({"a": [0.01, 0.0, 0.02], "b": [0.0, 0.01, 0.0]}, "within 0.02 of 0"),
    ({"b": [0.3, 0.4]}, "no run was planned for a"),
])  # fmt: skip
def test_what_cannot_be_judged_is_inconclusive_and_says_why(scores, reason):
    entry = one(table_of(scores), claim())
    assert entry["verdict"] == "inconclusive"
    assert reason in entry["note"]
    assert (
        entry["ci_low"] is entry["ci_high"] is entry["p"] is entry["level"] is entry["size"]
        or entry["size"] == "none quoted"
    )


def test_one_arm_at_the_floor_is_no_reason_to_be_silent():
    entry = one(table_of({"a": [0.5, 0.6, 0.55, 0.5, 0.61, 0.55], "b": [0.0, 0.01, 0.0, 0.0, 0.0, 0.01]}), claim())
    assert entry["verdict"] == "reproduced"


def test_the_same_runs_on_both_sides_say_nothing():
    cells, records = [], {}
    for pair in range(3):
        a = cell("a", pair)
        cells += [a, tables.Cell(a.run_id, "b", a.seeds, a.levels)]
        records[a.run_id] = record(a, [0, 0, 0, 0.5 + 0.1 * pair])
    assert "the same runs" in one(tables.runs_table(cells, records, BEST), claim())["note"]


def test_without_a_scope_the_planned_bases_name_it():
    rng = np.random.default_rng(0)
    scores = {"a": list(0.6 + 0.01 * rng.standard_normal(12)), "b": list(0.4 + 0.01 * rng.standard_normal(12))}
    for bases, scope in ((3, "these"), (5, "these"), (6, "across")):
        named, left = (
            one(table_of(scores, bases=bases), claim(scope=scope)),
            one(table_of(scores, bases=bases), claim()),
        )
        assert left["scope"] == named["scope"] and left["ci_low"] == named["ci_low"]
        assert left["definition"]["scope"] == "auto"


def test_scopes_are_told_apart():
    rng = np.random.default_rng(0)
    scores = {"a": list(0.6 + 0.01 * rng.standard_normal(12)), "b": list(0.4 + 0.01 * rng.standard_normal(12))}
    these = claim(scope="these")
    scope = {bases: one(table_of(scores, bases=bases), these)["scope"] for bases in (1, 3, 12)}
    assert scope == {
        1: "this model, these items and seeds",
        3: "these 3 base models",
        12: "these 12 base models (one pair each: t over pairs)",
    }
    across = claim(scope="across")
    few, enough = one(table_of(scores, bases=3), across), one(table_of(scores, bases=6), across)
    assert (few["verdict"], few["ci_low"]) == ("inconclusive", None)
    assert "3 base models say nothing about others" in few["note"]
    assert (enough["verdict"], enough["scope"]) == ("reproduced", "across base models")


def test_pairs_needed_is_said_only_where_something_is_open():
    open_, decided = (
        one(table_of({"a": [0.5 + e for e in noise], "b": [0.4] * 6}), claim())
        for noise in ([0.1, -0.1, 0.05, -0.1, 0.1, -0.08], [0.01, 0.0, 0.012, -0.003, 0.0, 0.002])
    )
    assert (decided["verdict"], decided["seeds_needed"]) == ("reproduced", None)
    assert open_["verdict"] == "inconclusive"
    assert 6 < open_["seeds_needed"] < 100


def test_the_quoted_size_is_judged_apart():
    table = table_of({"a": [0.5, 0.61, 0.55, 0.5, 0.6, 0.56], "b": [0.3, 0.4, 0.36, 0.3, 0.4, 0.35]})
    for effect, size in ((0.2, "covers"), (0.8, "excludes"), (None, "none quoted")):
        entry = one(table, claim(quoted={"figure": "more", "at": "7B", "effect": effect}))
        assert (entry["size"], entry["verdict"]) == (size, "reproduced")


# --- the best of several controls -----------------------------------------------------------------------------------


def test_the_best_control_is_chosen_on_validation_never_on_the_test():
    scores = {"a": [0.8, 0.82, 0.81], "b": [0.3, 0.31, 0.33], "c": [0.6, 0.63, 0.61]}
    validation = {"a": [0.5] * 3, "b": [0.9] * 3, "c": [0.2] * 3}
    both = claim(control={"best_of": [{"arm": "b"}, {"arm": "c"}]})
    entry = one(table_of(scores, validation=validation), both)
    assert entry["control"] == {"arm": "b"}
    assert entry["estimate"] == pytest.approx(np.mean([0.5, 0.51, 0.48]))
    least = tables.Best(suite="validation", metric="nll", mode="min")  # nll = 3 (1 - em): the same order
    (entry,) = claims.judge([both], table_of(scores, validation=validation), best=least, experiment="test")
    assert entry["control"] == {"arm": "b"}


def test_without_a_pair_of_all_controls_the_best_is_unknown():
    scores = {"a": [0.8, 0.8], "b": [0.3, None], "c": [None, 0.6]}
    entry = one(table_of(scores), claim(control={"best_of": [{"arm": "b"}, {"arm": "c"}]}))
    assert entry["verdict"] == "inconclusive"
    assert "which is best cannot be told" in entry["note"]


# --- time -----------------------------------------------------------------------------------------------------------


def minutes(filtered: list[list[float]]) -> dict:
    cells, records = [], {}
    for pair, curve in enumerate(filtered):
        for arm, values in (("full", [0.1, 0.3, 0.5 + 0.001 * pair, 0.6 + 0.01 * pair]), ("filtered", curve)):
            made = cell(arm, pair)
            cells.append(made)
            records[made.run_id] = record(made, values)
    return one(tables.runs_table(cells, records, BEST), load(["alpagasus_time"])[0])


def test_time_to_quality_is_a_ratio():
    entry = minutes([[0.6 + 0.02 * p, 0.7 + 0.01 * p, 0.8, 0.8] for p in range(6)])
    assert entry["verdict"] == "reproduced"
    assert math.exp(entry["estimate"]) == pytest.approx(48 / 384, rel=0.05)


def test_who_never_got_there_cannot_have_been_faster():
    entry = minutes([[0.7 + 0.01 * p, 0.8, 0.8, 0.8] for p in range(5)] + [[0.1, 0.1, 0.1, 0.1]])
    assert entry["ci_high"] is None
    assert entry["ci_low"] is not None
    assert entry["verdict"] == "inconclusive"
    assert "censored: in 1 of 6 pairs" in entry["note"]


def test_who_never_got_there_can_be_shown_to_be_slower():
    cells, records = [], {}
    for pair in range(6):
        best = [0.5, 0.4, 0.4, 0.3] if pair == 3 else [0.1, 0.5 + 0.03 * pair, 0.4, 0.3]
        for arm, values in (("full", best), ("filtered", [0.1, 0.2, 0.3, 0.35])):
            made = cell(arm, pair)
            cells.append(made)
            records[made.run_id] = record(made, values)
    entry = one(tables.runs_table(cells, records, BEST), load(["alpagasus_time"])[0])
    assert entry["verdict"] == "contradicted"
    assert entry["ci_high"] is None
    assert entry["ci_low"] > entry["margin"]


def test_a_ratio_with_nothing_in_it_is_undecided():
    entry = one(table_of({"a": [0.5, 0.0, 0.4], "b": [0.3, 0.3, 0.2]}), claim(scale="log_ratio"))
    assert "above 0" in entry["note"]
    assert entry["estimate"] is None


# --- levels ---------------------------------------------------------------------------------------------------------


def swept(rates=(0.0, 0.4), arms=("a", "b")):
    return [cell(arm, pair, {"noise.rate": rate}) for rate in rates for arm in arms for pair in range(3)]


def test_an_axis_makes_a_claim_for_each_of_its_levels():
    frame = tables.cells_frame(swept())
    parts = expand(claim(), frame)
    assert [part.id for part in parts] == ["test@noise.rate=0.0", "test@noise.rate=0.4"]
    assert parts[1].treatment == {"arm": "a", "noise.rate": 0.4}
    assert parts[1].control == {"arm": "b", "noise.rate": 0.4}
    cells = swept()
    records = {
        c.run_id: record(c, [0, 0, 0, 0.5 + 0.2 * (c.arm == "a") - c.levels["noise.rate"] + 0.01 * c.seeds["pair"]])
        for c in cells
    }
    found = judge(tables.runs_table(cells, records, BEST), claim())
    assert [entry["pairs"] for entry in found] == [3, 3]
    assert len({entry["id"] for entry in found}) == 2


def test_what_is_not_comparable_is_said_once_and_not_for_each_level():
    far = claim(not_comparable={"reason": "saturated", "command": "python -m experiments.run ..."})
    assert [part.id for part in expand(far, tables.cells_frame(swept()))] == ["test"]


def test_a_level_only_of_the_treatment_varies_there_alone():
    cells = [*swept(arms=("a",)), *(cell("b", pair, {"noise.rate": 0.0}) for pair in range(3))]
    parts = expand(claim(control={"arm": "b"}), tables.cells_frame(cells))
    assert [(p.treatment["noise.rate"], p.control) for p in parts] == [(0.0, {"arm": "b"}), (0.4, {"arm": "b"})]


def test_a_level_only_of_the_control_is_ambiguous():
    cells = [*swept(arms=("b",)), *(cell("a", pair, {"noise.rate": 0.0}) for pair in range(3))]
    with pytest.raises(UserError, match=r"several levels of noise\.rate"):
        check([claim()], cells)


def test_draws_are_no_levels():
    cells = [cell(arm, pair, {"seed.select": s}, select=s) for arm in "ab" for pair in range(2) for s in range(2)]
    assert [part.id for part in expand(claim(), tables.cells_frame(cells))] == ["test"]


# --- before any training --------------------------------------------------------------------------------------------


def test_the_claims_of_the_experiments_fit_their_arms():
    check(load(QUICKSTART), quickstart()[0])
    arms = [cell(arm, pair, bases=1) for arm in ("full", "filtered", "random", "longest") for pair in range(2)]
    check(load(sorted(p.stem for p in FOLDER.glob("alpaca_*.yaml"))), arms)


@pytest.mark.parametrize(("changes", "words"), [
    ({"treatment": {"arm": "filtred"}}, ["treatment", "filtred", "filtered"]),
    ({"treatment": {"arm": "duplicated", "duplication.rate": 0.3}}, ["treatment", "0.3"]),
    ({"treatment": {"arm": "full", "duplicaton.rate": 0.3}}, ["duplicaton.rate", "duplication.rate"]),
    ({"control": {"best_of": [{"arm": "random"}, {"arm": "nothing"}]}}, ["control", "nothing"]),
])  # fmt: skip
def test_claims_that_no_planned_run_can_decide_are_refused(changes, words):
    made = claim(**{"treatment": {"arm": "filtered"}, "control": {"arm": "full"}} | changes)
    with pytest.raises(UserError) as error:
        check([made], quickstart()[0])
    assert "\n" not in str(error.value)
    for word in [*words, "test.yaml"]:
        assert word in str(error.value)
    assert undecidable(made.model_copy(update={"not_comparable": True}), tables.cells_frame(quickstart()[0])) is None


@pytest.mark.parametrize(("changes", "words"), [
    ({"margin": 0}, ["margin=0", "greater than 0"]),
    ({"margin": float("nan")}, ["margin"]),
    ({"margin": 0.2, "quoted": {"figure": "x", "at": "y", "effect": 0.3}}, ["margin=0.2", "at most 0.15"]),
    ({"margin": 0.01, "quoted": {"figure": "x", "at": "y", "effect": -0.3}}, ["quoted.effect=-0.3", "kind=greater"]),
    ({"kind": "better"}, ["kind=better", "greater"]),
    ({"metric": "em"}, ["metric=em"]),
    ({"point": "best"}, ["point=best"]),
    ({"point": "to_full"}, ["point=to_full", "minutes_to_full"]),
    ({"metric": "cost/minutes_to_full"}, ["point=best_val"]),
    ({"treatment": {}}, ["treatment", "selector"]),
    ({"treatment": {"arm": ["a", "b"]}}, ["treatment", "arm=['a', 'b']"]),
    ({"treatment": {"value": 1}}, ["value=1"]),
    ({"control": {"best_of": [{"arm": "b"}]}}, ["best_of", "two or more"]),
    ({"control": {"best_of": ["b", "c"]}}, ["best_of", "'b'"]),
    ({"control": {"arm": "a"}}, ["control", "same as the treatment"]),
    ({"sope": "these"}, ["sope=these"]),
    ({"scope": "all"}, ["scope=all"]),
    ({"id": "other"}, ["id=other", "test"]),
    ({"title": ""}, ["title"]),
])  # fmt: skip
def test_a_wrong_claim_file_is_refused_in_one_line(tmp_path, changes, words):
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(definition(**changes)))
    with pytest.raises(UserError) as error:
        load(["test"], tmp_path)
    assert "\n" not in str(error.value)
    for word in [*words, str(path)]:
        assert word in str(error.value)


def test_a_missing_or_broken_claim_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "known.yaml").write_text(yaml.safe_dump(definition(id="known")))
    (tmp_path / "broken.yaml").write_text("id: [")
    (tmp_path / "empty.yaml").write_text("")
    for name, word in (("nothing", "known"), ("broken", "not YAML"), ("empty", "no keys")):
        with pytest.raises(UserError, match=word) as error:
            load([name], tmp_path)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="twice"):
        load(["known", "known"], tmp_path)
    assert load(["known"], tmp_path)[0].id == "known"


def test_every_claim_file_is_sound_and_argued():
    paths = sorted(FOLDER.glob("*.yaml"))
    assert {path.stem for path in paths} >= set(QUICKSTART)
    for path in paths:
        text = path.read_text()
        before_margin = text[: text.index("\nmargin:")].splitlines()[-1]
        assert before_margin.startswith("#"), f"{path.name}: say why the margin is what it is"
    load([path.stem for path in paths])
    assert {arm for arm, _ in QUICK.values()} >= {"duplicated", "filtered"}


# --- published evidence ---------------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "results" / "quickstart"
    cells, records = quickstart(missing=lambda c: c.arm == "random" and c.seeds["pair"] == 2)
    table = tables.write(folder / "runs.csv", tables.runs_table(cells, records, BEST))
    found = claims.judge(load(QUICKSTART), table, best=BEST, experiment="quickstart")
    store.write_atomic(folder / "claims.json", store.canonical(found))
    return folder


def test_claims_are_recomputed_to_the_byte_from_runs_alone(published, capsys):
    assert claims.recompute(published)
    assert claims.main(["check", str(published.parent)]) == 0
    entries = json.loads((published / "claims.json").read_text())
    assert [entry["id"] for entry in entries] == QUICKSTART
    assert any("without pair 2" in entry["note"] for entry in entries)


@pytest.mark.parametrize(("file", "old", "new"), [
    ("claims.json", '"verdict": "reproduced"', '"verdict": "contradicted"'),
    ("claims.json", '"margin": 0.02', '"margin": 0.03'),
    ("claims.json", '"pairs": 6', '"pairs": 7'),
    ("runs.csv", ",filtered,", ",longest,"),
])  # fmt: skip
def test_a_touched_file_is_noticed(published, capsys, file, old, new):
    text = (published / file).read_text()
    assert old in text
    (published / file).write_text(text.replace(old, new))
    assert not claims.recompute(published)
    assert claims.main(["check", str(published.parent)]) == 1


def test_a_margin_that_was_moved_afterwards_is_noticed(published):
    entries = json.loads((published / "claims.json").read_text())
    assert claims.changed(entries) == []
    for entry in entries:
        entry["definition"]["margin"] /= 2
    table = tables.read(published / "runs.csv")
    (published / "claims.json").write_text(store.canonical(claims.rejudge(entries, table)))
    assert claims.recompute(published)  # consistent in itself
    assert "alpagasus_full.margin" in claims.changed(entries)
    assert claims.main(["check", str(published.parent)]) == 1


def test_keys_are_those_that_others_rely_on():
    entry = one(table_of({"a": [0.5, 0.61], "b": [0.3, 0.4]}), claim())
    assert set(entry) >= {
        "id", "title", "source", "quoted", "reading", "experiment", "kind", "metric", "point", "treatment", "control",
        "pairs", "estimate", "ci_low", "ci_high", "level", "margin", "p", "verdict", "size", "scope",
        "seeds_needed", "note",
    }  # fmt: skip


def test_without_a_control_the_values_themselves_are_compared_with_the_reference():
    scores = {"a": [0.50, 0.52, 0.51, 0.49, 0.50, 0.51], "b": [0.1] * 6}
    found = one(table_of(scores), claim(control={}, reference=0.43, margin=0.03))
    assert found["estimate"] == pytest.approx(np.mean(scores["a"]))
    assert (found["verdict"], found["control"], found["pairs"]) == ("reproduced", {}, 6)
    assert found["ci_low"] > 0.46 and found["ci_low"] < found["estimate"] < found["ci_high"]
    assert one(table_of(scores), claim(control={}, reference=0.6, margin=0.03))["verdict"] == "contradicted"
    no_figure = one(table_of(scores), claim(control={}, reference=0.43, metric="moon/em"))
    assert "no pair has moon/em at best_val for a" in no_figure["note"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "control: a selector names at least one column"),
        ({"reference": 0.4, "scale": "log_ratio"}, "control: none to put the treatment in relation to"),
        ({"reference": 0.4, "settled": True}, "control: none to put the treatment in relation to"),
        ({"reference": 0.4, "metric": "cost/minutes_to_full", "point": "to_full"}, "give one"),
    ],
)
def test_a_claim_without_a_control_says_what_it_is_compared_with_and_no_more(changes, said):
    with pytest.raises(ValueError, match=said):
        claim(control={}, **changes)
