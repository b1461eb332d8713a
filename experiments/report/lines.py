"""Lines over the levels of a swept number: what is in them, and axes with room for their names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from experiments import table as tables
from experiments.report.content import interval_of_units, labels_of, missing
from experiments.report.figures import MARKERS, SERIES, style_axes
from experiments.report.labels import LONGEST_END, ROW, at_ends, columns, end_labels, inches, legend_rows, told_apart
from experiments.table import REFERENCE

FEWEST_LEVELS = 3  # of a line
MOST_LINES = 8  # of a panel
LOGARITHMIC = ("data.rows", "duplication.k", "training.lr")
LEFT, RIGHT, WIDE_RIGHT = 0.48, 0.14, 1.85  # inches beside the axes; labels stand on the right of wide ones
TOP, BELOW = 0.3, 0.5  # inches: a title, ticks and the axis's name
FEWEST_SHARED = 2  # pairs that all levels of a line must have, for it to be about them alone


@dataclass(frozen=True)
class Line:
    """One combination of an arm with all levels but those it runs along. `pairs` is (pairs, levels), NaN for none.

    Means of other pairs at one level than at the next would show the pairs and not the level: where pairs lack a level
    the line is about those that have all, unless they are fewer than two; `left_out` says how many it is not about.
    """

    label: str
    group: Mapping[str, Any]
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    pairs: np.ndarray
    units: Sequence[tables.Unit] = ()
    left_out: int = 0


def numeric(table: pd.DataFrame, column: str) -> bool:
    """Whether a swept key holds numbers wherever it holds anything."""
    held = table[column].dropna()
    switch = any(isinstance(value, (bool, np.bool_)) for value in held.unique())
    return len(held) > 0 and not switch and bool(pd.to_numeric(held, errors="coerce").notna().all())


def lines_along(
    table: pd.DataFrame,
    column: str,
    metric: str,
    point: str,
    fewest: int = FEWEST_LEVELS,
    most: int | None = MOST_LINES,
) -> tuple[list[Line], int]:
    """A line for each combination of an arm and all other levels that was measured at `fewest` levels of `column`.

    Numbers come in ascending order, names in that of the plan.

    Returns:
        No more than `most` lines, those with most levels, and how many were left out.
    """
    keys = ["arm", *(key for key in tables.levels_of(table) if key != column)]
    rows = tables.measured(table, metric, point).drop_duplicates([*tables.UNIT, *keys, column, "run_id"])
    rows = rows.assign(x=pd.to_numeric(rows[column], errors="coerce"))
    rows = rows[rows["x"].notna()]
    found = [
        (dict(zip(keys, group if isinstance(group, tuple) else (group,), strict=True)), own)
        for group, own in rows.groupby(keys, dropna=False, sort=False)
        if own["x"].nunique() >= fewest
    ]
    found.sort(key=partial(_place, [group for group, _ in found]))
    kept = sorted(sorted(range(len(found)), key=lambda i: -found[i][1]["x"].nunique())[:most])
    shown = [found[i] for i in kept]
    names = names_of([group for group, _ in shown], column)
    return [_line(name, *one) for name, one in zip(names, shown, strict=True)], len(found) - len(kept)


def names_of(groups: Sequence[Mapping[str, Any]], *beside: str) -> list[str]:
    """What tells the groups apart along `beside`: without the arm where all have the same."""
    names, arms = labels_of(groups, beside), {str(group["arm"]) for group in groups}
    alike = len(arms) == 1 and len(groups) > 1
    return [name.removeprefix(f"{arm} ") for name in names for arm in arms] if alike else names


def _place(groups: Sequence[Mapping[str, Any]], item: tuple[Mapping[str, Any], pd.DataFrame]) -> list[float]:
    """Numbers in ascending order, names in that of the plan, nothing before anything."""
    place = []
    for key, value in item[0].items():
        named = [group[key] for group in groups if not missing(group[key])]
        if missing(value):
            place.append(-np.inf)
        elif all(isinstance(other, (int, float)) for other in named):
            place.append(float(value))
        else:
            place.append(float(named.index(value)))
    return place


def _line(label: str, group: Mapping[str, Any], rows: pd.DataFrame) -> Line:
    every = rows.pivot_table(index=tables.UNIT, columns="x", values="value", aggfunc="mean").sort_index(axis=1)
    shared = every.dropna()
    wide = shared if len(shared) >= FEWEST_SHARED else every
    bands = [interval_of_units(wide[x].dropna()) for x in wide.columns]
    mean, low, high = (np.array([b[i] if b[i] is not None else np.nan for b in bands], dtype=float) for i in range(3))
    x, lost = wide.columns.to_numpy(float), len(every) - len(wide)
    return Line(label, group, x, mean, low, high, wide.to_numpy(float), list(wide.index), lost)


def frame(found: Sequence[tuple[str, Line]], **more: Sequence[np.ndarray]) -> pd.DataFrame:
    """The numbers of lines: what each runs along, its name, level, mean, interval and a column for each pair.

    Args:
        found: (column, line).
        more: further columns, for each line an array over its levels.
    """
    rows = []
    for n, (column, line) in enumerate(found):
        for i, x in enumerate(line.x):
            own = {"along": column, "line": line.label, "level": x}
            own |= {"mean": line.mean[i], "low": line.low[i], "high": line.high[i]}
            own |= {name: values[n][i] for name, values in more.items()}
            rows.append(own | {f"pair {k}": value for k, value in enumerate(line.pairs[:, i], 1)})
    return pd.DataFrame(rows)


# --- drawing ---------------------------------------------------------------------------------------------------------


Part = tuple[Callable[[Axes, Mapping[str, str], bool], Any], Sequence[str], float]


def stacked(
    parts: Sequence[Part], width: float, colours: Mapping[str, str], above: float = TOP, right: float = RIGHT
) -> Figure:
    """Axes below each other, each with room for its labels.

    Args:
        parts: (draws on axes, given the colours and whether labels stand at the ends; labels; height in inches).
        above: inches for the title of each.
        right: inches beside axes without labels there.
    """
    beside = [len(labels) > 1 and at_ends(labels, width) for _, labels, _ in parts]
    across = width - LEFT - (WIDE_RIGHT if any(beside) else right)
    rows = [
        0 if ends or len(labels) < 2 else legend_rows(labels, across)  # a single line's name goes into the title
        for (_, labels, _), ends in zip(parts, beside, strict=True)
    ]
    tall = [above + height + BELOW + n * ROW for (_, _, height), n in zip(parts, rows, strict=True)]
    total = sum(tall)
    figure = plt.figure(figsize=(width, total))
    top = total
    for (draw, _, height), ends, own in zip(parts, beside, tall, strict=True):
        bottom = top - above - height
        ax = figure.add_axes((LEFT / width, bottom / total, across / width, height / total))
        style_axes(ax, colours)
        draw(ax, colours, ends)
        top -= own
    return figure


def label(ax: Axes, lines: Sequence[Line], colours: Mapping[str, str], ends: bool, styles: Sequence[str]) -> None:
    """Names of lines that are drawn: at their ends, or below."""
    width, height = inches(ax)
    if ends:
        last = [(line.label, line.mean[-1], colour) for line, colour in zip(lines, styles, strict=True)]
        end_labels(ax, last, colours, gap=0.165 / height)
    elif len(lines) > 1:
        handles, labels = ax.get_legend_handles_labels()
        legend = ax.legend(
            handles, told_apart(labels, width), loc="upper left", ncols=columns(labels, width), fontsize=8,
            borderaxespad=0, borderpad=0, bbox_to_anchor=(0, -(BELOW - 0.06) / height), columnspacing=1.0,
            labelspacing=0.35,
        )  # fmt: skip
        for text in legend.get_texts():
            text.set_color(colours["ink"])


def style_of_lines(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """(colour name, marker) of each line; the reference arm by itself is in ink."""
    return [
        ("ink", "o") if line.label == REFERENCE else (SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)])
        for i, line in enumerate(lines)
    ]


def with_bars(ax: Axes, line: Line, colour: str, marker: str) -> None:
    """A line with its intervals."""
    ax.vlines(line.x, line.low, line.high, color=colour, linewidth=1.4, zorder=3)
    ax.plot(line.x, line.mean, color=colour, marker=marker, markersize=4.5, linewidth=1.8, zorder=4,
            label=line.label)  # fmt: skip


def scale(ax: Axes, column: str, levels: np.ndarray, colours: Mapping[str, str]) -> None:
    """The axis of a swept number, with its levels as ticks as far as there is room for them."""
    logarithmic = column in LOGARITHMIC and levels[0] > 0
    if logarithmic:
        ax.set_xscale("log")
    places = np.log(levels) if logarithmic else levels
    margin = 0.03 * (places[-1] - places[0])
    ends = places[0] - margin, places[-1] + margin
    ax.set_xlim(*(np.exp(ends) if logarithmic else ends))
    words = [f"{x:,.0f}" if x >= 1000 else f"{x:g}" for x in levels]
    room = 0.075 * max(map(len, words)) + 0.08
    shown = [len(levels) - 1]
    for i in range(len(levels) - 2, -1, -1):
        if (places[shown[-1]] - places[i]) * inches(ax)[0] / (ends[1] - ends[0]) >= room:
            shown.append(i)
    ax.xaxis.set_major_locator(FixedLocator([levels[i] for i in shown]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1000 else f"{x:g}"))
    ax.set_xlabel(column, color=colours["muted"])


def said(line: Line) -> str:
    """The means of a line in words."""
    return ", ".join(f"{y:.2f} at {x:g}" for x, y in zip(line.x, line.mean, strict=True))


def alone(found: Sequence[Line]) -> str:
    """What a title says of a line that is the only one, and so has no label."""
    return f", {found[0].label[:LONGEST_END]}" if len(found) == 1 else ""
