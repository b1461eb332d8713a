"""The statistics on simulated experiments: effects are found with the stated power, false ones as rarely as stated.

The base models differ three times as much (in variance) as pairs on one base do, in the difference between arms as
well: what holds for *these* base models then need not hold for others, and each scope is tested against its own truth.
"""

from itertools import islice

import numpy as np
import pytest
from scipy import stats

from experiments import shapes, surface
from experiments.shape_files import Form, Needed, Parameter
from experiments.shapes import Grid, aic, parameter
from experiments.statistics import decide, estimate, gain, jackknife, levels, locate, p_value, pairs_needed

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


# --- trust: both scopes, every kind, planted and null -----------------------------------------------------------------

FALSE = 0.064  # at most, at nominal 5 %: three standard errors of chance in 1,000 experiments are 2 %
SCOPES = [(False, 3), (True, 6)]  # these base models; across base models


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("across", "bases"), SCOPES)
@pytest.mark.parametrize("effect", [-MARGIN, 0.0, MARGIN, 0.2])
def test_false_verdicts_are_as_rare_as_stated_in_either_scope(kind, across, bases, effect):
    """For *these* base models the truth is theirs, for *across* that of all base models."""
    differences, index, own = experiments(effect, 12, bases, generator(f"trust {kind} {across} {effect}"))
    said = verdicts(kind, estimate(differences, index, across), MARGIN, 0.95)
    truths = np.full(EXPERIMENTS, effect) if across else own
    false = [v not in truth(float(t), kind, MARGIN) for v, t in zip(said, truths, strict=True)]
    assert np.mean(false) <= FALSE


@pytest.mark.parametrize("effect", [0.0, MARGIN])
def test_taking_these_bases_for_all_of_them_would_not_be_trustworthy(effect):
    """What the scope `across` is for: fixed blocks, asked about bases in general, are wrong far more often."""
    differences, index, _ = experiments(effect, 12, 6, generator(f"wrong scope {effect}"))
    said = verdicts("greater", estimate(differences, index), MARGIN, 0.95)
    assert np.mean([v not in truth(effect, "greater", MARGIN) for v in said]) > 2 * FALSE


@pytest.mark.parametrize(("across", "bases"), SCOPES)
def test_power_is_as_stated_in_either_scope(across, bases):
    """A planted effect is found as often as the noncentral t says: with the bases' variance in the error, or not."""
    pairs, effect = 12, 0.13
    differences, index, own = experiments(effect, pairs, bases, generator(f"planted {across}"))
    if not across:
        differences += effect - own[:, None]  # these bases' own effect is the planted one
    found = np.mean(
        [v == "reproduced" for v in verdicts("greater", estimate(differences, index, across), MARGIN, 0.95)]
    )
    n, sd = (bases, (BASE**2 + RESIDUAL**2 * bases / pairs) ** 0.5) if across else (pairs, RESIDUAL)
    df = bases - 1 if across else pairs - bases
    power = stats.nct.sf(stats.t.ppf(0.975, df), df, (effect - MARGIN) * n**0.5 / sd)
    assert abs(found - power) < 3 * (power * (1 - power) / EXPERIMENTS) ** 0.5 + 2e-3


def doses(means: np.ndarray, across: bool, bases: int, name: str):
    """1,000 experiments of 12 pairs along a dose: for each, units x levels, their bases and the true means."""
    rng = generator(f"doses {name} {across} {list(means)}")
    index = np.arange(12) % bases
    for _ in range(EXPERIMENTS):
        own = means + BASE * rng.standard_normal((bases, len(means)))
        values = own[index] + RESIDUAL * rng.standard_normal((12, len(means)))
        if across:
            yield np.stack([values[index == b].mean(0) for b in range(bases)]), np.arange(bases), means
        else:
            yield values, index, own.mean(0)


LEVELS = np.array([0.0, 0.1, 0.25, 0.5, 1.0])
FLAT, PEAK = np.full(5, 0.5), np.array([0.5, 0.55, 0.8, 0.55, 0.2])


@pytest.mark.parametrize(("across", "bases"), SCOPES)
@pytest.mark.parametrize("means", [FLAT, PEAK])
def test_an_optimum_is_located_honestly(across, bases, means):
    false = found = 0
    for values, index, true in doses(means, across, bases, "optimum"):
        location = locate(values, index, LEVELS, True)
        best = LEVELS[np.argmax(true)] - 0.25
        low, high = (end - 0.25 for end in location.interval(0.95))
        verdict = decide("equivalent", low, high, 0.14)
        if not (across and means is FLAT):  # where all are best, none is wrong
            false += verdict not in truth(best, "equivalent", 0.14)
        else:
            false += not low <= 0 <= high
        found += verdict == "reproduced"
    assert false / EXPERIMENTS <= FALSE
    if means is PEAK and not across:
        assert found / EXPERIMENTS > 0.8


@pytest.mark.parametrize(("across", "bases"), SCOPES)
@pytest.mark.parametrize("means", [FLAT, PEAK])
def test_choosing_the_best_level_makes_no_gain(across, bases, means):
    false = found = 0
    for values, index, true in doses(means, across, bases, "gain"):
        low, high = gain(values[:, 1:-1] - values[:, :1], index, True, 0.0).interval(0.95)
        verdict = decide("greater", low, high, MARGIN)
        false += verdict not in truth((true[1:-1] - true[0]).max(), "greater", MARGIN)
        found += verdict == "reproduced"
    assert false / EXPERIMENTS <= FALSE
    if means is PEAK:
        assert found / EXPERIMENTS > 0.6
    elif across:
        assert found / EXPERIMENTS <= FALSE


