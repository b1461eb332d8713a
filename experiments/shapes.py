"""Statistics of more than two arms, from the runs' table to what `statistics` needs: one value for each pair.

Every statistic is computed on a grid (pairs, cells). Slopes, gains and how much better a form predicts are each pair's
own; what is fitted to all pairs together gives jackknife pseudo-values; the place of an optimum is found by comparing
levels. Across base models each base's mean takes the place of its pairs, here as for contrasts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from experiments import statistics, surface
from experiments import table as tables
from experiments.shape_files import (
    FEWEST_CELLS,
    FEWEST_LEVELS,
    Form,
    InteriorGain,
    Needed,
    Optimum,
    Parameter,
    Shape,
    Slope,
    axes,
    rising,
)

MOST_LOST = 0.2  # a pair that lacks more of its cells than this gives no surface
TINY = 1e-9  # differences in a logarithm below this are rounding


class Unfit(Exception):
    """Why the runs that there are do not bear the statistic."""


@dataclass
class Grid:
    """One metric at one point: a value for each pair and cell."""

    cells: np.ndarray  # (cells, axes) their levels, in ascending order
    values: np.ndarray  # (pairs, cells)
    units: list[tables.Unit]  # pair and base of each row
    notes: list[str] = field(default_factory=list)

    def across(self) -> "Grid":
        """The same with the mean of each base in place of its pairs."""
        bases = np.array([base for _, base in self.units])
        found = np.unique(bases)
        means = np.stack([self.values[bases == base].mean(0) for base in found])
        return Grid(self.cells, means, [(None, int(base)) for base in found], self.notes)


@dataclass
class Shaped:
    """A statistic: a value for each unit, or what has an interval of its own."""

    mean: float
    each: np.ndarray | None = None
    bases: Sequence[Any] = ()
    interval: statistics.Location | statistics.Gain | None = None  # where no t interval is honest
    notes: list[str] = field(default_factory=list)


def grid(
    table: pd.DataFrame, selector: Mapping[str, Any], metric: str, point: str, keys: list[str], surface: bool = False
) -> Grid:
    """The values of one selector over the columns `keys`; draws are averaged.

    Cells count that were planned for every pair. A pair that lacks a cell is left out; for a surface a cell is that a
    pair lacks, unless the pair lacks many.

    Raises:
        Unfit: nothing, or too little, is left.
    """
    plan = tables.matching(tables.planned(table), selector)
    rows = tables.matching(tables.measured(table, metric, point), selector).drop_duplicates(
        [*tables.UNIT, *keys, "run_id"]
    )
    for frame in (plan, rows):
        frame[keys] = frame[keys].apply(pd.to_numeric, errors="coerce")
    wanted = plan[[*tables.UNIT, *keys]].dropna().drop_duplicates()
    n_units = len(wanted[tables.UNIT].drop_duplicates())
    counts = wanted.groupby(keys).size()
    cells = counts[counts == n_units].index
    wide = rows.pivot_table(index=tables.UNIT, columns=keys, values="value", aggfunc="mean")
    wide = wide.reindex(columns=cells).sort_index()
    if surface:
        wide = wide[wide.isna().mean(axis=1) <= MOST_LOST]
        kept = wide.columns[wide.notna().all()]
    else:
        kept, wide = wide.columns, wide.dropna()
    if not len(wide) or not len(kept):
        raise Unfit(f"no pair has {metric} at {point} in all cells")
    notes = []
    if lost := sorted({int(pair) for pair in wanted["seed_pair"]} - {int(pair) for pair, _ in wide.index}):
        notes.append(f"without pair {', '.join(map(str, lost))} (a run is missing, failed or has no such figure)")
    if len(kept) < len(cells):
        notes.append(f"without {len(cells) - len(kept)} of {len(cells)} cells, in which a pair has no run")
    places = np.array([[float(x) for x in (cell if isinstance(cell, tuple) else (cell,))] for cell in kept])
    return Grid(places, wide[kept].to_numpy(float), [(int(p), int(b)) for p, b in wide.index], notes)


def shape(
    statistic: Shape,
    table: pd.DataFrame,
    treatment: Mapping[str, Any],
    control: Mapping[str, Any],
    metric: str,
    point: str,
    across: bool,
) -> tuple[Shaped, Grid]:
    """The statistic of a claim (its fields), and the grid that it was computed on, whose units are pairs.

    Raises:
        Unfit: see its message.
    """
    if isinstance(statistic, Needed) and statistic.size is None:
        return _needed_on_curves(statistic, table, treatment, metric, across)
    fitted = isinstance(statistic, (Parameter, Form))
    found = grid(table, treatment, metric, point, axes(statistic), fitted)
    pairs = found
    if isinstance(statistic, Slope) and control:
        found, other = _common(found, grid(table, control, metric, point, axes(statistic)))
        pairs = found
        if across:
            found, other = found.across(), other.across()
        each = _slopes(statistic, found) - _slopes(statistic, other)
        return Shaped(float(each.mean()), each, [b for _, b in found.units], notes=found.notes), pairs
    if across:
        found = found.across()
    bases = [base for _, base in found.units]
    for axis, key in enumerate(axes(statistic)):
        if len(np.unique(found.cells[:, axis])) < FEWEST_LEVELS:
            raise Unfit(f"fewer than {FEWEST_LEVELS} levels of {key} have runs in every pair")
    if isinstance(statistic, Slope):
        each = _slopes(statistic, found)
        return Shaped(float(each.mean()), each, bases, notes=found.notes), pairs
    if isinstance(statistic, Optimum):
        return _optimum(found, bases, rising(statistic, metric)), pairs
    if isinstance(statistic, InteriorGain):
        return _interior_gain(found, bases, rising(statistic, metric)), pairs
    if isinstance(statistic, Needed):
        return _needed_rows(statistic, found, rising(statistic, metric)), pairs
    return _surface(statistic, found), pairs


def _common(a: Grid, b: Grid) -> tuple[Grid, Grid]:
    """Both grids on the pairs and levels that they share."""
    units = [unit for unit in a.units if unit in b.units]
    cells = [tuple(cell) for cell in a.cells if (b.cells == cell).all(1).any()]
    if not units or len(cells) < FEWEST_LEVELS:
        raise Unfit(f"treatment and control share {len(units)} pairs and {len(cells)} levels")

    def part(g: Grid) -> Grid:
        columns = [[tuple(cell) for cell in g.cells].index(cell) for cell in cells]
        rows = [g.units.index(unit) for unit in units]
        return Grid(g.cells[columns], g.values[np.ix_(rows, columns)], units, list(dict.fromkeys(a.notes + b.notes)))

    return part(a), part(b)


def _slopes(statistic: Slope, g: Grid) -> np.ndarray:
    x, y = g.cells[:, 0], g.values
    if statistic.log_y and not (y > 0).all():
        raise Unfit("a logarithm needs values above 0 in every pair")
    x = np.log(x) if statistic.log_x else x
    y = np.log(y) if statistic.log_y else y
    centred = x - x.mean()
    return y @ centred / (centred @ centred)


def _optimum(g: Grid, bases: Sequence[Any], up: bool) -> Shaped:
    if len(g.units) < 2:
        raise Unfit("one pair has no spread; run at least two")
    location = statistics.locate(g.values, bases, g.cells[:, 0], up)
    levels = ", ".join(f"{x:g}" for x in location.levels)
    notes = [*g.notes, f"the best of the levels {levels}; the interval spans all that may be it"]
    return Shaped(location.mean, interval=location, notes=notes)


def _interior_gain(g: Grid, bases: Sequence[Any], up: bool) -> Shaped:
    """Cross-fitted: each unit's level is the best in the mean of the base means of all the other units.

    These gains are without bias but not independent (a t interval on them misses in 10 of 100 experiments without any
    gain), so that the interval is that of the best of several gains (`statistics.gain`).
    """
    if len(g.units) < 2:
        raise Unfit("a level that is chosen on other pairs takes at least two")
    y, labels = g.values, np.array(bases)
    each, chosen = np.empty(len(y)), []
    for i in range(len(y)):
        rest = np.arange(len(y)) != i
        means = np.mean([y[rest & (labels == base)].mean(0) for base in np.unique(labels[rest])], axis=0)
        best = 1 + int(np.argmax((1 if up else -1) * means[1:-1]))
        chosen.append(g.cells[best, 0])
        each[i] = y[i, best] - y[i, 0]
    levels, counts = np.unique(chosen, return_counts=True)
    said = ", ".join(f"{level:g} ({n} times)" for level, n in zip(levels, counts, strict=True))
    mean = float(each.mean())
    notes = [*g.notes, f"levels chosen on the other pairs: {said}"]
    gain = statistics.gain(y[:, 1:-1] - y[:, :1], bases, up, mean)
    if (gain.gains.se <= TINY * np.abs(y).max()).any():
        raise Unfit("the pairs do not differ at all, so their spread is unknown; run more")
    return Shaped(mean, interval=gain, notes=notes)


# --- surfaces ----------------------------------------------------------------------------------------


def _pseudo(g: Grid, values: np.ndarray, compute: Callable[[np.ndarray], float], notes: list[str]) -> Shaped:
    if len(values) < 2:
        raise Unfit("one pair has no spread; run at least two")
    mean, each = statistics.jackknife(compute, values)
    if not np.isfinite(mean) or not np.isfinite(each).all():
        raise Unfit("the fit has no such figure, with all pairs or without one of them")
    # the mean of pseudo-values is the statistic less its bias of order 1/n
    return Shaped(float(each.mean()), each, [base for _, base in g.units], notes=[*g.notes, *notes])


def _surface(statistic: Parameter | Form, g: Grid) -> Shaped:
    n, eta = g.cells.T
    if len(g.cells) < FEWEST_CELLS:
        raise Unfit(f"{len(g.cells)} cells have runs in every pair; a surface takes at least {FEWEST_CELLS}")
    if not (g.values > 0).all():
        raise Unfit("a surface is fitted to losses above 0")
    if isinstance(statistic, Parameter):
        fit = surface.fit(statistic.form, n, eta, g.values.mean(0))
        at = {"ratio": ("alpha", "beta")}.get(statistic.parameter, (statistic.parameter,))
        if stuck := set(fit.at_bound) & ({*at} if statistic.at is None else set()):
            raise Unfit(f"{', '.join(sorted(stuck))} ran to the end of its range: these cells do not tell it")
        notes = [f"{statistic.form} form, rmse of the log {fit.rmse:.2g} over {len(n)} cells"]
        notes += [f"{name} ran to the end of its range" for name in fit.at_bound]
        return _pseudo(g, g.values, lambda y: parameter(surface.fit(fit.form, n, eta, y, start=fit), statistic), notes)
    # not a jackknife of the errors on the mean surface: they are too curved, and such intervals miss one time in six
    forms = (statistic.better, statistic.than)
    errors = np.array([[surface.left_out_rmse(form, n, eta, y) for form in forms] for y in g.values])
    said = ", ".join(f"{form} {error:.3g}" for form, error in zip(forms, errors.mean(0), strict=True))
    notes = [*g.notes, f"log error of a cell left out, mean over surfaces fitted one by one: {said}"]
    each = errors[:, 0] - errors[:, 1]
    return Shaped(float(each.mean()), each, [base for _, base in g.units], notes=notes)


def parameter(fit: surface.Fit, statistic: Parameter) -> float:
    """What a `parameter` statistic asks of a fit."""
    if statistic.parameter == "ratio":
        return fit.values["beta"] / fit.values["alpha"]
    if statistic.at is None:
        return fit.values[statistic.parameter]
    if statistic.parameter == "exchange":
        return surface.exchange(fit, statistic.at.size, statistic.at.noise)
    size, noise = surface.elasticity(fit, statistic.at.size, statistic.at.noise)
    return {"elasticity_size": size, "elasticity_noise": noise, "elasticity_ratio": noise / size}[statistic.parameter]


# --- what is needed to get somewhere --------------------------------------------------------------------------------


def _needed_on_curves(
    statistic: Needed, table: pd.DataFrame, treatment: Mapping[str, Any], metric: str, across: bool
) -> tuple[Shaped, Grid]:
    """Tokens until the mean curve of a level reaches the target."""
    steps = sorted(
        (p for p in table["point"].unique() if str(p).startswith("step:")), key=lambda p: int(p.removeprefix("step:"))
    )
    grids = []
    for point in steps:
        try:
            found = grid(table, treatment, metric, point, [statistic.along])
        except Unfit:
            continue
        rows = tables.measured(table, metric, point).assign(value=lambda rows: rows["tokens"])
        tokens = grid(_with_plan(table, rows), treatment, metric, point, [statistic.along])
        grids.append((found, tokens))
    if len(grids) < 2:
        raise Unfit(f"{metric} was measured at fewer than two points of the curve in every cell")
    pairs = grids[0][0]
    if any(g.units != pairs.units or len(g.cells) != len(pairs.cells) for g, _ in grids):
        raise Unfit("the pairs' curves do not have the same points")
    if across:
        grids = [(g.across(), t.across()) for g, t in grids]
    # (pairs, levels, 2 x steps): the values of a curve, then its tokens
    values = np.concatenate([np.stack([pair[i].values for pair in grids], axis=-1) for i in range(2)], axis=-1)
    return _law(statistic, grids[0][0], values, rising(statistic, metric), "tokens"), pairs


def _with_plan(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    done = (table["suite"] == "run") & (table["metric"] == "done")
    return pd.concat([table[done], rows], ignore_index=True)


def _needed_rows(statistic: Needed, g: Grid, up: bool) -> Shaped:
    """Rows (interpolated in their logarithm) at which the mean over pairs of a level reaches the target."""
    rates, sizes = (np.unique(g.cells[:, axis]) for axis in range(2))
    columns = {tuple(cell): i for i, cell in enumerate(g.cells)}
    whole = [r for r in rates if all((r, n) in columns for n in sizes)]
    if len(whole) < FEWEST_LEVELS:
        raise Unfit(f"fewer than {FEWEST_LEVELS} levels of {statistic.along} have runs at every size")
    y = np.stack([g.values[:, [columns[r, n] for n in sizes]] for r in whole], axis=1)
    x = np.broadcast_to(np.log(sizes), y.shape)
    cells = np.array([[r] for r in whole])
    return _law(statistic, Grid(cells, g.values, g.units, g.notes), np.concatenate([y, x], axis=-1), up, "rows")


def _law(statistic: Needed, g: Grid, values: np.ndarray, up: bool, unit: str) -> Shaped:
    """The difference of AIC between the two laws of effort, over the levels at which the target is reached."""
    rates, half, n = g.cells[:, 0], values.shape[-1] // 2, len(values)

    def effort(mean: np.ndarray) -> np.ndarray:
        """(levels,) the logarithm; -inf where it is reached at the very start, nan where never."""
        found = []
        for level in mean:
            curve = list(zip(level[half:].tolist(), level[:half].tolist(), strict=True))
            x = tables.first_crossing(curve, statistic.target, "max" if up else "min")
            at_start = x is not None and x <= curve[0][0]
            found.append(np.nan if x is None else -np.inf if at_start else np.log(x) if unit == "tokens" else x)
        return np.array(found)

    every = [effort(values.mean(0)), *(effort(np.delete(values, i, axis=0).mean(0)) for i in range(n if n > 1 else 0))]
    never = np.isnan(every).any(0)
    used = ~never & np.isfinite(every).all(0)
    notes = []
    if never.any():
        notes.append(f"censored and left out: {statistic.target:g} is never reached at {_list(rates[never])}")
    if (early := ~never & ~used).any():
        notes.append(f"left out: {statistic.target:g} is reached by the first point at {_list(rates[early])}")
    if used.sum() < FEWEST_LEVELS:
        raise Unfit("; ".join([f"fewer than {FEWEST_LEVELS} levels reach the target", *notes]))
    needed = np.exp(every[0][used])
    at = ", ".join(f"{e:.3g} at {r:g}" for e, r in zip(needed, rates[used], strict=True))
    notes.append(f"{unit} needed: {at}")
    if n < 2:
        raise Unfit("one pair has no spread; run at least two")
    bases = [base for _, base in g.units]
    pseudo = n * every[0][used] - (n - 1) * np.array(every[1:])[:, used]  # (pairs, levels): each pair's efforts
    variance = float(np.mean(statistics.estimate(pseudo.T, bases).se ** 2))
    if variance <= TINY**2:
        raise Unfit("the pairs do not differ at all, so their spread is unknown; run more")
    return _pseudo(g, values, lambda mean: aic(statistic, rates[used], effort(mean)[used], variance), notes)


def aic(statistic: Needed, rates: np.ndarray, effort: np.ndarray, variance: float) -> float:
    """AIC of the first law less that of the second, for log efforts of a known error `variance`.

    Both laws are straight lines with as many parameters, so that the difference is that of their sums of squares over
    the variance (Burnham and Anderson 2002, section 2.2). The variance is that between pairs: with three to six levels
    one from the residuals of a law that fits well could be anything.
    """

    def rss(form: str) -> float:
        x = rates if form == "exponential" else np.log(1 - rates)
        design = np.stack([np.ones_like(x), x], axis=1)
        residual = effort - design @ np.linalg.lstsq(design, effort, rcond=None)[0]
        return float(residual @ residual)

    return (rss(statistic.forms[0]) - rss(statistic.forms[1])) / variance


def _list(levels: np.ndarray) -> str:
    return ", ".join(f"{level:g}" for level in levels)
