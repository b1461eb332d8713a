"""What a fitted surface says of cells that were not measured, and by how much it may be off.

In the logarithm of the loss, at one point of the surface,

    the mean of these pairs  =  surface  +  what the form misses there
    a run of another pair    =  that     +  how far its base model and seeds lie from the mean  +  its own noise

The error of the surface is that of its parameters, from the fits without each cell in turn (delete-one jackknife,
which needs no derivative and is not misled by a parameter that the cells hardly tell); what the form misses is the
variance of the cells about it; the spread of pairs and runs is that of the runs about their cells. Bands add up the
squares of what each part would be wide by itself, with Student's t for its own degrees of freedom (Welch and Cochran's
way: a little too wide). Pooled by Satterthwaite's rule, they cover 81 % where two base models ran that differ.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from experiments import surface

LEVEL = 0.95


@dataclass(frozen=True)
class Prediction:
    """A fit and its errors. Variances are of the logarithm; `run` and `pair` are None where one pair ran."""

    fit: surface.Fit
    refits: tuple[tuple[surface.Fit, ...], ...]  # groups of fits without one cell each; errors of groups add up
    errors: np.ndarray  # (cells,) of each cell, in the logarithm, by the fit without it
    cell: float  # of a cell's mean over pairs about the surface
    run: float | None  # of a run about its cell's mean and its pair's level
    pair: float | None  # between the levels of pairs: of another one about the mean of these
    t_cell: float  # standard errors that half a band is wide, for each part
    t_run: float | None
    t_pair: float | None
    pairs: int
    bases: int

    @property
    def left_out(self) -> float:
        """Root mean square of `errors`."""
        return float(np.sqrt(np.mean(self.errors**2)))

    @property
    def fresh(self) -> float | None:
        """By how much the squared half width of the band grows for a run of another pair; None if one pair ran."""
        if self.run is None or self.pair is None or self.t_run is None or self.t_pair is None:
            return None
        return self.t_run**2 * self.run * (1 - 1 / self.pairs) + self.t_pair**2 * self.pair

    def mean_band(self, n: np.ndarray, eta: np.ndarray, d: np.ndarray | float = 0.0) -> tuple[np.ndarray, ...]:
        """(low, middle, high) of the loss that these pairs would have on average at points of the surface."""
        return self._band(n, eta, d, 0.0)

    def run_band(self, n: np.ndarray, eta: np.ndarray, d: np.ndarray | float = 0.0) -> tuple[np.ndarray, ...]:
        """(low, middle, high) of the loss of one run of another pair.

        Raises:
            ValueError: one pair has no spread.
        """
        if self.fresh is None:
            raise ValueError("one pair says nothing of another; run at least two")
        return self._band(n, eta, d, self.fresh)

    def _band(self, n: Any, eta: Any, d: Any, more: float) -> tuple[np.ndarray, ...]:
        middle = self.fit.predict(n, eta, d)
        variance = self.variance(lambda f: np.log(f.predict(n, eta, d))) + self.cell
        half = np.sqrt(self.t_cell**2 * variance + more)
        return middle * np.exp(-half), middle, middle * np.exp(half)

    def variance(self, statistic: Callable[[surface.Fit], np.ndarray | float]) -> np.ndarray:
        """The variance of whatever follows from a fit, by the error of its parameters."""
        total = np.zeros(())
        for group in self.refits:
            values = np.array([statistic(f) for f in group])
            total = total + (len(group) - 1) / len(group) * ((values - values.mean(0)) ** 2).sum(0)
        return total

    def exchange(self, n: float, eta: float, d: float = 0.0) -> tuple[float, float, float]:
        """(low, middle, high) of how many clean rows a noisy row is worth; see `surface.exchange`."""
        middle = surface.exchange(self.fit, n, eta, d)
        half = self.t_cell * float(np.sqrt(self.variance(lambda f: surface.exchange(f, n, eta, d))))
        return middle - half, middle, middle + half

    def equal_size(self, n: float, eta: float, other: float, d: float = 0.0) -> tuple[float, float, float]:
        """(low, middle, high) of the rows with noise share `other` that are as good; see `surface.equal_size`."""
        middle = surface.equal_size(self.fit, n, eta, other, d)
        half = self.t_cell * np.sqrt(self.variance(lambda f: np.log(surface.equal_size(f, n, eta, other, d))))
        return float(middle * np.exp(-half)), middle, float(middle * np.exp(half))


def predict(form: str, n: np.ndarray, eta: np.ndarray, d: np.ndarray | None, values: np.ndarray, bases: Sequence[int],
            level: float = LEVEL) -> Prediction:  # fmt: skip
    """Fit one form to the means of cells and measure its errors.

    Args:
        form: one of `surface.FORMS`.
        n, eta, d: (cells,) see `surface.fit`.
        values: (pairs, cells) losses above 0.
        bases: (pairs,) the base model of each pair.
        level: of the bands.

    Raises:
        ValueError: see `surface.fit`; or no more cells than parameters.
    """
    mean = values.mean(0)
    fit = surface.fit(form, n, eta, mean, d)
    df = len(mean) - len(fit.theta)
    if df < 1:
        raise ValueError(f"{len(mean)} cells leave nothing to judge the {len(fit.theta)} parameters of {form} by")
    refits, errors = surface.left_out(form, n, eta, mean, d, start=fit)
    return _measured(fit, (tuple(refits),), errors, n, eta, d, values, bases, df, level)


def borrow(
    whole: Prediction, own: Sequence[str], n: np.ndarray, eta: np.ndarray, d: np.ndarray | None, values: np.ndarray,
    bases: Sequence[int], level: float = LEVEL,
) -> Prediction:  # fmt: skip
    """A few cells on the surface of others: all its parameters but those in `own`; errors of both kinds add up.

    Raises:
        ValueError: no more cells than parameters of its own.
    """
    mean, copies = values.mean(0), np.zeros(len(n)) if d is None else d
    df = len(mean) - len(own)
    if df < 1:
        raise ValueError(f"{len(mean)} cells leave nothing to judge {', '.join(own)} by")

    def fitted(f: surface.Fit, used: np.ndarray) -> surface.Fit:
        return surface.borrow(f, own, n[used], eta[used], mean[used], copies[used])

    every = np.ones(len(mean), bool)
    fit = fitted(whole.fit, every)
    inherited = tuple(tuple(fitted(f, every) for f in group) for group in whole.refits)
    refits = tuple(fitted(whole.fit, np.arange(len(mean)) != i) for i in range(len(mean)))
    errors = np.array([np.log(f.predict(n[i], eta[i], copies[i]) / mean[i]) for i, f in enumerate(refits)])
    return _measured(fit, (*inherited, refits), errors, n, eta, copies, values, bases, df, level)


def _measured(
    fit: surface.Fit, refits: tuple[tuple[surface.Fit, ...], ...], errors: np.ndarray, n: np.ndarray, eta: np.ndarray,
    d: np.ndarray | None, values: np.ndarray, bases: Sequence[int], df: int, level: float,
) -> Prediction:  # fmt: skip
    def t(degrees: int) -> float:
        return float(stats.t.ppf((1 + level) / 2, degrees))

    mean, pairs, (found, counts) = values.mean(0), len(values), np.unique(bases, return_counts=True)
    cell = float((np.log(fit.predict(n, eta, 0.0 if d is None else d) / mean) ** 2).sum() / df)
    one = Prediction(fit, refits, errors, cell, None, None, t(df), None, None, pairs, len(found))
    if pairs < 2:
        return one
    logs = np.log(values)
    levels = logs.mean(1) - logs.mean()
    residual = logs - logs.mean(0) - levels[:, None]
    run_df = (pairs - 1) * (len(mean) - 1)
    # Between base models, and pairs of a base count as one: with m of them the squares have (pairs - m) times the
    # variance of another base's pair, at least. With one base, between its pairs.
    units, repeats = (len(found), counts.max()) if len(found) > 1 else (pairs, 1)
    pair = float((levels**2).sum() / (pairs - repeats)) * (1 + 1 / units)
    return replace(one, run=float((residual**2).sum() / run_df), pair=pair, t_run=t(run_df), t_pair=t(units - 1))