def test_the_gain_at_the_best_level_as_it_looks_would_be_false():
    """What the common risk is for: of t intervals at the level that happens to be best 2.5 % should lie too high."""
    false = 0
    for values, index, _ in doses(FLAT, True, 6, "naive"):
        gains = values[:, 1:-1] - values[:, :1]
        e = estimate(gains[:, int(np.argmax(gains.mean(0)))], index)
        false += float(e.interval(0.95)[0]) > 0
    assert false / EXPERIMENTS > 0.04


@pytest.mark.parametrize("times", [100, pytest.param(EXPERIMENTS, marks=pytest.mark.soak)])
@pytest.mark.parametrize(("across", "bases"), SCOPES)
def test_the_law_of_effort_is_judged_honestly(across, bases, times):
    """Log efforts that follow the exponential law, or neither law better: AIC by jackknife, against its own truth."""
    rates = np.array([0.0, 0.1, 0.2, 0.4, 0.6])
    law = Needed(name="needed", along="noise.rate", target=0.5)
    power = -np.log(1 - rates) * np.polyfit(-np.log(1 - rates), rates, 1)[0]
    for effort, low_enough in ((3 * rates, True), (1.5 * rates + 1.5 * power, False)):
        missed = found = 0
        for values, index, true in islice(doses(effort, across, bases, "law"), times):
            n = len(values)
            variance = float(np.mean(estimate(values.T, index).se ** 2))
            mean, pseudo = jackknife(lambda e, v=variance: aic(law, rates, e, v), values)
            low, high = estimate(pseudo, index).interval(0.95)
            missed += not low <= aic(law, rates, true, variance) <= high
            found += high < -2
            assert n == len(pseudo) and low <= pseudo.mean() <= high and np.isfinite(mean)
        chance = 3 * (0.05 * 0.95 / times) ** 0.5
        assert missed / times <= 0.06 + chance  # a curved statistic: a little more than its nominal rate
        if low_enough and not across:
            assert found / times > 0.8


def planted_surface(form: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, eta = (a.ravel() for a in np.meshgrid([64.0, 256.0, 1024.0, 4096.0], [0.0, 0.2, 0.4, 0.6]))
    means = {"additive": 0.15 + 60 * n**-0.7 + 2.5 * eta, "product": 0.2 + 40 * n**-0.6 * (eta + 0.1) ** 0.8}
    return n, eta, means[form]


def surfaces(form: str, statistic, across: bool, bases: int, times: int) -> tuple[float, float]:
    """(share of intervals that miss the truth, mean error in widths) of a fitted statistic on simulated surfaces."""
    n, eta, means = planted_surface(form)
    rng, index = generator(f"surface {form} {across} {statistic.parameter}"), np.arange(12) % bases
    missed, errors = 0, []
    for _ in range(times):
        own = means * np.exp(BASE * rng.standard_normal((bases, len(n))))
        values = own[index] * np.exp(RESIDUAL * rng.standard_normal((12, len(n))))
        grid = Grid(np.stack([n, eta], axis=1), values, [(p, int(b)) for p, b in enumerate(index)])
        shaped = shapes._surface(statistic, grid.across() if across else grid)
        low, high = estimate(shaped.each, shaped.bases).interval(0.95)
        true = parameter(surface.fit(form, n, eta, means if across else own.mean(0)), statistic)
        missed += not low <= true <= high
        errors.append((shaped.mean - true) / (high - low))
    return missed / times, float(np.mean(errors))


CASES = [("additive", "alpha"), ("additive", "beta"), ("product", "ratio")]


@pytest.mark.soak
@pytest.mark.parametrize(("across", "bases"), SCOPES)
@pytest.mark.parametrize(("form", "name"), CASES)
def test_fitted_parameters_have_honest_intervals(form, name, across, bases):
    statistic = Parameter(name="parameter", form=form, parameter=name, size="n", noise="eta")
    missed, bias = surfaces(form, statistic, across, bases, 300)
    assert missed < 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
    assert abs(bias) < 0.1


@pytest.mark.soak
@pytest.mark.parametrize("planted", ["additive", "product"])
def test_which_form_predicts_better_has_honest_intervals(planted):
    """Six base models with surfaces of their own; the truth is the mean over 300 of them."""
    n, eta, means = planted_surface(planted)
    rng = generator(f"form {planted}")
    spread = (BASE**2 + RESIDUAL**2) ** 0.5
    own = means * np.exp(spread * rng.standard_normal((300, len(n))))
    statistic = Form(name="form", better="product", than="additive", size="n", noise="eta")
    grid = Grid(np.stack([n, eta], axis=1), own, [(None, base) for base in range(300)])
    each = shapes._surface(statistic, grid).each
    assert (each.mean() > 0) == (planted == "additive")
    found = [estimate(part, np.arange(6)).interval(0.95) for part in each.reshape(50, 6)]
    missed = sum(not low <= each.mean() <= high for low, high in found)
    assert missed / 50 <= 0.05 + 3 * (0.05 * 0.95 / 50) ** 0.5
    wrong = sum(low > 0 if planted == "product" else high < 0 for low, high in found)
    assert wrong <= 2


def test_a_fitted_parameter_has_about_its_truth_in_its_interval():
    statistic = Parameter(name="parameter", form="additive", parameter="alpha", size="n", noise="eta")
    missed, bias = surfaces("additive", statistic, False, 3, 6)
    assert missed <= 0.35 and abs(bias) < 0.2
