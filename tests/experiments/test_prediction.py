"""Bands of fitted surfaces: what they are made of, and how often they hold what they promise."""

import numpy as np
import pytest
from scipy import stats

from experiments import prediction, surface
from tests.experiments.spanning import DESIGN, loss

CELLS = [at for at in DESIGN if (at["noise"], at["duplication"]) == ("near_miss", "random")]
N, ETA, D = np.array([[at["data.rows"], at["noise.rate"], at["duplication.rate"]] for at in CELLS], float).T
NEW = [(700.0, 0.3, 0.1), (1500.0, 0.5, 0.4), (3000.0, 0.1, 0.6), (300.0, 0.1, 0.05)]
TRUE = np.log([loss(at) for at in CELLS])


def truth_at(points):
    keys = ("data.rows", "noise.rate", "duplication.rate")
    return np.log([loss(dict(zip(keys, p, strict=True)) | {"noise": "", "duplication": ""}) for p in points])


def simulated(rng, pairs, bases, between, run, misfit):
    """(a prediction, what these pairs would have at new points, what another pair has there), in logarithms."""
    n, eta, d = np.array(NEW).T
    shift = between * rng.standard_normal(bases + 1)
    cells = TRUE + misfit * rng.standard_normal(len(N))
    values = np.exp(cells + shift[np.arange(pairs) % bases, None] + run * rng.standard_normal((pairs, len(N))))
    made = prediction.predict("product", N, ETA, D, values, [p % bases for p in range(pairs)])
    new = truth_at(NEW) + misfit * rng.standard_normal(len(NEW))
    mean = new + np.log(np.exp(shift[np.arange(pairs) % bases]).mean())
    other = new + shift[bases] + run * rng.standard_normal(len(NEW))
    return made, (n, eta, d), mean, other


def coverage(times, *setting):
    rng = np.random.default_rng([7, times])
    held = np.zeros(2)
    for _ in range(times):
        made, at, mean, other = simulated(rng, *setting)
        for i, (band, true) in enumerate(((made.mean_band(*at), mean), (made.run_band(*at), other))):
            low, _, high = np.log(band)
            held[i] += np.mean((low <= true) & (true <= high))
    return held / times


@pytest.mark.soak
@pytest.mark.parametrize("setting", [
    (2, 2, 0.3, 0.05, 0.03),  # two base models that differ much
    (6, 6, 0.3, 0.05, 0.03),
    (6, 3, 0.3, 0.05, 0.03),  # base models with two pairs each
    (4, 1, 0.0, 0.05, 0.03),  # one base model, whose pairs differ by their runs alone
])  # fmt: skip
def test_bands_hold_what_they_promise(setting):
    """95 % of new cells and of other pairs' runs, or more."""
    times = 300
    chance = 3 * (0.05 * 0.95 / times) ** 0.5  # points of one experiment share its pairs
    assert (coverage(times, *setting) >= 0.95 - chance).all()


def test_bands_hold_about_what_they_promise():
    """A few experiments tell a band that is far too narrow."""
    assert (coverage(8, 6, 6, 0.3, 0.05, 0.03) >= 0.7).all()


def test_bands_are_no_wider_than_they_must_be():
    rng = np.random.default_rng(1)
    made, at, *_ = simulated(rng, 6, 6, 0.3, 0.05, 0.03)
    low, middle, high = made.mean_band(*at)
    cell = (0.03**2 + 0.05**2 / 6) ** 0.5
    assert np.log(high / low) == pytest.approx(4 * cell, rel=0.5)
    assert middle == pytest.approx(made.fit.predict(*at))
    low, _, high = made.run_band(*at)
    assert np.log(high / low).max() < 2 * 2.57 * 0.3 * 2


