"""The figure `iso_error`: which numbers of rows and rates of noise are as good as each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from experiments import shapes, surface
from experiments import table as tables
from experiments.report.content import labels_of, missing
from experiments.report.entropy import RATE
from experiments.report.figures import Plan
from experiments.report.labels import inches, spread, within
from experiments.report.lines import FEWEST_LEVELS, numeric, stacked
from experiments.shape_files import FEWEST_CELLS

SIZE, METRIC, POINT = "data.rows", "ood/nll", "best_val"  # likelihood: exact match is no loss with powers and a floor
CURVES = 6
ETAS = 600  # points of a curve


@dataclass(frozen=True)
class Surface:
    """The cells of one arm, the form that predicts cells left out best, and what the forms miss them by."""

    label: str
    n: np.ndarray  # (cells,) rows
    eta: np.ndarray  # (cells,) share of noisy rows
    loss: np.ndarray  # (cells,) mean over pairs
    pairs: int
    best: surface.Fit
    left_out: Mapping[str, float]  # form -> root mean square of the log error, the best first


def measured(table: pd.DataFrame) -> Surface | None:
    """The largest grid of rows and noise that was measured, fitted; None if no form can be fitted to any."""
    keys = tables.levels_of(table)
    if not {SIZE, RATE} <= set(keys) or not (numeric(table, SIZE) and numeric(table, RATE)):
        return None
    others = ["arm", *(key for key in keys if key not in (SIZE, RATE))]
    plan = tables.planned(table)
    groups = [dict(zip(others, row, strict=True)) for row in plan[others].drop_duplicates().itertuples(index=False)]
    found = []
    for group, label in zip(groups, labels_of(groups), strict=True):
        selector = {key: None if missing(value) else value for key, value in group.items()}
        try:
            found.append((label, shapes.grid(table, selector, METRIC, POINT, [SIZE, RATE], surface=True)))
        except shapes.Unfit:
            continue
    found = [(label, grid) for label, grid in found if _bears(grid)]
    if not found:
        return None
    label, grid = max(found, key=lambda one: len(one[1].cells))
    n, eta, loss = grid.cells[:, 0], grid.cells[:, 1], grid.values.mean(0)
    errors: dict[str, float] = {}
    for form, parameters in surface.FORMS.items():
        if len(n) > len(parameters):  # one is left out
            errors[form] = surface.left_out_rmse(form, n, eta, loss)
    left_out = dict(sorted(errors.items(), key=lambda item: item[1]))
    best = surface.fit(next(iter(left_out)), n, eta, loss)
    return Surface(label, n, eta, loss, len(grid.units), best, left_out)


def _bears(grid: shapes.Grid) -> bool:
    levels = [len(np.unique(grid.cells[:, axis])) for axis in (0, 1)]
    return min(levels) >= FEWEST_LEVELS and len(grid.cells) >= FEWEST_CELLS and bool((grid.values.mean(0) > 0).all())


def losses_of(found: Surface) -> list[float]:
    """The losses whose curves are drawn: even in the logarithm between those of the cells, to two digits."""
    between = np.geomspace(found.loss.min(), found.loss.max(), CURVES + 2)[1:-1]
    return sorted({float(f"{loss:.2g}") for loss in between})


def plans(table: pd.DataFrame) -> list[Plan]:
    """The figure, if there is a grid of rows and noise to draw."""
    found = measured(table)
    if found is None:
        return []
    fitted = found.best.predict(found.n, found.eta)
    data = pd.DataFrame({SIZE: found.n, RATE: found.eta, METRIC: found.loss, found.best.form: fitted})
    return [Plan("iso_error", partial(_figure, found), _alt(found), _caption(found), data)]


def _caption(found: Surface) -> str:
    best = found.best
    values = ", ".join(f"{key} {value:.3g}" for key, value in best.values.items()).replace("-", "−")
    others = ", ".join(f"{form} {error:.3g}" for form, error in list(found.left_out.items())[1:])
    text = (
        f"Cells of {found.label}: points with their mean {METRIC} over {found.pairs} pairs, at the best validation"
        f" point. Curves: equal loss by the {best.form} form, {values}. It is off by {found.left_out[best.form]:.3g} in"
        f" the logarithm at cells left out one at a time"
    )
    text += f" ({others})" * bool(others)
    if best.at_bound:
        text += f"; these cells do not tell {', '.join(best.at_bound)}"
    return f"{text}."


def _alt(found: Surface) -> str:
    cells = ", ".join(
        f"{y:.2f} at {n:g} rows and {e:g}" for n, e, y in zip(found.n, found.eta, found.loss, strict=True)
    )
    curves = "; ".join(
        f"{loss:g} takes {_rows(found, loss, found.eta.min())} at rate {found.eta.min():g} and"
        f" {_rows(found, loss, middle)} at {middle:g}"
        for loss in losses_of(found)
        for middle in [float(np.median(np.unique(found.eta)))]
    )
    return (
        f"Chart of rows over the rate of noise with curves of equal {METRIC} by the {found.best.form} form."
        f" Measured: {cells}. By the curves, a loss of {curves}."
    )


def _rows(found: Surface, loss: float, eta: float) -> str:
    n = surface.iso_error(found.best, loss, [eta])[0]
    return f"{n:,.0f} rows" if np.isfinite(n) and n < 1e9 else "more rows than there are"


def _figure(found: Surface, width: float, colours: Mapping[str, str]) -> Figure:
    return stacked([(partial(_draw, found), [], 3.6)], width, colours, above=0.48, right=0.4)


def _draw(found: Surface, ax: Axes, colours: Mapping[str, str], ends: bool) -> None:
    sizes = np.unique(found.n)
    low, high = np.log(sizes[0]), np.log(sizes[-1])
    bottom, top = low - 0.08 * (high - low), high + 0.08 * (high - low)
    right = found.eta.max() + 0.1 * np.ptp(found.eta)  # room for what the last points say
    ax.set_yscale("log")
    ax.set_ylim(np.exp(bottom), np.exp(top))
    ax.set_xlim(found.eta.min() - 0.04 * np.ptp(found.eta), right)
    ax.grid(visible=False)
    beside: list[tuple[str, float]] = []
    above: list[tuple[str, float]] = []
    for loss in losses_of(found):
        etas = np.linspace(found.eta.min(), right, ETAS)
        rows = np.log(surface.iso_error(found.best, loss, etas))
        held = np.isfinite(rows)
        etas, rows = etas[held], rows[held]
        inside = (rows >= bottom) & (rows <= top)
        if not inside.any():
            continue
        ax.plot(etas, np.exp(rows), color=colours["c0"], linewidth=1.4, zorder=2)
        last = np.flatnonzero(inside)[-1]
        if np.isclose(etas[last], right):
            beside.append((f"{loss:g}", rows[last]))
        else:
            above.append((f"{loss:g}", etas[last]))
    _curve_labels(ax, beside, above, colours["c0"], (bottom, top))
    ax.plot(found.eta, found.n, "o", color=colours["ink"], markersize=4, zorder=4)
    for n, eta, loss in zip(found.n, found.eta, found.loss, strict=True):
        ax.annotate(f"{loss:.2f}", (eta, n), xytext=(4, 3), textcoords="offset points", fontsize=7.5,
                    color=colours["ink"], zorder=5)  # fmt: skip
    ax.yaxis.set_major_locator(FixedLocator([float(n) for n in sizes]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    ax.xaxis.set_major_locator(FixedLocator([float(e) for e in np.unique(found.eta)]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda e, _: f"{e:g}"))
    ax.set_xlabel(RATE, color=colours["muted"])
    ax.set_title(f"{SIZE}; curves of equal {METRIC}", color=colours["ink"], pad=18)


def _curve_labels(
    ax: Axes,
    beside: Sequence[tuple[str, float]],
    above: Sequence[tuple[str, float]],
    colour: str,
    y: tuple[float, float],
) -> None:
    """The loss of each curve where it leaves the axes, on the right or at the top, none on another."""
    wide, tall = inches(ax)
    words: Any = {"color": colour, "fontsize": 8, "fontweight": "bold", "annotation_clip": False}
    for (text, _), place in zip(beside, _apart(beside, 0.15 / tall, y), strict=True):
        ax.annotate(text, (1, np.exp(place)), xycoords=("axes fraction", "data"), xytext=(3, 0),
                    textcoords="offset points", va="center", **words)  # fmt: skip
    for (text, _), place in zip(above, _apart(above, 0.32 / wide, ax.get_xlim()), strict=True):
        ax.annotate(text, (place, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
                    textcoords="offset points", ha="center", **words)  # fmt: skip


def _apart(labels: Sequence[tuple[str, float]], gap: float, ends: tuple[float, float]) -> list[float]:
    """Places for labels that do not touch; `gap` is a share of the axis."""
    space = gap * (ends[1] - ends[0])
    return within(spread([at for _, at in labels], space), space, *ends)
