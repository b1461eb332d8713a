"""The statistics on simulated experiments: effects are found with the stated power, false ones as rarely as stated.

The base models differ three times as much (in variance) as pairs on one base do, in the difference between arms as
well: what holds for *these* base models then need not hold for others, and each scope is tested against its own truth.
"""

import numpy as np
import pytest
from scipy import stats

from experiments.statistics import decide, estimate, levels, p_value, pairs_needed

EXPERIMENTS = 1000
RESIDUAL = 0.04
BASE = RESIDUAL * 3**0.5
MARGIN = 0.02
KINDS = ("greater", "less", "equivalent", "noninferior")


def generator(name: str) -> np.random.Generator:
    return np.random.default_rng([7, *name.encode()])


def experiments(
    effect: float, pairs: int, bases: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(experiments, pairs) differences, the base of each pair, and each experiment's true effect on its own bases."""
    index = np.arange(pairs) % bases
    own = effect + BASE * rng.standard_normal((EXPERIMENTS, bases))
    differences = own[:, index] + RESIDUAL * rng.standard_normal((EXPERIMENTS, pairs))
    return differences, index, own[:, index].mean(1)


def truth(effect: float, kind: str, margin: float) -> set[str]:
    """The verdicts that are not false."""
    inside, above, below = abs(effect) < margin, effect > margin, effect < -margin
    table = {
        "greater": {"reproduced": above, "contradicted": below, "no_effect": inside},
        "less": {"reproduced": below, "contradicted": above, "no_effect": inside},
        "equivalent": {"reproduced": inside, "contradicted": above or below},
        "noninferior": {"reproduced": effect > -margin, "contradicted": below},
    }
    return {"inconclusive"} | {verdict for verdict, holds in table[kind].items() if holds}


def verdicts(kind: str, e, margin: float, level: np.ndarray | float) -> list[str]:
    low, high = e.interval(level)
    return [decide(kind, lo, hi, margin) for lo, hi in zip(low, high, strict=True)]


@pytest.mark.parametrize(("across", "bases", "pairs"), [(False, 3, 6), (False, 3, 12), (True, 6, 12), (False, 1, 6)])
def test_intervals_cover_their_own_truth(across, bases, pairs):
    rng = generator(f"cover {across} {bases} {pairs}")
    differences, index, own = experiments(0.1, pairs, bases, rng)
    low, high = estimate(differences, index, across).interval(0.95)
    covered = np.mean((low < (0.1 if across else own)) & ((0.1 if across else own) < high))
    assert abs(covered - 0.95) < 3 * (0.95 * 0.05 / EXPERIMENTS) ** 0.5


def test_fixed_bases_say_nothing_about_other_bases():
    """Why a verdict states its scope: the interval for these bases misses the mean over all bases most of the time."""
    differences, index, _ = experiments(0.1, 12, 3, generator("scope"))
    low, high = estimate(differences, index).interval(0.95)
    assert np.mean((low < 0.1) & (high > 0.1)) < 0.7


@pytest.mark.parametrize("pairs", [6, 12, 24])
def test_power_is_what_theory_says(pairs):
    effect = 0.08
    index = np.arange(pairs) % 3
    rng = generator(f"power {pairs}")
    differences = effect + RESIDUAL * rng.standard_normal((EXPERIMENTS, pairs))
    differences += (BASE * np.array([-1.0, 0.0, 1.0]))[index]  # fixed blocks that cancel: they must cost no power
    found = np.mean([v == "reproduced" for v in verdicts("greater", estimate(differences, index), MARGIN, 0.95)])
    df = pairs - 3
    power = stats.nct.sf(stats.t.ppf(0.975, df), df, (effect - MARGIN) * pairs**0.5 / RESIDUAL)
    assert abs(found - power) < 3 * (power * (1 - power) / EXPERIMENTS) ** 0.5 + 1e-3


@pytest.mark.parametrize(
    ("kind", "effect"), [("greater", 0.05), ("greater", 0.0), ("equivalent", 0.005), ("noninferior", 0.0)]
)
def test_pairs_needed_give_the_power_they_promise(kind, effect):
    pairs = pairs_needed(kind, effect, RESIDUAL, 3, MARGIN, 0.95)
    assert pairs is not None
    index = np.arange(pairs) % 3
    rng = generator(f"needed {kind} {effect}")
    differences = effect + RESIDUAL * rng.standard_normal((EXPERIMENTS, pairs))
    decided = np.mean([v != "inconclusive" for v in verdicts(kind, estimate(differences, index), MARGIN, 0.95)])
    assert 0.76 < decided < 0.92
    fewer = pairs // 3 if pairs // 3 > 3 else 4
    index = np.arange(fewer) % 3
    decided = np.mean([
        v != "inconclusive" for v in verdicts(kind, estimate(differences[:, :fewer], index), MARGIN, 0.95)
    ])  # fmt: skip
    assert decided < 0.6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("effect", [-MARGIN, 0.0, MARGIN])
def test_no_kind_gives_false_verdicts_more_often_than_stated(kind, effect):
    """At the boundaries, where it is hardest: at most 5 % are false (and at most a few more by chance)."""
    pairs = 12
    index = np.arange(pairs) % 3
    differences = effect + RESIDUAL * generator(f"{kind} {effect}").standard_normal((EXPERIMENTS, pairs))
    said = verdicts(kind, estimate(differences, index), MARGIN, 0.95)
    allowed = truth(effect, kind, MARGIN)
    assert np.mean([v not in allowed for v in said]) < 0.05 + 3 * (0.05 * 0.95 / EXPERIMENTS) ** 0.5


@pytest.mark.parametrize("effects", [
    [0.0] * 9,  # nothing anywhere: A against A
    [MARGIN] * 9,  # everything on the boundary
    [0.5, 0.3, 0.15, 0.1, MARGIN, 0.0, -MARGIN, -0.2, -0.5],  # some of everything
])  # fmt: skip
def test_holm_keeps_any_false_verdict_in_an_experiment_rare(effects):
    rng = generator(f"holm {effects}")
    pairs, claims = 12, len(effects)
    index = np.arange(pairs) % 3
    kinds = [KINDS[i % 4] for i in range(claims)]
    shared = (
        RESIDUAL * 0.7**0.5 * rng.standard_normal((EXPERIMENTS, pairs))
    )  # claims share arms, so they are correlated
    estimates = [
        estimate(e + shared + RESIDUAL * 0.3**0.5 * rng.standard_normal((EXPERIMENTS, pairs)), index) for e in effects
    ]
    p = np.stack([p_value(k, e, MARGIN) for k, e in zip(kinds, estimates, strict=True)], axis=1)
    level = np.array([levels(list(row)) for row in p])
    false = np.zeros(EXPERIMENTS, bool)
    for i, (kind, e, effect) in enumerate(zip(kinds, estimates, effects, strict=True)):
        said = verdicts(kind, e, MARGIN, level[:, i])
        false |= np.array([v not in truth(effect, kind, MARGIN) for v in said])
        decided = np.array([v != "inconclusive" for v in said])
        assert (decided == (p[:, i] < 1 - level[:, i])).all()  # p, level and verdict say the same
    assert false.mean() < 0.05 + 3 * (0.05 * 0.95 / EXPERIMENTS) ** 0.5


def test_holm_finds_more_than_bonferroni():
    rng = generator("holm power")
    effects = [0.5, 0.4, 0.3, 0.2, 0.065]
    differences = [e + RESIDUAL * rng.standard_normal((EXPERIMENTS, 12)) for e in effects]
    index = np.arange(12) % 3
    p = np.stack([p_value("greater", estimate(d, index), MARGIN) for d in differences], axis=1)
    level = np.array([levels(list(row)) for row in p])
    last = estimate(differences[-1], index)
    holm = np.mean([v == "reproduced" for v in verdicts("greater", last, MARGIN, level[:, -1])])
    bonferroni = np.mean([v == "reproduced" for v in verdicts("greater", last, MARGIN, 1 - 0.05 / 5)])
    assert holm > bonferroni + 0.05


def test_unpaired_analysis_would_lose_the_effect():
    """Pairing is what makes six pairs enough: the bases' own level is three times the noise and drops out."""
    rng = generator("unpaired")
    index = np.arange(6) % 3
    level = BASE * 3 * rng.standard_normal((EXPERIMENTS, 3))[:, index]
    control = level + RESIDUAL * rng.standard_normal((EXPERIMENTS, 6))
    treated = level + 0.15 + RESIDUAL * rng.standard_normal((EXPERIMENTS, 6))
    paired = np.mean([v == "reproduced" for v in verdicts("greater", estimate(treated - control, index), MARGIN, 0.95)])
    unpaired = np.mean(stats.ttest_ind(treated, control + MARGIN, axis=1).pvalue < 0.05)
    assert paired > unpaired + 0.3
