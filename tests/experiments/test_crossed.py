"""Items crossed with pairs: intervals that cover over both, the claims that ask for them, and what they are made of."""

import numpy as np
import pandas as pd
import pytest

from experiments import UserError, statistics
from experiments import table as tables
from experiments.claim_files import load
from experiments.claims import Claim, judge
from experiments.measuring import single_items
from experiments.suites.build import Suite

PAIRS, ITEMS = 6, 40
STRATA = np.repeat(["long", "short"], [10, 30])


def drawn(rng, effect, of_pairs, of_items, left):
    """Differences of shape (PAIRS, ITEMS) with these standard deviations."""
    return (
        effect
        + rng.normal(0, of_pairs, (PAIRS, 1))
        + rng.normal(0, of_items, (1, ITEMS))
        + rng.normal(0, left, (PAIRS, ITEMS))
    )


@pytest.mark.parametrize("spreads", [(0.1, 0.5, 0.3), (0.3, 0.0, 0.3), (0.0, 0.5, 0.1), (0.0, 0.0, 0.5)])
def test_the_interval_covers_over_new_pairs_and_new_items(spreads):
    rng, weights = np.random.default_rng(0), np.where(STRATA == "long", 0.5 / 10, 0.5 / 30)
    found = [statistics.crossed(drawn(rng, 0.2, *spreads), weights, STRATA).interval(0.9) for _ in range(300)]
    covered = np.mean([low < 0.2 < high for low, high in found])
    assert covered > 0.86, spreads  # nominally .9; a standard error is .015


def test_what_only_the_pairs_say_is_too_sure_where_items_differ():
    rng = np.random.default_rng(1)
    d = [drawn(rng, 0.0, 0.05, 0.5, 0.1) for _ in range(200)]
    weights = np.full(ITEMS, 1 / ITEMS)
    fixed = [statistics.estimate(x @ weights, np.zeros(PAIRS)).interval(0.9) for x in d]
    crossed = [statistics.crossed(x, weights, np.zeros(ITEMS)).interval(0.9) for x in d]
    missed = [np.mean([not low < 0 < high for low, high in side]) for side in (fixed, crossed)]
    assert missed[0] > 0.3 and missed[1] < 0.15


def test_an_item_counts_for_what_it_weighs():
    rng = np.random.default_rng(2)
    d, tokens = drawn(rng, 0.1, 0.1, 0.3, 0.1), rng.integers(5, 200, ITEMS).astype(float)
    e = statistics.crossed(d, tokens / tokens.sum(), np.zeros(ITEMS))
    assert e.mean == pytest.approx((d.mean(0) * tokens).sum() / tokens.sum())
    with pytest.raises(ValueError, match="fewer than two of each"):
        statistics.crossed(d[:1], tokens / tokens.sum(), np.zeros(ITEMS))
    with pytest.raises(ValueError, match="fewer than two of each"):
        statistics.crossed(d, tokens / tokens.sum(), np.arange(ITEMS))


def test_more_pairs_help_only_against_what_pairs_add():
    rng, weights = np.random.default_rng(3), np.full(ITEMS, 1 / ITEMS)
    of_pairs = statistics.crossed(drawn(rng, 0.3, 0.4, 0.05, 0.05), weights, np.zeros(ITEMS))
    needed = of_pairs.pairs_needed("greater", 0.05, 0.0, 0.95)
    assert needed is not None and 5 < needed < 200
    again = statistics.pairs_needed("greater", of_pairs.mean, of_pairs.sd, 1, 0.05, 0.95)
    assert again is not None and abs(needed - again) <= 5  # degrees of freedom of the items come on top
    of_items = statistics.crossed(drawn(rng, 0.1, 0.05, 2.0, 0.05), weights, np.zeros(ITEMS))
    assert of_items.pairs_needed("greater", 0.05, 0.0, 0.95) is None


@pytest.mark.parametrize("margin", [0.01, 0.2])
def test_its_p_value_and_its_interval_agree(margin):
    rng, weights = np.random.default_rng(4), np.full(ITEMS, 1 / ITEMS)
    for effect in (-0.6, 0.0, 0.6):
        e = statistics.crossed(drawn(rng, effect, 0.1, 0.3, 0.1), weights, np.zeros(ITEMS))
        for level in (0.5, 0.9, 0.999):
            verdict = statistics.decide("less", *e.interval(level), margin)
            assert (verdict != "inconclusive") == (e.p_value("less", margin) < 1 - level)


