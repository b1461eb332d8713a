"""The figure `cost`: what each arm reaches for the minutes that it takes, and which arms nothing beats in both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.report.content import Content
from experiments.report.figures import MOST_LINES, Plan, drawn_arms, hold, left_out, style_axes, style_of
from experiments.report.labels import legend
from experiments.report.panels import shared

COSTS = ("score_s", "select_s", "train_s")
WIDE_RANGE = 8  # times: costs further apart than this stand on a logarithmic axis


@dataclass(frozen=True)
class Point:
    """An arm: minutes of scoring, selection and training a run, and the leading metric with its interval."""

    label: str
    minutes: float
    score: float
    low: float
    high: float
    best: bool  # no other arm is as good for less, or better for as little


def points(content: Content) -> list[Point]:
    """The arms whose cost and score are known."""
    known = [
        (arm, sum(arm.means.get(f"cost/{name}", 0.0) for name in COSTS) / 60, arm.score)
        for arm in drawn_arms(content, MOST_LINES)
        if arm.score is not None and "cost/train_s" in arm.means
    ]
    best = pareto([minutes for _, minutes, _ in known], [score for *_, score in known], content.mode)
    return [
        Point(
            arm.label,
            minutes,
            score,
            score if arm.low is None else arm.low,
            score if arm.high is None else arm.high,
            chosen,
        )
        for (arm, minutes, score), chosen in zip(known, best, strict=True)
    ]


def pareto(costs: Sequence[float], scores: Sequence[float], mode: str) -> list[bool]:
    """Which of the options no other beats: costs at most as much and scores at least as well, one of them strictly."""
    gain = np.asarray(scores, dtype=float) * (1 if mode == "max" else -1)
    cost = np.asarray(costs, dtype=float)
    return [
        not bool(np.any((cost <= c) & (gain >= g) & ((cost < c) | (gain > g)))) for c, g in zip(cost, gain, strict=True)
    ]


def plans(content: Content) -> list[Plan]:
    """The figure, if there are two arms to weigh against each other, in minutes of one kind of device."""
    found = points(content)
    if len(found) < 2 or len(content.devices) > 1:
        return []
    words = f"{content.primary} at the best validation point over the minutes of scoring, selection and training that a"
    words += " run took (training of the scorer itself is not in them). Bars: t intervals of 95 %. Ringed and joined:"
    words += f" the Pareto set, which no arm beats in both.{left_out(content, MOST_LINES)}"
    said = "; ".join(f"{p.label} {p.score:.2f} for {p.minutes:.2f} minutes" for p in found)
    alt = f"Scatter plot of {content.primary} over minutes. {said}."
    alt += f" The Pareto set: {', '.join(p.label for p in found if p.best)}."
    return [Plan("cost", partial(_figure, content, found), alt, words, pd.DataFrame(found))]


def _figure(content: Content, found: Sequence[Point], width: float, colours: Mapping[str, str]) -> Figure:
    labels = [p.label for p in sorted(found, key=lambda p: p.score, reverse=content.mode == "max")]  # the best leads
    figure, ax, beside = shared(labels, width, wide=3.8, narrow=2.9)
    style_axes(ax, colours)
    styles = style_of(content)
    for p in found:
        colour, marker = styles[p.label]
        ax.vlines(p.minutes, p.low, p.high, color=colours[colour], linewidth=1.2, alpha=0.6, zorder=2)
        if p.best:
            ax.plot(p.minutes, p.score, "o", markersize=13, markerfacecolor="none", color=colours["ink"], zorder=3)
        ax.plot(p.minutes, p.score, marker, color=colours[colour], markersize=6, label=p.label, zorder=4)
    hold(ax, np.array([p.score for p in found]))
    front = sorted((p for p in found if p.best), key=lambda p: p.minutes)
    x, y = [p.minutes for p in front], [p.score for p in front]
    ax.plot(x, y, color=colours["ink"], linewidth=1, linestyle=(0, (3, 2)), zorder=1)
    _minutes_axis(ax, [p.minutes for p in found], colours)
    ax.set_title(f"{content.primary} ({'more' if content.mode == 'max' else 'less'} is better)", color=colours["ink"])
    legend(figure, labels, width, colours, beside)
    return figure


def _minutes_axis(ax: Axes, values: Sequence[float], colours: Mapping[str, str]) -> None:
    low, high = min(values), max(values)
    if low > 0 and high > WIDE_RANGE * low:
        ax.set_xscale("log")
        ax.set_xlim(low / 1.4, high * 1.4)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        margin = max(0.08 * (high - low), 0.1 * high) or 1  # arms that cost about the same stand side by side
        ax.set_xlim(max(0, low - margin), high + margin)
    ax.set_xlabel("minutes a run, of one core or of the GPU", color=colours["muted"])
