"""A/A on real runs: where chance says which of a pair's two runs is whose, hardly any claim may be decided.

The runs are the published ones of `alpagasus`, 9 arms on 12 base models; each A/A takes the 24 of two arms. Whatever
the arms do, after the exchange neither is better, and how the differences are spread is as nature has it: skewed, and
base models differ more than the pairs on them.
"""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from experiments import claims
from experiments import table as tables
from tests.experiments.synthetic import BEST
from tests.experiments.test_claims import claim

RUNS = Path(__file__).resolve().parents[2] / "results" / "alpagasus" / "runs.csv"
CLAIMS = [claim(id=kind, kind=kind, margin=0.02) for kind in ("greater", "equivalent")]


@pytest.fixture(scope="module")
def published():
    table = tables.read(RUNS)
    table = table[table["suite"].isin(["run", "ood", "validation"]) & table["metric"].isin(["done", "em"])]
    assert table.groupby("arm")["run_id"].nunique().min() == 12
    return table


def exchanged(table, arms, rng):
    """The runs of two arms as those of arms a and b, exchanged in half of the pairs, which ones by chance."""
    two = table[table["arm"].isin(arms)]
    turned = set(np.flatnonzero(rng.random(12) < 0.5))
    first = (two["arm"] == arms[0]) ^ two["seed_pair"].isin(turned)
    return two.assign(arm=np.where(first, "a", "b"))


@pytest.mark.parametrize("times", [1, pytest.param(28, marks=pytest.mark.soak)])
def test_claims_about_runs_that_were_exchanged_by_chance_are_not_decided(published, times):
    rng = np.random.default_rng(20)
    false = {one.id: 0 for one in CLAIMS}
    tried = 0
    for arms in combinations(sorted(published["arm"].unique()), 2):
        for _ in range(times):
            tried += 1
            for one in CLAIMS:  # each by itself: what is tested is the nominal 5 %, not a common risk
                (entry,) = claims.judge([one], exchanged(published, arms, rng), best=BEST, experiment="a/a")
                assert entry["pairs"] == 12 and entry["scope"].startswith("across")
                decided = {"greater": {"reproduced", "contradicted"}, "equivalent": {"contradicted"}}[one.kind]
                false[one.id] += entry["verdict"] in decided
    assert tried == 36 * times
    print({kind: f"{count} of {tried}" for kind, count in false.items()})
    chance = 3 * (0.05 * 0.95 / tried) ** 0.5
    assert all(count / tried <= 0.05 + chance for count in false.values())


def test_as_they_were_run_they_are_decided(published):
    """The same judging of the same runs, unexchanged: what an A/A does not decide is there to be decided."""
    two = published[published["arm"].isin(["filtered", "random"])]
    two = two.assign(arm=np.where(two["arm"] == "filtered", "a", "b"))
    verdicts = {e["id"]: e["verdict"] for e in claims.judge(CLAIMS, two, best=BEST, experiment="a/a")}
    assert verdicts == {"greater": "reproduced", "equivalent": "contradicted"}
