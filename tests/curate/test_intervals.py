"""Intervals cover what they should, and say something at the ends."""

import numpy as np
import pytest
from scipy import stats

from curate.intervals import among_draws, auroc, holm, mean_of_two, paired, spearman, wilson


@pytest.mark.parametrize(("shift", "clean", "noisy"), [(0.0, 30, 20), (1.0, 40, 15), (2.5, 30, 30)])
def test_auroc_covers(shift: float, clean: int, noisy: int) -> None:
    rng, truth, inside = np.random.default_rng(1), stats.norm.cdf(shift / 2**0.5), 0
    for _ in range(400):
        _, (low, high) = auroc(rng.normal(shift, 1, clean), rng.normal(0, 1, noisy))
        inside += low <= truth <= high
    assert 0.92 <= inside / 400 <= 0.985


def test_auroc_covers_where_half_of_the_noise_cannot_be_seen() -> None:
    rng, truth, inside = np.random.default_rng(3), (1 + 0.5) / 2, 0
    for _ in range(400):
        noisy = rng.normal(0, 1, 60) - 99 * (rng.random(60) < 0.5)
        _, (low, high) = auroc(rng.normal(0, 1, 200), noisy)
        inside += low <= truth <= high
    assert inside / 400 >= 0.925


def test_auroc_counts_ties_half_and_ends_are_not_certain() -> None:
    assert auroc(np.array([1.0, 1.0, 2.0]), np.array([1.0, 0.0]))[0] == pytest.approx((0.5 + 1 + 0.5 + 1 + 1 + 1) / 6)
    value, (low, high) = auroc(np.ones(5), np.zeros(5))
    assert (value, high) == (1, 1) and 0.5 < low < 0.8
    value, (low, high) = auroc(np.zeros(5), np.ones(5))
    assert (value, low) == (0, 0) and 0.2 < high < 0.5
    assert auroc(np.ones(500), np.zeros(500))[1][0] > 0.98


def test_wilson_and_the_mean_of_two() -> None:
    assert wilson(0, 10) == (0, pytest.approx(0.2775, abs=1e-4))
    assert wilson(10, 10) == (pytest.approx(0.7225, abs=1e-4), 1)
    assert wilson(0, 0) == (0, 1)
    assert wilson(5, 10) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))
    mean, (low, high) = mean_of_two((1.0, (0.7, 1.0)), (0.0, (0.0, 0.4)))
    assert (mean, low, high) == (0.5, pytest.approx(0.35), pytest.approx(0.7))


def test_spearman_covers_and_knows_its_limits() -> None:
    rng, inside = np.random.default_rng(2), 0
    truth = 6 / np.pi * np.arcsin(0.6 / 2)  # of a bivariate normal with correlation .6
    for _ in range(400):
        a, noise = rng.normal(size=(2, 60))
        found = spearman(a, 0.6 * a + 0.8 * noise)
        assert found is not None
        inside += found[1][0] <= truth <= found[1][1]
    assert 0.92 <= inside / 400 <= 0.985
    assert spearman(np.arange(9.0), -np.arange(9.0)) == (-1, (-1, -1))
    assert spearman(np.ones(9), np.arange(9.0)) is None


def test_paired_and_draws_agree_with_scipy() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(0.3, 1, 50)
    mean, (low, high), p = paired(x)
    test = stats.ttest_1samp(x, 0)
    assert (low, high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert p == pytest.approx(test.pvalue) and mean == pytest.approx(x.mean())
    assert paired(np.full(5, 2.0)) == (2, (2, 2), 0)
    assert paired(np.zeros(5)) == (0, (0, 0), 1)
    inside = [low <= value <= high for value, (low, high) in _draws(rng)]
    assert 0.92 <= np.mean(inside) <= 0.985
    assert among_draws(1.0, np.full(5, 1.0))[2] == 1
    assert among_draws(2.0, np.full(5, 1.0))[2] == 0


def _draws(rng: np.random.Generator):
    for _ in range(400):
        x = rng.normal(size=21)
        yield x[0], among_draws(x[0], x[1:])[1]


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []
