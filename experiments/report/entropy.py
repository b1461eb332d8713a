"""The figure `entropy`: how unsure models of noisy rows are, beside the best predictor of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import table as tables
from experiments.report import lines
from experiments.report.figures import SERIES, Plan
from experiments.report.labels import inches, told_apart
from experiments.report.lines import FEWEST_LEVELS, MOST_LINES, Line

MEASURED, THEORY, POINT = "entity/entropy_first", "theory/entropy_first", "end"
NOISE, RATE = "noise", "noise.rate"


@dataclass(frozen=True)
class Entropy:
    """Lines over the rate, and single levels of noise beside them; each (measured, closed form)."""

    lines: Sequence[tuple[Line, Line]]
    kinds: Sequence[tuple[Line, Line]]  # one level each


def entropies(table: pd.DataFrame) -> Entropy | None:
    """Entropy over the rate of noise, and by its kind at the rates at which others were measured as well."""
    if RATE not in tables.levels_of(table) or not lines.numeric(table, RATE):
        return None
    measured, theory = (
        lines.lines_along(table, RATE, metric, POINT, fewest=1, most=None)[0] for metric in (MEASURED, THEORY)
    )
    forms = {str(line.group): line for line in theory}
    both = [(line, forms[str(line.group)]) for line in measured if str(line.group) in forms]
    over = [pair for pair in both if len(pair[0].x) >= FEWEST_LEVELS][:MOST_LINES]
    names = _names([line.group for line, _ in over])
    over = [(replace(line, label=name), form) for (line, form), name in zip(over, names, strict=True)]
    kinds = _kinds(both, (over or both)[0][0].group) if both else []
    return Entropy(over, kinds) if over or kinds else None


def _kinds(both: Sequence[tuple[Line, Line]], main: Mapping[str, object]) -> list[tuple[Line, Line]]:
    """Kinds of noise at one rate, all else as in `main`; none unless there are two."""
    alike = [pair for pair in both if str({**pair[0].group, NOISE: None}) == str({**main, NOISE: None})]
    rates = {x for line, _ in alike if len(line.x) < FEWEST_LEVELS for x in line.x}
    kinds = []
    for line, form in alike:
        for x in sorted(rates & set(line.x) & set(form.x)):
            label = f"{line.group.get(NOISE, line.group['arm'])}, rate {x:g}"
            kinds.append((replace(_at(line, x), label=label), _at(form, x)))
    return kinds if len({str(line.group) for line, _ in kinds}) > 1 else []


def _names(groups: Sequence[Mapping[str, object]]) -> list[str]:
    alone = len(groups) == 1 and NOISE in groups[0]
    return [str(groups[0][NOISE])] if alone else lines.names_of(groups)


def _at(line: Line, x: float) -> Line:
    at = line.x == x
    return Line(line.label, line.group, line.x[at], line.mean[at], line.low[at], line.high[at], line.pairs[:, at])


def plans(table: pd.DataFrame) -> list[Plan]:
    """The figure, where the best predictor is known."""
    found = entropies(table)
    if found is None:
        return []
    words = "Entropy of what the model predicts for the first token of an answer, in nats, at the end of training"
    words += " (filled, with t intervals of 95 %), beside that of the best predictor of the noisy pool by its closed"
    words += " form (open, dashed). Above it the model knows less than the pool tells, below it is too sure."
    both = [*found.lines, *found.kinds]
    data = lines.frame([(RATE, line) for line, _ in both], closed_form=[theory.mean for _, theory in both])
    return [Plan("entropy", partial(_figure, found), _alt(found), words, data)]


def _figure(found: Entropy, width: float, colours: Mapping[str, str]) -> Figure:
    parts: list[lines.Part] = []
    if found.lines:
        parts.append((partial(_over_rate, found.lines), [line.label for line, _ in found.lines], 2.5))
    if found.kinds:
        parts.append((partial(_by_kind, found.kinds), [], 0.36 * len(found.kinds)))
    return lines.stacked(parts, width, colours)


def _over_rate(pairs: Sequence[tuple[Line, Line]], ax: Axes, colours: Mapping[str, str], ends: bool) -> None:
    measured = [line for line, _ in pairs]
    styles = lines.style_of_lines(measured)
    lines.scale(ax, RATE, np.unique(np.concatenate([line.x for line in measured])), colours)
    for (line, theory), (colour, marker) in zip(pairs, styles, strict=True):
        ax.plot(theory.x, theory.mean, color=colours[colour], linewidth=1.2, linestyle=(0, (4, 2)), marker=marker,
                markersize=6, markerfacecolor="none", zorder=3)  # fmt: skip
        lines.with_bars(ax, line, colours[colour], marker)
    ax.set_title(f"{MEASURED}, nats{lines.alone(measured)}", color=colours["ink"])
    lines.label(ax, measured, colours, ends, [colours[colour] for colour, _ in styles])


def _by_kind(kinds: Sequence[tuple[Line, Line]], ax: Axes, colours: Mapping[str, str], ends: bool) -> None:
    ax.grid(visible=False, axis="y")
    ax.grid(axis="x", color=colours["grid"], linewidth=0.8)
    ax.spines["left"].set_visible(False)
    colour = colours[SERIES[0]]
    names = told_apart([line.label for line, _ in kinds], inches(ax)[0])
    for i, ((line, theory), name) in enumerate(zip(kinds, names, strict=True)):
        ax.plot(theory.mean, [-i - 0.18], "o", color=colour, markersize=6.5, markerfacecolor="none", zorder=3)
        ax.hlines([-i - 0.18], line.low, line.high, color=colour, linewidth=1.4, zorder=3)
        ax.plot(line.mean, [-i - 0.18], "o", color=colour, markersize=4.5, zorder=4)
        ax.text(0, -i + 0.26, name, transform=ax.get_yaxis_transform(), va="center", fontsize=8.5, color=colours["ink"])
    ax.set_ylim(0.5 - len(kinds), 0.5)
    ax.set_yticks([])
    ax.set_title(f"{MEASURED} by kind of noise", color=colours["ink"])
    ax.set_xlabel("nats", color=colours["muted"])


def _alt(found: Entropy) -> str:
    over = [
        f"{line.label}: measured {lines.said(line)}; closed form {lines.said(theory)}" for line, theory in found.lines
    ]
    kinds = [f"{line.label}: measured {line.mean[0]:.2f}, closed form {t.mean[0]:.2f}" for line, t in found.kinds]
    return (
        f"Chart of the entropy at the first token of an answer over the rate of noise, measured and by the closed form."
        f" {'. '.join(over + kinds)}."
    )