def table_of(rng, drop=None):
    """Two arms, four pairs; the treatment is .3 nats better, on items that differ."""
    rows = []
    shift = {"a": rng.normal(-0.3, 0.2, 12), "b": rng.normal(-0.3, 0.2, 12)}
    for arm in ("filtered", "random"):
        for pair in range(4):
            identity = {"run_id": f"{arm}{pair}", "arm": arm, "seed_pair": pair, "seed_base": 0, "seed_data": pair}
            identity |= {"seed_select": pair, "seed_train": pair}
            means = []
            for suite, of_item in shift.items():
                values = 3 + (arm == "filtered") * of_item + rng.normal(0, 0.02, 12)
                means.append(values.mean())
                for i, value in enumerate(values):
                    if (arm, pair, i) != drop:
                        cell = {"suite": "items", "metric": f"nll_answer:{suite}:{i}", "value": value, "n": 10 + i}
                        rows.append({**identity, "point": "best_val", "tokens": 9, **cell})
            rows.append({**identity, "point": "end", "suite": "run", "metric": "done", "value": 1.0})
            ood = {"suite": "ood", "metric": "nll_answer", "value": np.mean(means), "n": 24}
            rows.append({**identity, "point": "best_val", "tokens": 9, **ood})
    return pd.DataFrame(rows)


def asked(**changed):
    tree = {"id": "x", "title": "t", "source": "s", "quoted": {"figure": "f", "at": "a"}, "reading": "r"}
    tree |= {"kind": "less", "metric": "ood/nll_answer", "margin": 0.01}
    tree |= {"treatment": {"arm": "filtered"}, "control": {"arm": "random"}, "items": "crossed"}
    return Claim(**{**tree, **changed})


BEST = tables.Best("validation", "nll", "min")


def test_a_crossed_claim_is_judged_by_items_and_pairs_and_says_so():
    table = table_of(np.random.default_rng(0))
    crossed, fixed = (
        judge([asked(items=items)], table, best=BEST, experiment="e")[0] for items in ("crossed", "fixed")
    )
    assert crossed["estimate"] == pytest.approx(fixed["estimate"])
    assert crossed["ci_high"] - crossed["ci_low"] > 2 * (fixed["ci_high"] - fixed["ci_low"])
    assert crossed["verdict"] == "reproduced" and crossed["scope"] == "this model, items and draws like these"
    assert "24 items crossed with the pairs" in crossed["note"]
    assert crossed["definition"]["items"] == "crossed" and "items" not in fixed["definition"]


def test_where_the_items_leave_too_much_open_no_number_of_pairs_is_promised():
    table = table_of(np.random.default_rng(0))
    [entry] = judge([asked(margin=0.25)], table, best=BEST, experiment="e")
    assert entry["verdict"] == "inconclusive" and entry["seeds_needed"] is None
    assert "it takes more of them" in entry["note"]
    [decided] = judge([asked()], table, best=BEST, experiment="e")
    assert "it takes more of them" not in decided["note"]


def test_an_item_that_some_run_lacks_leaves_no_verdict():
    table = table_of(np.random.default_rng(0), drop=("random", 2, 3))
    [entry] = judge([asked()], table, best=BEST, experiment="e")
    assert entry["verdict"] == "inconclusive" and "not every run has its items" in entry["note"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"metric": "ood/em"}, "metric=ood/em is none of nll, nll_answer, gap"),
        ({"point": "step:4"}, "point=step:4 is none of best_val, end"),
        ({"scale": "log_ratio"}, "plain differences"),
        ({"control": {}, "reference": 1.0}, "plain differences"),
    ],
)
def test_what_cannot_be_crossed_is_refused(changed, said):
    with pytest.raises(ValueError, match=said):
        asked(**changed)


def test_claims_about_real_data_are_crossed():
    from experiments.claim_files import FOLDER

    names = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem.startswith(("real_", "revised_")))
    assert len(names) > 20
    assert {claim.items for claim in load(names)} == {"crossed"}
    with pytest.raises(UserError, match="no such claim"):
        load(["real_nothing"])


def test_a_record_keeps_the_items_of_likelihoods_out_of_distribution():
    suites = [Suite(n, ood, m, (), ()) for n, ood, m in (("a", True, "likelihood"), ("v", False, "likelihood"))]
    items = [{"suite": s, "item": i, "nll_answer": 1 / 3, "gap": 0.5, "tokens": 7.0} for s in "av" for i in range(2)]
    assert single_items(items, suites) == {
        f"{name}:a:{i}": {"value": value, "n": 7}
        for i in range(2)
        for name, value in (("nll_answer", 0.333333), ("gap", 0.5))
    }
