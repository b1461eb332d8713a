"""Intervals of 95 % for the figures of an audit. Numbers in, numbers out; nothing here is drawn at random."""

from collections.abc import Sequence

import numpy as np
from scipy import optimize, special, stats

LEVEL = 0.95
Interval = tuple[float, float]
_Z = float(stats.norm.ppf((1 + LEVEL) / 2))


def wilson(hits: float, n: int) -> Interval:
    """Of a share `hits / n` (Wilson 1927); hits may be halves, from ties. Without trials: 0 to 1."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = hits / n, _Z**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # the ends are exact where there is nothing on one side; rounding would miss them
    return (0.0 if hits == 0 else float(centre - half)), (1.0 if hits == n else float(centre + half))


def mean_of_two(first: tuple[float, Interval], second: tuple[float, Interval]) -> tuple[float, Interval]:
    """The mean of two independent estimates, its interval by squares of theirs (MOVER: Zou & Donner 2008)."""
    (a, (a_low, a_high)), (b, (b_low, b_high)) = first, second
    mean = (a + b) / 2
    return mean, (mean - np.hypot(a - a_low, b - b_low) / 2, mean + np.hypot(a_high - a, b_high - b) / 2)


def auroc(upper: np.ndarray, lower: np.ndarray) -> tuple[float, Interval]:
    """P(a score of `upper` is higher than one of `lower`), ties half, with an interval.

    The wider, at each end, of two intervals: that of DeLong, DeLong & Clarke-Pearson 1988 on the logit scale, which is
    too short near 1, and Newcombe's (2006, Statistics in Medicine 25:559, method 5: those values from which the
    estimate is less than 1.96 of the standard errors that they would have), which is too short where a scorer sees one
    part of the noise and is blind to another. Both groups must hold a score.
    """
    m, n = len(upper), len(lower)
    ranks = stats.rankdata(np.concatenate([upper, lower]))
    theta = float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))
    star = (m + n) / 2 - 1

    def error(value: float) -> float:
        spread = 1 + star * (1 - value) / (2 - value) + star * value / (1 + value)
        return float(_Z * np.sqrt(max(0.0, value * (1 - value)) * spread / (m * n)))

    # a hair inside: at 0 and 1 the error is 0, which would be taken for the end that is sought
    inside = min(max(theta, 1e-12), 1 - 1e-12)
    low = 0.0 if theta == 0 else float(optimize.brentq(lambda v: theta - v - error(v), 0.0, inside))
    high = 1.0 if theta == 1 else float(optimize.brentq(lambda v: v - theta - error(v), inside, 1.0))
    if 0 < theta < 1 and min(m, n) > 1:
        of_upper = (ranks[:m] - stats.rankdata(upper)) / n
        of_lower = (ranks[m:] - stats.rankdata(lower)) / m
        spread = np.sqrt(of_upper.var(ddof=1) / m + of_lower.var(ddof=1) / n)
        around, half = special.logit(theta), _Z * spread / (theta * (1 - theta))
        low, high = min(low, float(special.expit(around - half))), max(high, float(special.expit(around + half)))
    return theta, (low, high)


def spearman(a: np.ndarray, b: np.ndarray) -> tuple[float, Interval] | None:
    """Rank correlation, its interval on Fisher's scale with the error of Bonett & Wright 2000 (Psychometrika 65:23).

    None for fewer than four values or where one side is constant.
    """
    if len(a) < 4 or a.min() == a.max() or b.min() == b.max():
        return None
    rho = float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])
    rho = float(np.clip(rho, -1, 1))
    if abs(rho) > 1 - 1e-12:
        return float(np.sign(rho)), (float(np.sign(rho)),) * 2
    half = _Z * np.sqrt((1 + rho**2 / 2) / (len(a) - 3))
    return rho, (float(np.tanh(np.arctanh(rho) - half)), float(np.tanh(np.arctanh(rho) + half)))


def paired(differences: np.ndarray) -> tuple[float, Interval, float]:
    """(mean, t interval, two-sided p against zero) of differences; at least two."""
    mean, n = float(differences.mean()), len(differences)
    error = float(differences.std(ddof=1)) / np.sqrt(n)
    if error <= 1e-12 * max(1.0, abs(mean)):  # all the same: no doubt is left, one way or the other
        return mean, (mean, mean), float(mean == 0)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error
    return mean, (mean - half, mean + half), float(2 * stats.t.sf(abs(mean) / error, n - 1))


def among_draws(value: float, draws: np.ndarray) -> tuple[float, Interval, float]:
    """(mean of the draws, interval in which one more draw would lie, two-sided p that `value` is one more draw).

    A t prediction interval; the draws are taken for normal.
    """
    mean, n = float(draws.mean()), len(draws)
    spread = float(draws.std(ddof=1)) * np.sqrt(1 + 1 / n)
    if spread <= 1e-9 * max(1e-3, abs(mean)):
        return mean, (mean, mean), float(np.isclose(value, mean, rtol=1e-9))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * spread
    return mean, (mean - half, mean + half), float(2 * stats.t.sf(abs(value - mean) / spread, n - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down (1979)."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        highest = max(highest, min(1.0, p_values[at] * (len(p_values) - rank)))
        corrected[at] = highest
    return corrected