def test_parts_are_those_of_the_runs():
    rng = np.random.default_rng(2)
    made, *_ = simulated(rng, 12, 12, 0.3, 0.05, 0.0)
    assert made.run == pytest.approx(0.05**2, rel=0.15)
    assert made.cell == pytest.approx(0.05**2 / 12, rel=0.5)
    assert made.t_pair == pytest.approx(stats.t.ppf(0.975, 11))
    assert (made.pairs, made.bases) == (12, 12)
    twice, *_ = simulated(rng, 12, 3, 0.3, 0.05, 0.0)
    assert twice.t_pair == pytest.approx(stats.t.ppf(0.975, 2))  # three base models, whatever the pairs


def test_the_error_of_parameters_is_that_of_repeated_experiments():
    rng = np.random.default_rng(3)
    made, *_ = simulated(rng, 2, 2, 0.0, 0.05, 0.0)
    again = [np.exp(TRUE + 0.05 / 2**0.5 * rng.standard_normal(len(N))) for _ in range(40)]
    alphas = [surface.fit("product", N, ETA, y, D, start=made.fit).values["alpha"] for y in again]
    assert 0.5 < made.variance(lambda f: f.values["alpha"]) ** 0.5 / np.std(alphas, ddof=1) < 2


def test_one_pair_says_nothing_of_another():
    made = prediction.predict("product", N, ETA, D, np.exp(TRUE)[None] * 1.01, [0])
    assert made.fresh is None
    with pytest.raises(ValueError, match="at least two"):
        made.run_band(1000, 0.2, 0.0)
    low, middle, high = made.mean_band(1000, 0.2, 0.0)
    assert low <= middle <= high


def test_what_a_noisy_row_is_worth_has_its_truth_in_its_band():
    rng = np.random.default_rng(4)
    exact = surface.exchange(surface.fit("product", N, ETA, np.exp(TRUE), D), 1500, 0.4, 0.25)
    low, middle, high = simulated(rng, 2, 2, 0.2, 0.05, 0.02)[0].exchange(1500, 0.4, 0.25)
    assert low < middle < high < low + 0.5
    assert low < exact < high


def test_rows_that_are_as_good_have_the_same_loss():
    made, *_ = simulated(np.random.default_rng(6), 2, 2, 0.2, 0.05, 0.02)
    low, middle, high = made.equal_size(1500, 0.4, 0.1, 0.25)
    assert low < middle < high < 1500
    assert made.fit.predict(middle, 0.1, 0.25) == pytest.approx(float(made.fit.predict(1500, 0.4, 0.25)))
    assert np.array(made.equal_size(1500, 0.4, 0.4, 0.25)) == pytest.approx(1500)  # itself, without an error


def test_a_borrowed_surface_has_the_errors_of_both():
    rng = np.random.default_rng(5)
    whole, *_ = simulated(rng, 2, 2, 0.0, 0.05, 0.0)
    n, eta = (a.ravel() for a in np.meshgrid([1024.0, 4096.0], [0.2, 0.4, 0.6]))
    true = np.log(0.2 + 40 * n**-0.6 * (0.5 * eta + 0.1) ** 0.8)
    values = np.exp(true + 0.01 * rng.standard_normal((2, 6)))
    made = prediction.borrow(whole, ["kappa"], n, eta, None, values, [0, 1])
    assert made.fit.values["kappa"] == pytest.approx(0.5, abs=0.1)
    assert made.fit.values["alpha"] == whole.fit.values["alpha"]
    assert [len(group) for group in made.refits] == [len(N), 6]
    low, _, high = made.mean_band(n, eta)
    assert (np.log(low) < true).all() and (true < np.log(high)).all()
    alone = made.variance(lambda f: f.values["alpha"])
    assert alone == pytest.approx(float(whole.variance(lambda f: f.values["alpha"])))
    with pytest.raises(ValueError, match="leave nothing"):
        prediction.borrow(whole, ["kappa"], n[:1], eta[:1], None, values[:, :1], [0, 1])


def test_as_many_cells_as_parameters_are_refused():
    some = np.r_[0:6]
    with pytest.raises(ValueError, match="leave nothing"):
        prediction.predict("product", N[some], ETA[some], D[some], np.exp(TRUE)[None, some], [0])
