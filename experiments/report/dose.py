"""The figure `dose`: the leading metric along each number that an experiment varies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import table as tables
from experiments.report import lines
from experiments.report.content import Evaluation
from experiments.report.figures import Plan
from experiments.report.lines import MOST_LINES, Line

FEW_LINES = 4  # with no more than these the pairs are drawn as well


@dataclass(frozen=True)
class Panel:
    """The lines along one column; `left_out` more were measured."""

    column: str
    lines: Sequence[Line]
    left_out: int = 0


def panels(table: pd.DataFrame, evaluation: Evaluation) -> list[Panel]:
    """A panel for each swept number along which there is a line."""
    columns = [column for column in tables.levels_of(table) if lines.numeric(table, column)]
    found = [Panel(column, *lines.lines_along(table, column, evaluation.primary, "best_val")) for column in columns]
    return [panel for panel in found if panel.lines]


def plans(table: pd.DataFrame, evaluation: Evaluation) -> list[Plan]:
    """The figure, if there is anything to draw."""
    found = panels(table, evaluation)
    if not found:
        return []
    words = f"{evaluation.primary} at the best validation point over each number that was varied: means over pairs with"
    words += " t intervals of 95 %, base models as fixed blocks"
    words += "; thin, the pairs" * any(len(panel.lines) <= FEW_LINES for panel in found) + "."
    for panel in found:
        if panel.left_out:
            words += f" Along {panel.column} the {MOST_LINES} lines with most levels are drawn, and {panel.left_out}"
            words += " more stand in the table of arms."
    title = f"{evaluation.primary} ({'more' if evaluation.mode == 'max' else 'less'} is better)"
    data = lines.frame([(panel.column, line) for panel in found for line in panel.lines])
    return [Plan("dose", partial(_figure, found, title), _alt(found, evaluation.primary), words, data)]


def _figure(found: Sequence[Panel], title: str, width: float, colours: Mapping[str, str]) -> Figure:
    parts = [(partial(_draw, panel, title), [line.label for line in panel.lines], 2.5) for panel in found]
    return lines.stacked(parts, width, colours)


def _draw(panel: Panel, title: str, ax: Axes, colours: Mapping[str, str], ends: bool) -> None:
    styles = lines.style_of_lines(panel.lines)
    lines.scale(ax, panel.column, np.unique(np.concatenate([line.x for line in panel.lines])), colours)
    for line, (colour, marker) in zip(panel.lines, styles, strict=True):
        if len(panel.lines) <= FEW_LINES:
            for pair in line.pairs:
                held = np.isfinite(pair)
                ax.plot(line.x[held], pair[held], color=colours[colour], linewidth=0.6, alpha=0.35)
        lines.with_bars(ax, line, colours[colour], marker)
    ax.set_title(title + lines.alone(panel.lines), color=colours["ink"])
    lines.label(ax, panel.lines, colours, ends, [colours[colour] for colour, _ in styles])


def _alt(found: Sequence[Panel], primary: str) -> str:
    said = [
        f"Over {panel.column}: {'; '.join(f'{line.label} {lines.said(line)}' for line in panel.lines)}."
        for panel in found
    ]
    return f"Line chart of {primary} over levels. {' '.join(said)}"
