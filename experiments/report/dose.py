"""The figure `dose`: the leading metric along each number that an experiment varies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import table as tables
from experiments.report import lines
from experiments.report.content import Evaluation, missing
from experiments.report.figures import MOST_PAIRS, Plan, drawn_pairs, hold
from experiments.report.lines import MOST_LINES, Line
from experiments.table import REFERENCE

FEW_LINES = 4  # with no more than these the pairs are drawn as well
COPIES = "duplication.rate"  # along which there is a null model
NEAR = 0.01  # numbers of rows that differ by no more than this share are the same


@dataclass(frozen=True)
class Panel:
    """The lines along one column; `left_out` more were measured."""

    column: str
    lines: Sequence[Line]
    unique: Sequence[np.ndarray]  # of each line, at its levels: its unique rows alone, NaN where that was not run
    left_out: int = 0


def panels(table: pd.DataFrame, evaluation: Evaluation) -> list[Panel]:
    """A panel for each swept number along which there is a line."""
    found = []
    for column in tables.levels_of(table):
        if lines.numeric(table, column):
            drawn, more = lines.lines_along(table, column, evaluation.primary, "best_val")
            unique = [_as_unique(table, line, column, evaluation.primary) for line in drawn]
            found.append(Panel(column, drawn, unique, more))
    return [panel for panel in found if panel.lines]


def _as_unique(table: pd.DataFrame, line: Line, column: str, metric: str) -> np.ndarray:
    """The null model of copies: what the reference arm reaches with the unique rows alone, all else equal.

    Placed beside the line by the mean difference over the pairs that have both, at levels where two pairs or more of
    the line have a reference arm of as many rows to within one in a hundred.
    """
    found = np.full(len(line.x), np.nan)
    if column != COPIES:
        return found
    group = {key: None if missing(value) else value for key, value in line.group.items()}
    rows = [key for key in group if key in ("arm", "data.rows") or key.startswith("duplication")]
    alike = {key: value for key, value in group.items() if key not in rows}
    plain = tables.matching(table[table["arm"] == REFERENCE], alike).drop_duplicates(["run_id", *tables.MEASURE[:3]])
    sizes = tables.measured(plain, "data/rows", "end").set_index("run_id")["value"]
    scores = tables.measured(plain, metric, "best_val").set_index("run_id").assign(rows=sizes)
    units = pd.MultiIndex.from_tuples(line.units, names=tables.UNIT)
    for i, x in enumerate(line.x):
        copies = tables.measured(tables.matching(table, group | {column: x}), "data/unique_rows", "end")["value"].mean()
        near = scores[(scores["rows"] - copies).abs() <= NEAR * copies].groupby(tables.UNIT)["value"].mean()
        shared = (near - pd.Series(line.pairs[:, i], index=units)).dropna()
        if len(shared) >= lines.FEWEST_SHARED:
            found[i] = line.mean[i] + shared.mean()
    return found


def plans(table: pd.DataFrame, evaluation: Evaluation) -> list[Plan]:
    """The figure, if there is anything to draw."""
    found = panels(table, evaluation)
    if not found:
        return []
    words = f"{evaluation.primary} at the best validation point over each number that was varied: means over pairs with"
    words += " t intervals of 95 %, base models as fixed blocks"
    words += " (cut where they reach far beyond)"
    thin = [line.pairs for panel in found if len(panel.lines) <= FEW_LINES for line in panel.lines]
    words += f"; thin, {drawn_pairs(thin)}" * bool(thin) + "."
    for panel in found:
        if panel.left_out:
            words += f" Along {panel.column} the {MOST_LINES} lines with most levels are drawn, and {panel.left_out}"
            words += " more stand in the table of arms."
    if any(line.left_out for panel in found for line in panel.lines):
        words += " Where some pairs lack a level, a line is about those that have all of its levels."
    if any(np.isfinite(values).any() for panel in found for values in panel.unique):
        words += f" Hollow, dashed: the null model, {REFERENCE} with the unique rows alone, where it was run, as far"
        words += " from the line as over the pairs that have both."
    title = f"{evaluation.primary} ({'more' if evaluation.mode == 'max' else 'less'} is better)"
    data = lines.frame(
        [(panel.column, line) for panel in found for line in panel.lines],
        unique_rows_alone=[values for panel in found for values in panel.unique],
    )
    return [Plan("dose", partial(_figure, found, title), _alt(found, evaluation.primary), words, data)]


def _figure(found: Sequence[Panel], title: str, width: float, colours: Mapping[str, str]) -> Figure:
    parts = [(partial(_draw, panel, title), [line.label for line in panel.lines], 2.5) for panel in found]
    return lines.stacked(parts, width, colours)


def _draw(panel: Panel, title: str, ax: Axes, colours: Mapping[str, str], ends: bool) -> None:
    styles = lines.style_of_lines(panel.lines)
    lines.scale(ax, panel.column, np.unique(np.concatenate([line.x for line in panel.lines])), colours)
    for line, (colour, marker) in zip(panel.lines, styles, strict=True):
        if len(panel.lines) <= FEW_LINES:
            for pair in line.pairs[:MOST_PAIRS]:
                held = np.isfinite(pair)
                ax.plot(line.x[held], pair[held], color=colours[colour], linewidth=0.6, alpha=0.35)
        lines.with_bars(ax, line, colours[colour], marker)
    for values, line, (colour, marker) in zip(panel.unique, panel.lines, styles, strict=True):
        held = np.isfinite(values)
        ax.plot(line.x[held], values[held], color=colours[colour], linewidth=1.1, linestyle=(0, (3, 2)), marker=marker,
                markersize=5.5, markerfacecolor="none", zorder=5)  # fmt: skip
    hold(ax, *(values for line in panel.lines for values in (line.pairs, line.mean)))
    ax.set_title(title + lines.alone(panel.lines), color=colours["ink"])
    lines.label(ax, panel.lines, colours, ends, [colours[colour] for colour, _ in styles])


def _alt(found: Sequence[Panel], primary: str) -> str:
    said = [
        f"Over {panel.column}: {'; '.join(f'{line.label} {lines.said(line)}' for line in panel.lines)}."
        for panel in found
    ]
    for panel in found:
        for line, values in zip(panel.lines, panel.unique, strict=True):
            held = np.isfinite(values)
            if held.any():
                alone = replace(line, x=line.x[held], mean=values[held])
                said.append(f"{REFERENCE} with the unique rows of {line.label} alone: {lines.said(alone)}.")
    return f"Line chart of {primary} over levels. {' '.join(said)}"
