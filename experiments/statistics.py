"""Paired estimates, tests against a margin, and verdicts. Numbers in, numbers out.

A verdict is read off an interval and nothing else, so the two always agree. Intervals are t intervals (a bootstrap
undercovers at ten pairs or fewer). Several claims of one experiment share the risk of a false verdict by Holm's
step-down (Holm 1979, Scand. J. Statist. 6:65), which `levels` turns into one level for each claim's interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

ALPHA = 0.05  # the risk of any false verdict in an experiment
POWER = 0.8  # with which `pairs_needed` asks for a decision
MOST = 100_000  # pairs that it looks for


@dataclass(frozen=True)
class Estimate:
    """A mean of paired differences. Fields but `df` and `blocks` may be arrays, one entry for each experiment."""

    mean: Any
    sd: Any  # of one difference about the mean of its block
    se: Any
    df: int
    blocks: int

    def interval(self, level: float) -> tuple[Any, Any]:
        """The t interval that covers with probability `level`."""
        half = stats.t.ppf((1 + level) / 2, self.df) * self.se
        return self.mean - half, self.mean + half


def estimate(differences: np.ndarray, bases: Sequence[Any] | np.ndarray, across: bool = False) -> Estimate:
    """The mean paired difference and its error.

    Args:
        differences: (..., n) treatment less control, one for each pair.
        bases: n labels, the base model of each pair.
        across: False: the base models are fixed blocks; the error is pooled within them, df = n - bases (with one pair
            for each base there is nothing to pool, and the error is that of n single pairs: wider, since it holds the
            differences between bases too). True: the base models are a sample; the error is that of their means.

    Raises:
        ValueError: fewer than two pairs (or, across, two bases): no error can be estimated.
    """
    d = np.asarray(differences, dtype=float)
    labels, index = np.unique(np.asarray(bases), return_inverse=True)
    member = (index[:, None] == np.arange(len(labels))).astype(float)
    if across:
        return estimate(d @ member / member.sum(0), np.zeros(len(labels)))
    if len(labels) == d.shape[-1]:
        index, member = np.zeros_like(index), np.ones((d.shape[-1], 1))
    n, blocks = member.shape
    if n - blocks < 1:
        raise ValueError(f"{n} pairs: no error can be estimated from fewer than two")
    residual = d - (d @ member / member.sum(0))[..., index]
    sd = np.sqrt((residual**2).sum(-1) / (n - blocks))
    return Estimate(d.mean(-1), sd, sd / np.sqrt(n), n - blocks, blocks)


@dataclass(frozen=True)
class Crossed:
    """A mean of differences over pairs and items, both of them samples, every pair asked every item."""

    mean: float
    se: float  # of the mean, over pairs and items
    df: float
    sd: float  # of a pair's mean over these items
    item_se: float  # what is left of `se` however many pairs there are
    items_df: int
    pairs: int
    blocks: int = 1

    def interval(self, level: float) -> tuple[float, float]:
        """The t interval that covers with probability `level`."""
        half = float(stats.t.ppf((1 + level) / 2, self.df)) * self.se
        return self.mean - half, self.mean + half

    def p_value(self, kind: str, margin: float, reference: float = 0.0) -> float:
        """As `p_value`."""
        return float(p_value(kind, replace(self, mean=self.mean - reference), margin))

    def pairs_needed(self, kind: str, margin: float, reference: float, level: float) -> int | None:
        """As `pairs_needed`; None where these items alone leave too much open, however many pairs there are."""
        distance, wanted = _distance(kind, self.mean - reference, margin)
        if distance <= 0 or self.sd <= 0:
            return None

        def enough(n: int) -> bool:
            of_pairs = self.sd**2 / n
            variance = of_pairs + self.item_se**2
            df = variance**2 / (of_pairs**2 / (n - 1) + self.item_se**4 / self.items_df)
            shift, critical = distance / np.sqrt(variance), stats.t.ppf((1 + level) / 2, df)
            return bool(stats.nct.sf(critical, df, shift) >= wanted) or shift > 50 + 2 * critical

        return _fewest(enough, 1)


def crossed(differences: np.ndarray, weights: np.ndarray, strata: Sequence[Any] | np.ndarray) -> Crossed:
    """The weighted mean difference and its error where pairs and items are crossed samples.

    The variance is that of the pairs' means plus that of the items' means less that of what is left, which both of
    them hold (Cameron, Gelbach and Miller 2011, J. Bus. Econ. Stat. 29:238; for a crossed design Owen 2007, Ann. Appl.
    Stat. 1:386), and at least the larger of the two; degrees of freedom by Satterthwaite's rule on these two.

    Args:
        differences: (pairs, items) treatment less control.
        weights: (items,) of an item in the mean, with the sum 1. Within a stratum they need not be equal: an item then
            counts for what it weighs, as answers do by their tokens.
        strata: (items,) labels; the strata themselves are no sample.

    Raises:
        ValueError: fewer than two pairs, or two items in a stratum: no error can be estimated.
    """
    d, w = np.asarray(differences, float), np.asarray(weights, float)
    labels, index = np.unique(np.asarray(strata), return_inverse=True)
    pairs, items = d.shape
    sizes = np.bincount(index)
    if pairs < 2 or sizes.min() < 2:
        raise ValueError(f"{pairs} pairs, {sizes.min()} items: no error can be estimated from fewer than two of each")
    member = (index[:, None] == np.arange(len(labels))).astype(float)
    share = member.T @ w
    within = (d * w) @ member / share  # (pairs, strata): each pair's mean in a stratum
    means = d @ w
    small = (sizes / (sizes - 1.0))[index]
    of_items = d.mean(0) - within.mean(0)[index]
    left = d - d.mean(0) - (within - within.mean(0))[:, index]
    v_pairs = means.var(ddof=1) / pairs
    v_items = float((small * w**2 * of_items**2).sum())
    v_left = float((small * w**2 * (left**2).sum(0)).sum()) / (pairs * (pairs - 1))
    total = max(v_pairs + v_items - v_left, v_pairs, v_items)
    items_df = items - len(labels)
    df = total**2 / (v_pairs**2 / (pairs - 1) + v_items**2 / items_df) if total > 0 else pairs - 1
    lasting = float(np.sqrt(max(0.0, v_items - v_left)))
    sd = float(means.std(ddof=1))
    return Crossed(float(means.mean()), float(np.sqrt(total)), float(df), sd, lasting, items_df, pairs)


def jackknife(statistic: Callable[[np.ndarray], float], values: np.ndarray) -> tuple[float, np.ndarray]:
    """A statistic of all pairs together and its pseudo-values, one a pair, which `estimate` takes as differences.

    Pseudo-values (Tukey 1958; Miller 1974, Biometrika 61:1): n times the statistic of all less n - 1 times that of all
    but one. Of a mean they are the values themselves. They serve statistics that are smooth in the means; the place of
    a maximum is none (see `locate`).

    Args:
        statistic: of the mean over pairs, an array like one of `values`.
        values: (n, ...) one array for each pair.
    """
    n, whole = len(values), statistic(values.mean(0))
    without = [statistic(np.delete(values, i, axis=0).mean(0)) for i in range(n)]
    return whole, n * whole - (n - 1) * np.array(without)


@dataclass(frozen=True)
class Location:
    """Which of several levels has the best mean: the set of those that may have it, and its span as an interval."""

    levels: np.ndarray  # ascending
    out: np.ndarray  # the risk from which on each level is excluded
    mean: float  # the level with the best mean
    gap: np.ndarray  # by how much each level is worse than that one
    sd: np.ndarray  # of that difference, as `Estimate.sd`
    blocks: int

    def interval(self, level: float) -> tuple[float, float]:
        """The lowest and the highest level that may be best, with probability `level` that the best one is kept."""
        kept = self.levels[self.out >= 1 - level]
        return float(kept.min()), float(kept.max())

    def p_value(self, kind: str, margin: float, reference: float = 0.0) -> float:
        """As `p_value`: the smallest risk at which the interval gives a verdict."""
        return min(
            (float(self.out[far].max(initial=0.0)) for far in self._beyond(kind, margin, reference)), default=1.0
        )

    def pairs_needed(self, kind: str, margin: float, reference: float, level: float) -> int | None:
        """As `pairs_needed`: how many would exclude every level that stands against the verdict of the best one."""
        best = self.levels == self.mean
        far = [far for far in self._beyond(kind, margin, reference) if not far[best].any()]
        share = 1 - 2 * (1 - level) / (len(self.levels) - 1)
        counts = [
            [pairs_needed("greater", self.gap[i], self.sd[i], self.blocks, 0.0, share) for i in np.flatnonzero(f)]
            for f in far
        ]
        known = [max(found) for found in counts if found and None not in found]  # type: ignore[type-var]
        return min(known, default=None)  # type: ignore[type-var]

    def _beyond(self, kind: str, margin: float, reference: float) -> list[np.ndarray]:
        """For each verdict but inconclusive that some level has by itself: which levels stand against it."""
        said = [decide(kind, x, x, margin) for x in self.levels - reference]
        # two levels that contradict from opposite sides have what lies between them in their span
        said = [f"{v} {x > reference}" if v == "contradicted" else v for v, x in zip(said, self.levels, strict=True)]
        return [np.array(said) != verdict for verdict in sorted(set(said) - {"inconclusive"})]


def locate(values: np.ndarray, bases: Sequence[Any] | np.ndarray, levels: np.ndarray, rising: bool) -> Location:
    """The level with the best mean and those that may be it: all but those that another level beats.

    Levels are compared pairwise by paired t tests, each level with all the others at a common risk (Bonferroni), as
    multiple comparisons with the best are (Hsu 1984, Ann. Statist. 12:1136). Nothing is assumed of the shape between
    the levels; delete-one variances are dishonest here, since the place of a maximum jumps.

    Args:
        values: (n, levels) one row for each pair.
        bases: n labels, see `estimate`.
        levels: (levels,) their places.
        rising: whether larger values are better.
    """
    order = np.argsort(levels)
    v, places = (1 if rising else -1) * np.asarray(values, float)[:, order], np.asarray(levels, float)[order]
    e = estimate(v.T[None, :, :] - v.T[:, None, :], bases)  # [i, j]: by how much j is better than i
    with np.errstate(divide="ignore", invalid="ignore"):
        beaten = np.where(e.se > 0, stats.t.sf(e.mean / e.se, e.df), 1.0)
    best = int(np.argmax(v.mean(0)))
    out = np.minimum(1.0, (len(places) - 1) * beaten.min(1))
    return Location(places, out, float(places[best]), e.mean[:, best], e.sd[:, best], e.blocks)


@dataclass(frozen=True)
class Gain:
    """The best of several gains: an interval for the largest of the true ones, whichever that is."""

    gains: Estimate  # arrays, one entry for each level; larger is better
    mean: float  # an estimate that owes nothing to the choice
    sign: int  # -1: lower is better, and gains are turned round

    def interval(self, level: float) -> tuple[float, float]:
        """At least what any one gain surely is (at a common risk); at most what each may be by itself."""
        e = self.gains
        strict = stats.t.ppf(1 - (1 - level) / (2 * len(e.mean)), e.df)
        low = float((e.mean - strict * e.se).max())
        high = float((e.mean + stats.t.ppf((1 + level) / 2, e.df) * e.se).max())
        return (low, high) if self.sign > 0 else (-high, -low)

    def p_value(self, kind: str, margin: float, reference: float = 0.0) -> float:
        """As `p_value`."""
        upper, lower = reference + margin, reference - margin
        if kind == "noninferior":
            return min(1.0, self._above(lower), self._below(lower))
        inside = max(self._above(lower), self._below(upper))
        return min(1.0, self._above(upper), self._below(lower), inside)

    def _above(self, x: float) -> float:
        """The smallest risk at which the interval lies above x."""
        return self._over(x) if self.sign > 0 else self._under(-x)

    def _below(self, x: float) -> float:
        return self._under(x) if self.sign > 0 else self._over(-x)

    def _over(self, x: float) -> float:
        e = self.gains
        return float(2 * len(e.mean) * stats.t.sf((e.mean - x) / e.se, e.df).min())

    def _under(self, x: float) -> float:
        e = self.gains
        return float(2 * stats.t.cdf((e.mean - x) / e.se, e.df).max())

    def pairs_needed(self, kind: str, margin: float, reference: float, level: float) -> int | None:
        """As `pairs_needed`, at the common risk of all levels."""
        share = 1 - (1 - level) / len(self.gains.mean)
        sd = float(self.gains.sd[int(np.argmax(self.gains.mean))])
        return pairs_needed(kind, self.mean - reference, sd, self.gains.blocks, margin, share)


def gain(differences: np.ndarray, bases: Sequence[Any] | np.ndarray, rising: bool, mean: float) -> Gain:
    """The interval of the best of several gains.

    The lower end is the highest of the levels' own lower ends at a common risk (Bonferroni), the upper one the highest
    of their own upper ends: the best level's own is among them. So nothing is lost by choosing.

    Args:
        differences: (n, levels) each pair's value at a level less that at the reference level.
        bases: n labels, see `estimate`.
        rising: whether larger values are better.
        mean: the estimate to report.
    """
    sign = 1 if rising else -1
    return Gain(estimate(sign * np.asarray(differences, float).T, bases), mean, sign)


def decide(kind: str, low: float, high: float, margin: float) -> str:
    """The verdict that an interval gives: DESIGN section 6's table, `less` being `greater` mirrored."""
    above, below = low > margin, high < -margin
    inside = low > -margin and high < margin
    if kind == "noninferior":
        yes, no, none = low > -margin, below, False
    elif kind == "equivalent":
        yes, no, none = inside, above or below, False
    else:
        yes, no, none = (above, below, inside) if kind == "greater" else (below, above, inside)
    return "reproduced" if yes else "contradicted" if no else "no_effect" if none else "inconclusive"


