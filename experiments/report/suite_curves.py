"""The figure `suites`: each OOD suite over training, a panel an arm."""

from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import table as tables
from experiments.report.content import Content, Curve, curve_of, missing
from experiments.report.figures import (
    MARKERS,
    MOST_PAIRS,
    MOST_PANELS,
    SERIES,
    Plan,
    curves_frame,
    drawn_arms,
    drawn_pairs,
    hold,
    left_out,
    style_axes,
)
from experiments.report.labels import ROW, legend, legend_rows
from experiments.report.panels import panels, steps_below

Panel = tuple[str, Mapping[str, Curve]]  # arm, suite -> curve


def plans(content: Content, table: pd.DataFrame, suites: Sequence[str]) -> list[Plan]:
    """The figure, if there is more than one suite with the leading metric."""
    found = _panels(content, table, suites)
    names = [suite for suite in suites if any(suite in curves for _, curves in found)]
    if len(names) < 2:
        return []
    metric = content.primary.partition("/")[2]
    words = f"{metric} of each out-of-distribution suite over training: "
    words += drawn_pairs(curve.pairs for _, curves in found for curve in curves.values())
    words += " (thin), their mean and its t interval"
    words += f" of 95 % with base models as fixed blocks.{left_out(content, MOST_PANELS)}"
    ends = [
        f"{label}: {', '.join(f'{suite} {curve.mean[-1]:.2f}' for suite, curve in curves.items())}"
        for label, curves in found
    ]
    alt = f"Line charts of {metric} on {', '.join(names)} over steps of training. At the last step, {'; '.join(ends)}."
    each = [(label, suite, curve) for label, curves in found for suite, curve in curves.items()]
    data = curves_frame([({"arm": label, "suite": suite, "metric": metric}, curve) for label, suite, curve in each])
    return [Plan("suites", partial(_figure, found, names), alt, words, data)]


def _panels(content: Content, table: pd.DataFrame, suites: Sequence[str]) -> list[Panel]:
    metric = content.primary.partition("/")[2]
    rows = table[table["suite"].isin(suites) & (table["metric"] == metric) & table["point"].str.startswith("step:")]
    found = []
    for arm in drawn_arms(content, MOST_PANELS):
        levels = {key: None if missing(value) else value for key, value in arm.levels.items()}
        own = tables.matching(rows, {"arm": arm.name, **levels})
        curves = {suite: curve_of(own, f"{suite}/{metric}") for suite in suites}
        found.append((arm.label, {suite: curve for suite, curve in curves.items() if len(curve.steps)}))
    return [(label, curves) for label, curves in found if curves]


def _figure(found: Sequence[Panel], names: Sequence[str], width: float, colours: Mapping[str, str]) -> Figure:
    room = ROW * legend_rows(names, width)
    figure, axes = panels([label for label, _ in found], [colours["ink"]] * len(found), width, below=0.5 + room)
    for ax, (_, curves) in zip(axes, found, strict=True):
        style_axes(ax, colours)
        _panel(ax, curves, names, colours)
    hold(axes[0], *(values for _, each in found for curve in each.values() for values in (curve.pairs, curve.mean)))
    steps_below(figure, axes, colours, 0.1 + room)
    legend(figure, names, width, colours)
    return figure


def _panel(ax: Axes, curves: Mapping[str, Curve], names: Sequence[str], colours: Mapping[str, str]) -> None:
    for i, name in enumerate(names):
        if name not in curves:
            continue
        curve, colour = curves[name], colours[SERIES[i % len(SERIES)]]
        for pair in curve.pairs[:MOST_PAIRS]:
            ax.plot(curve.steps, pair, color=colour, linewidth=0.5, alpha=0.4)
        ax.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.12, linewidth=0)
        marker = MARKERS[i % len(MARKERS)]
        ax.plot(curve.steps, curve.mean, color=colour, linewidth=1.6, marker=marker, markersize=3.2, label=name)
