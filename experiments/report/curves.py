"""The figures `curves` and `arms`: the leading metric over training, all arms together and each by itself."""

from collections.abc import Mapping
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from experiments.report.content import Arm, Content, Curve
from experiments.report.figures import (
    MOST_LINES,
    MOST_PAIRS,
    MOST_PANELS,
    Plan,
    curves_frame,
    drawn_arms,
    drawn_pairs,
    hold,
    left_out,
    style_axes,
    style_of,
)
from experiments.report.labels import end_labels, legend
from experiments.report.panels import panels, shared, steps_below
from experiments.table import REFERENCE


def together(content: Content) -> list[Plan]:
    """`curves`, if anything was measured over training."""
    shown = drawn_arms(content, MOST_LINES)
    if not shown:
        return []
    words = f"{content.primary} over training, the mean of each arm.{left_out(content, MOST_LINES)}"
    return [Plan("curves", partial(_curves, content), _alt(content, shown), words, _frame(content, shown))]


def apart(content: Content) -> list[Plan]:
    """`arms`, if anything was measured over training."""
    shown = drawn_arms(content, MOST_PANELS)
    if not shown:
        return []
    pairs = drawn_pairs((arm.curve.pairs for arm in shown), "its")
    words = f"Each arm by itself: {pairs} (thin), their mean and its t interval of 95 %"
    words += " with base models as fixed blocks"
    words += f"; dashed, the mean of {REFERENCE}" * (_reference(shown) is not None) + "."
    words += left_out(content, MOST_PANELS)
    return [Plan("arms", partial(_panels, content), _alt(content, shown), words, _frame(content, shown))]


def _reference(arms: list[Arm]) -> Curve | None:
    """The curve of the reference arm, where there is one of that name and not several."""
    found = [arm.curve for arm in arms if arm.name == REFERENCE]
    return found[0] if len(found) == 1 else None


def _frame(content: Content, shown: list[Arm]):
    return curves_frame([({"arm": arm.label, "metric": content.primary}, arm.curve) for arm in shown])


def _curves(content: Content, width: float, colours: Mapping[str, str]) -> Figure:
    measured = drawn_arms(content, MOST_LINES)
    labels = [arm.label for arm in measured]
    figure, ax, beside = shared(labels, width, wide=4.2, narrow=3.0)
    style_axes(ax, colours)
    styles = style_of(content)
    for arm in measured:
        colour, marker = styles[arm.label]
        lead = arm.label == REFERENCE
        ax.plot(
            arm.curve.steps, arm.curve.mean, color=colours[colour], marker=marker, markersize=4.5,
            linewidth=2.2 if lead else 1.6, label=arm.label, zorder=4 if lead else 3, clip_on=False,
        )  # fmt: skip
    _baselines(ax, content, colours)
    last = max(arm.curve.steps[-1] for arm in measured)
    ax.set_xlim(0, last)
    ax.set_xlabel("steps of training", color=colours["muted"])
    steps = sorted({int(step) for arm in measured for step in arm.curve.steps})
    ax.xaxis.set_major_locator(FixedLocator(steps) if len(steps) < 9 else MaxNLocator(5, integer=True))
    ax.set_title(_axis_title(content), color=colours["ink"])
    if beside:
        known = [arm for arm in measured if np.isfinite(arm.curve.mean[-1])]
        ends = [(arm.label, arm.curve.mean[-1], colours[styles[arm.label][0]]) for arm in known]
        end_labels(ax, ends, colours, bold=REFERENCE)
    else:
        legend(figure, labels, width, colours)
    return figure


def _axis_title(content: Content) -> str:
    return f"{content.primary} ({'more' if content.mode == 'max' else 'less'} is better)"


def _baselines(ax: Axes, content: Content, colours: Mapping[str, str]) -> None:
    for label, value in content.baselines.items():
        ax.axhline(value, color=colours["muted"], linewidth=1, linestyle=(0, (2, 3)), zorder=1)
        ax.annotate(
            label, (1, value), xycoords=("axes fraction", "data"), xytext=(0, -2), textcoords="offset points",
            ha="right", va="top", fontsize=7.5, color=colours["muted"],
        )  # fmt: skip
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.05 * (high - low) * bool(content.baselines), high)


def _panels(content: Content, width: float, colours: Mapping[str, str]) -> Figure:
    measured = drawn_arms(content, MOST_PANELS)
    styles = style_of(content)
    inks = [colours[styles[arm.label][0]] for arm in measured]
    figure, axes = panels([arm.label for arm in measured], inks, width, below=0.5)
    reference = _reference(measured)
    for ax, arm in zip(axes, measured, strict=True):
        _panel(ax, arm, reference, colours, colours[styles[arm.label][0]], styles[arm.label][1])
    hold(axes[0], *(values for arm in measured for values in (arm.curve.pairs, arm.curve.mean)))
    steps_below(figure, axes, colours, 0.06)
    return figure


def _panel(ax: Axes, arm: Arm, reference: Curve | None, colours: Mapping[str, str], colour: str, marker: str) -> None:
    style_axes(ax, colours)
    curve = arm.curve
    for pair in curve.pairs[:MOST_PAIRS]:
        ax.plot(curve.steps, pair, color=colour, linewidth=0.6, alpha=0.45)
    ax.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
    if reference is not None and reference is not curve:
        ax.plot(reference.steps, reference.mean, color=colours["muted"], linewidth=1.1, linestyle=(0, (3, 2)))
    ax.plot(curve.steps, curve.mean, color=colour, linewidth=2, marker=marker, markersize=3.5)


def _alt(content: Content, shown: list[Arm]) -> str:
    ends = [f"{a.label} {a.curve.mean[-1]:.2f}" for a in shown]
    return f"Line chart of {content.primary} over steps of training. At the last step: {', '.join(ends)}."