def p_value(
    kind: str,
    e: Estimate | Crossed,
    margin: float,
    open_above: bool | np.ndarray = False,
    open_below: bool | np.ndarray = False,
) -> Any:
    """The smallest a at which the interval of level 1 - a gives a verdict: `decide` decides if and only if p < a.

    Twice the smallest one-sided p-value over the verdicts that `kind` allows; staying inside the margins takes both
    one-sided tests (TOST: Schuirmann 1987). Where an end of the interval is open, what needs that end is not tested.
    """
    over_upper = stats.t.sf((e.mean - margin) / e.se, e.df)  # against: the effect is at most +margin
    over_lower = stats.t.sf((e.mean + margin) / e.se, e.df)  # against: the effect is at most -margin
    under_upper = stats.t.cdf((e.mean - margin) / e.se, e.df)  # against: the effect is at least +margin
    under_lower = stats.t.cdf((e.mean + margin) / e.se, e.df)  # against: the effect is at least -margin
    inside = np.where(open_above | open_below, 1.0, np.maximum(over_lower, under_upper))
    under_lower = np.where(open_above, 1.0, under_lower)
    if kind == "noninferior":
        smallest = np.minimum(np.where(open_below, 1.0, over_lower), under_lower)
    else:
        smallest = np.minimum(np.minimum(np.where(open_below, 1.0, over_upper), under_lower), inside)
    return np.minimum(1.0, 2 * smallest)


