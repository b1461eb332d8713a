"""Surfaces of loss over size, noise and copies, one for each combination of everything else that runs differ by.

A combination with a grid of its own has a fit of its own, by the form that predicts cells left out best. One that was
measured at a few cells only lies on the surface of the largest grid but for what tells it apart: another kind of noise
counts as so many rows of the kind that was fitted (kappa), another reading of duplication has its own exponent (delta),
another model or arm its own level (shift). Where there is no noise its kind does not matter, and where there are no
copies their reading does not: such cells belong to all.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from experiments import hull, prediction, shapes, surface
from experiments import table as tables
from experiments.shape_files import FEWEST_CELLS, FEWEST_LEVELS

SPARE = 3  # cells more than parameters of its own that a borrowed surface takes at least
METRIC, POINT = "ood/nll", "best_val"  # likelihood: exact match is no loss with powers and a floor
NONE = "none"  # what an empty cell of the table is called


@dataclass(frozen=True)
class Axes:
    """Columns of runs.csv. `copies` may be None: then nothing was duplicated."""

    size: str = "data.rows"
    noise: str = "noise.rate"
    copies: str | None = "duplication.rate"

    def names(self) -> list[str]:
        return [name for name in (self.size, self.noise, self.copies) if name]


@dataclass(frozen=True)
class Slice:
    """One surface: what was measured, what was fitted, and where it may be asked."""

    choice: Mapping[str, str]  # column -> value: what tells it from the others
    cells: np.ndarray  # (cells, 3) rows, share of noise, share of copies
    values: np.ndarray  # (pairs, cells) losses
    prediction: prediction.Prediction
    hull: hull.Hull  # over (log rows, noise, copies)
    left_out: Mapping[str, float]  # form -> root mean square of the log error at cells left out, the best first
    own: tuple[str, ...]  # the parameters of a borrowed surface that are its own; none: all are
    notes: tuple[str, ...]

    def inside(self, n: np.ndarray, eta: np.ndarray, d: np.ndarray) -> np.ndarray:
        """Whether each point lies in the hull of the cells: elsewhere nothing is said."""
        return self.hull.contains(np.stack(np.broadcast_arrays(np.log(n), eta, d), axis=-1))


@dataclass(frozen=True)
class Slices:
    """All surfaces of a table, the one with the most cells first."""

    axes: Axes
    metric: str
    point: str
    keys: tuple[str, ...]  # the columns by which slices are chosen
    slices: tuple[Slice, ...]
    left_over: tuple[str, ...]  # combinations that were measured at too few cells, in words


def found_in(table: pd.DataFrame) -> Slices | None:
    """The surfaces of an experiment whose runs span sizes, noise and copies; None of any other."""
    axes = Axes()
    if not spanned(table, axes):
        return None
    try:
        return measured(table, METRIC, POINT, axes)
    except shapes.Unfit:
        return None


def spanned(table: pd.DataFrame, axes: Axes) -> bool:
    """Whether runs were planned at several levels of each axis."""
    plan = tables.planned(table)
    return all(
        name in plan and pd.to_numeric(plan[name], errors="coerce").nunique() >= FEWEST_LEVELS for name in axes.names()
    )


def measured(table: pd.DataFrame, metric: str, point: str, axes: Axes) -> Slices:
    """Fit every combination that the runs bear.

    Args:
        table: as `table.runs_table` makes it.
        metric: suite/metric, a loss: above 0, less is better.
        point: of the curve.
        axes: the columns of size, noise and copies.

    Raises:
        shapes.Unfit: no combination has a grid that a surface can be fitted to; its message says of the largest why.
    """
    table = _numbers(table, axes)
    keys = _varying(table, axes)
    plan = tables.planned(table)
    named = [dict(zip(keys, row, strict=True)) for row in _distinct(plan, keys)]
    found, why = [], []
    for choice in named:
        try:
            found.append((choice, *_gridded(table, choice, keys, metric, point, axes)))
        except shapes.Unfit as error:
            why.append((0, str(error)))
    wholes: list[Slice] = []
    few = []
    for choice, grid, own in found:
        made = _whole(choice, grid)
        if isinstance(made, Slice):
            wholes.append(made)
        else:
            few.append((choice, grid, own))
            why.append((len(grid.cells), made))
    if not wholes:
        raise shapes.Unfit(max(why, default=(0, "there are no runs"))[1])
    wholes.sort(key=lambda one: -len(one.cells))
    left: list[str] = []
    borrowers: list[Slice] = []
    for choice, grid, own in few:
        borrowed = _borrowed(wholes[0], choice, grid, own, axes)
        if isinstance(borrowed, Slice):
            borrowers.append(borrowed)
        else:
            left.append(f"{_words(choice, keys)}: {borrowed}")
    every = [*wholes, *borrowers]
    shown = _telling([one.choice for one in every], keys)
    return Slices(
        axes, metric, point, shown,
        tuple(replace(one, choice={key: _said(one.choice[key]) for key in shown}) for one in every), tuple(left),
    )  # fmt: skip


# --- from the table to grids ------------------------------------------------------------------------------------------


def _numbers(table: pd.DataFrame, axes: Axes) -> pd.DataFrame:
    table = table.copy()
    for name in axes.names():
        table[name] = pd.to_numeric(table[name], errors="coerce")
    return table[table[axes.names()].notna().all(axis=1)]


def _varying(table: pd.DataFrame, axes: Axes) -> list[str]:
    keys = ["arm", *(key for key in tables.levels_of(table) if key not in axes.names())]
    plan = tables.planned(table)
    return [key for key in keys if plan[key].nunique(dropna=False) > 1]


def _distinct(frame: pd.DataFrame, keys: Sequence[str]) -> list[tuple[Any, ...]]:
    if not keys:
        return [()] if len(frame) else []
    rows = frame[list(keys)].drop_duplicates().itertuples(index=False, name=None)
    return [tuple(None if _missing(value) else value for value in row) for row in rows]


def _family(key: str, axis: str | None) -> bool:
    """Whether a column says of what kind the noise (or copies) of this axis are: noise and noise.x of noise.rate."""
    stem = (axis or "").rpartition(".")[0]
    return bool(stem) and (key == stem or key.startswith(f"{stem}."))


def _gridded(
    table: pd.DataFrame, choice: Mapping[str, Any], keys: Sequence[str], metric: str, point: str, axes: Axes
) -> tuple[shapes.Grid, np.ndarray]:
    """The grid of a combination over rows, noise and copies, and (cells,) which cells belong to no other kind."""
    literal, shared = (np.ones(len(table), bool) for _ in range(2))
    for key in keys:
        column, value = table[key], choice[key]
        same = (column.isna() if value is None else column == value).to_numpy()
        literal &= same
        for axis in (axes.noise, axes.copies):
            if axis is not None and _family(key, axis):
                same = same | (table[axis] == 0).to_numpy()
        shared &= same
    own = table[literal]
    # cells of other kinds are taken in at the levels that this kind was measured at, and no further
    for axis in axes.names():
        levels = set(own[axis]) | ({0.0} if axis != axes.size else set())
        shared &= table[axis].isin(levels).to_numpy()
    chosen = table[literal | shared].copy()
    for key in keys:
        chosen[key] = choice[key]
    grid = shapes.grid(chosen, {}, metric, point, axes.names(), surface=True)
    if axes.copies is None:
        grid.cells = np.column_stack([grid.cells, np.zeros(len(grid.cells))])
    places = {tuple(map(float, row)) for row in own[axes.names()].itertuples(index=False, name=None)}
    is_own = np.array([tuple(cell[: len(axes.names())]) in places for cell in grid.cells.tolist()])
    if not (grid.values > 0).all():
        raise shapes.Unfit(f"{metric} is not above 0 everywhere; a surface is fitted to losses above 0")
    if not (grid.cells[:, 0] > 0).all() or not ((grid.cells[:, 1:] >= 0) & (grid.cells[:, 1:] <= 1)).all():
        raise shapes.Unfit(f"{axes.size} must be above 0, and {' and '.join(axes.names()[1:])} shares from 0 to 1")
    return grid, is_own


# --- from grids to surfaces -------------------------------------------------------------------------------------------


def _whole(choice: Mapping[str, Any], grid: shapes.Grid) -> Slice | str:
    """The surface of a grid that bears one, or why it does not."""
    n, eta, d = grid.cells.T
    for values, what in ((n, "sizes"), (eta, "rates of noise")):
        if len(np.unique(values)) < FEWEST_LEVELS:
            return f"{what} that every pair has: {len(np.unique(values))}, at least {FEWEST_LEVELS} are needed"
    if len(n) < FEWEST_CELLS:
        return f"cells that every pair has: {len(n)}, at least {FEWEST_CELLS} are needed"
    if np.ptp(np.log(grid.values.mean(0))) < shapes.TINY:
        return "all cells have the same loss; there is nothing to fit"
    copies = d if np.ptp(d) > 0 else None
    bases = [base or 0 for _, base in grid.units]
    tried = []
    for form, parameters in surface.FORMS.items():
        if len(n) > len(parameters) + (copies is not None) + 1:  # one is left out
            tried.append(prediction.predict(form, n, eta, copies, grid.values, bases))
    if not tried:
        return f"{len(n)} cells are fewer than any form has parameters"
    tried.sort(key=lambda one: one.left_out)
    return _slice(choice, grid, tried[0], {one.fit.form: one.left_out for one in tried}, ())


def _borrowed(whole: Slice, choice: Mapping[str, Any], grid: shapes.Grid, own: np.ndarray, axes: Axes) -> Slice | str:
    """A combination on the surface of another, by the parameters in which they differ; or why that cannot be."""
    differs = [key for key in choice if choice[key] != whole.choice[key]]
    kinds = [key for key in differs if _family(key, axes.noise)]
    readings = [key for key in differs if _family(key, axes.copies)]
    parameters = ["kappa"] * bool(kinds) + ["delta"] * bool(readings)
    parameters += ["shift"] * (len(kinds) + len(readings) < len(differs))
    used = own.copy()
    if parameters == ["kappa"]:
        used &= grid.cells[:, 1] > 0
    elif parameters == ["delta"]:
        used &= grid.cells[:, 2] > 0
    if used.sum() < len(parameters) + SPARE:
        return f"cells of its own: {used.sum()}, at least {len(parameters) + SPARE} are needed"
    n, eta, d = grid.cells[used].T
    bases = [base or 0 for _, base in grid.units]
    made = prediction.borrow(whole.prediction, parameters, n, eta, d, grid.values[:, used], bases)
    return _slice(choice, grid, made, {made.fit.form: made.left_out}, tuple(parameters))


def _slice(
    choice: Mapping[str, Any], grid: shapes.Grid, made: prediction.Prediction, left_out: Mapping[str, float],
    own: tuple[str, ...],
) -> Slice | str:  # fmt: skip
    coordinates = np.column_stack([np.log(grid.cells[:, 0]), grid.cells[:, 1:]])
    try:
        around = hull.hull(coordinates)
    except ValueError as error:
        return str(error)
    return Slice(choice, grid.cells, grid.values, made, around, left_out, own, tuple(grid.notes))


# --- words ------------------------------------------------------------------------------------------------------------


def _telling(choices: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> tuple[str, ...]:
    """The keys by which these differ, without those that follow from the others (columns of a group first)."""
    shown = [key for key in keys if len({_said(choice[key]) for choice in choices}) > 1]
    for key in sorted(shown, key=lambda key: ("." not in key, key)):
        rest = [other for other in shown if other != key]
        if rest and len({tuple(_said(c[k]) for k in rest) for c in choices}) == len(choices):
            shown = rest
    return tuple(shown)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _said(value: Any) -> str:
    return NONE if _missing(value) else f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _words(choice: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {_said(choice[key])}" for key in keys)
