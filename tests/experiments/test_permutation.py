"""Real runs under the null hypothesis: where the two arms of a pair change their names by lot, nobody may be right.

The runs are those of the published experiment `alpagasus` (12 pairs on as many base models): of two arms of each pair
it is as likely that one or the other is called the treatment, and all ways of doing so are gone through.
"""

from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

from experiments import claims, statistics
from experiments import table as tables
from experiments.claim_files import load

FOLDER = Path(__file__).resolve().parents[2] / "results" / "alpagasus"
FALSE = 0.064  # the share of false verdicts that is put up with where 5 % are promised
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="results/alpagasus is not published in this checkout")
BEST = tables.Best("validation", "nll", "min")


@pytest.fixture(scope="module")
def table():
    return tables.read(FOLDER / "runs.csv")


@pytest.fixture(scope="module")
def scores(table):
    """(pairs, arms) of ood/em at the best point, one base model a pair."""
    rows = tables.measured(table, "ood/em", "best_val")
    wide = rows.pivot_table(index=["seed_pair", "seed_base"], columns="arm", values="value").dropna()
    assert len(wide) >= 12 and wide.index.get_level_values("seed_base").is_unique
    return wide


def test_with_names_by_lot_few_verdicts_are_false(scores):
    signs = np.array(list(product((-1.0, 1.0), repeat=len(scores))))
    bases = scores.index.get_level_values("seed_base")
    false = {}
    for one, other in combinations(scores.columns, 2):
        e = statistics.estimate(signs * (scores[one] - scores[other]).to_numpy(), bases, across=True)
        low, high = e.interval(1 - statistics.ALPHA)
        false[one, other] = float(np.mean((low > 0) | (high < 0)))
    assert len(false) >= 28
    assert max(false.values()) <= FALSE, max(false, key=false.get)
    assert np.mean(list(false.values())) > 0.02  # and it is no shyness that keeps them few


@pytest.mark.parametrize("seed", range(8))
def test_the_whole_way_to_a_verdict_says_the_same(table, scores, seed):
    claim = load(["alpagasus_full"])[0].model_copy(update={"scope": "across"})
    rows = table[table["arm"].isin(["filtered", "full"])].copy()
    draw = np.random.default_rng(seed).integers(0, 2, len(scores)).astype(bool)
    swapped = rows["seed_pair"].isin(scores.index.get_level_values("seed_pair")[draw])
    rows.loc[swapped, "arm"] = rows.loc[swapped, "arm"].map({"filtered": "full", "full": "filtered"})
    (found,) = claims.judge([claim], rows, best=BEST, experiment="alpagasus")
    d = (scores["filtered"] - scores["full"]).to_numpy() * np.where(draw, -1, 1)
    e = statistics.estimate(d, scores.index.get_level_values("seed_base"), across=True)
    low, high = e.interval(found["level"])
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((low, high), rel=1e-5)
    assert found["verdict"] == statistics.decide("greater", low, high, claim.margin)