def levels(p_values: Sequence[float | None], alpha: float = ALPHA) -> list[float]:
    """The level of each claim's interval, so that any false verdict among them all has a risk of at most `alpha`.

    Holm's step-down: of m claims the one with the i-th smallest p gets 1 - alpha / (m - i + 1); from the first on
    whose interval gives no verdict at its level, all have that level and none has a verdict. None counts as 1.
    """
    p = [1.0 if value is None else float(value) for value in p_values]
    found = [0.0] * len(p)
    share: float | None = None
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: (p[i], i))):
        a = share if share is not None else alpha / (len(p) - rank)
        if p[i] >= a:
            share = a
        found[i] = 1 - a
    return found


def pairs_needed(
    kind: str, mean: float, sd: float, blocks: int, margin: float, level: float, power: float = POWER
) -> int | None:
    """How many pairs would give a verdict with probability `power`, were `mean` and `sd` the truth.

    The verdict is the one that `mean` lies in; None if it lies on a boundary or more than `MOST` pairs are needed.
    """
    distance, wanted = _distance(kind, mean, margin, power)
    if distance <= 0 or sd <= 0:
        return None

    def enough(n: int) -> bool:
        critical = stats.t.ppf((1 + level) / 2, n - blocks)
        reached = stats.nct.sf(critical, n - blocks, distance * np.sqrt(n) / sd)
        return bool(reached >= wanted) or distance * np.sqrt(n) / sd > 50 + 2 * critical  # nct underflows far out

    return _fewest(enough, blocks)


def _distance(kind: str, mean: float, margin: float, power: float = POWER) -> tuple[float, float]:
    """How far `mean` lies from the edge of the verdict that it lies in, and with which power that must be seen."""
    if kind == "noninferior":
        return abs(mean + margin), power
    if abs(mean) > margin:
        return abs(mean) - margin, power
    return margin - abs(mean), (1 + power) / 2  # both margins must be excluded: each with half the allowed failures


def _fewest(enough: Callable[[int], bool], low: int) -> int | None:
    """The smallest number above `low` that is enough; None if `MOST` is not."""
    high = low + 1  # low is not enough, or cannot be tested at all
    while not enough(high):
        if high >= MOST:
            return None
        low, high = high, min(2 * high, MOST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
