"""Figures by matplotlib, as SVG: a file each, and inline in the page, drawn for wide and for narrow windows.

In the page colours are CSS variables, so that a figure is light or dark with it. Text stays text, ids are fixed by
content and no date is written: two builds give the same bytes.
"""

import html
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import matplotlib
from markupsafe import Markup

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from experiments import store
from experiments.report.content import VERDICTS, Arm, Content, Curve, contrast_of, effect, headline_first, interval_of
from experiments.report.labels import end_labels
from experiments.table import REFERENCE

WIDE, NARROW = 7.6, 3.7  # inches
# variable of the page: placeholder that matplotlib draws with, on light, on dark. After Okabe and Ito (2008), made
# darker or lighter until each stands off its ground; markers tell arms apart as well.
COLOURS = {
    "ink": ("#fe0001", "#1d2126", "#e8eaed"),
    "muted": ("#fe0002", "#5c6670", "#9aa4ae"),
    "grid": ("#fe0003", "#e3e6ea", "#2e343b"),
    "c0": ("#fe0010", "#0072b2", "#5ab4f0"),
    "c1": ("#fe0011", "#d55e00", "#ff8d45"),
    "c2": ("#fe0012", "#00805f", "#35c99b"),
    "c3": ("#fe0013", "#a8428a", "#ec9bd0"),
    "c4": ("#fe0014", "#b07a00", "#f2b632"),
    "c5": ("#fe0015", "#3b8fc4", "#9bd2f7"),
    "c6": ("#fe0016", "#7a5195", "#b99cdb"),
    "c7": ("#fe0017", "#8a6240", "#d3a983"),
}
SERIES = [name for name in COLOURS if name.startswith("c")]
MARKERS = "osD^vPX<>*"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "quality-vs-quantity",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True)
class Drawing:
    """A figure in words and as inline SVG for wide and narrow windows."""

    name: str
    alt: str
    caption: str
    wide: Markup
    narrow: Markup


Draw = Callable[[float, Mapping[str, str]], Figure]  # of a width in inches, with these colours
Plan = tuple[str, Draw, str, str]  # name, what draws it, alt text, caption


def draw_all(content: Content, folder: Path, more: Sequence[Plan] = ()) -> list[Drawing]:
    """Draw what there is data for, and `more`, as `<name>.svg` in `folder`, where no others are left."""
    plans: list[Plan] = []
    measured = [arm for arm in content.arms if len(arm.curve.steps)]
    if measured:
        alone = "Each arm by itself: its pairs (thin), their mean and its t interval of 95 % with base models as fixed"
        alone += f" blocks; dashed, the mean of {REFERENCE}."
        means = f"{content.primary} over training, the mean of each arm."
        plans.append(("curves", partial(_curves, content), _curves_alt(content), means))
        plans += [*more, ("arms", partial(_panels, content), _curves_alt(content), alone)]
    if any(claim["estimate"] is not None for claim in content.claims):
        caption = (
            "Estimates and intervals of the claims, at the level that Holm's procedure gives each. Grey: within the"
        )
        caption += " margin. Filled: decided."
        plans.append(("claims", partial(_forest, content), _forest_alt(content), caption))
    for stale in folder.glob("*.*"):
        if stale.stem not in [name for name, *_ in plans]:
            stale.unlink()
    return [_drawing(folder, *plan) for plan in plans]


def _drawing(folder: Path, name: str, draw: Draw, alt: str, caption: str) -> Drawing:
    placeholder = {key: colours[0] for key, colours in COLOURS.items()}
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        wide, narrow = (_svg(draw(width, placeholder)) for width in (WIDE, NARROW))
    store.write_atomic(folder / f"{name}.svg", _alone(wide))
    return Drawing(name, alt, caption, _inline(wide, alt), _inline(narrow, alt))


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    plt.close(figure)
    return text.getvalue()


def _alone(svg: str) -> str:
    """The figure as a file of its own: light, on white."""
    for placeholder, light, _ in COLOURS.values():
        svg = svg.replace(placeholder, light)
    return svg.replace(">\n <defs>", '>\n <rect width="100%" height="100%" fill="white"/>\n <defs>', 1)


def _inline(svg: str, alt: str) -> Markup:
    """The `<svg>` element alone: colours as variables, the page's font, no ids but those that are referred to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)[\")]", svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m.group(0) if m.group(1) in used else "", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "inherit", svg).replace("font: 9px inherit", "font-size: 9px")
    svg = re.sub(r"font: ([\d.]+px) inherit", r"font-size: \1", svg)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', _opening(alt), svg, count=1, flags=re.DOTALL)
    for key, (placeholder, *_) in COLOURS.items():
        svg = svg.replace(placeholder, f"var(--{key})")
    return Markup(svg.strip())  # matplotlib escapes what it writes


def _opening(alt: str) -> Callable[[re.Match], str]:
    label = html.escape(alt, quote=True)
    return lambda m: (
        f'<svg viewBox="{m.group(1)}" role="img" aria-label="{label}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )


# --- curves ---------------------------------------------------------------------------------------------------------


def style_of(content: Content) -> dict[str, tuple[str, str]]:
    """Label -> (colour name, marker). The reference arm is in ink."""
    others = [arm.label for arm in content.arms if arm.label != REFERENCE]
    styles = {label: (SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]) for i, label in enumerate(others)}
    return {REFERENCE: ("ink", "o")} | styles


def style_axes(ax: Axes, colours: Mapping[str, str], grid: Literal["x", "y"] = "y") -> None:
    ax.grid(axis=grid, color=colours["grid"], linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(colors=colours["muted"], length=0, pad=4)
    for spine in ax.spines.values():
        spine.set_color(colours["grid"])


def _curves(content: Content, width: float, colours: Mapping[str, str]) -> Figure:
    narrow = width < 5
    measured = [arm for arm in content.arms if len(arm.curve.steps)]
    rows = math.ceil(len(measured) / 2) * narrow
    height = (3.0 if narrow else 4.2) + 0.19 * rows
    figure, ax = plt.subplots(figsize=(width, height))
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
    if narrow:
        figure.subplots_adjust(left=0.1, right=0.97, top=1 - 0.28 / height, bottom=(0.55 + 0.19 * rows) / height)
        legend = figure.legend(loc="lower left", ncols=2, fontsize=8, bbox_to_anchor=(0.0, 0.0), columnspacing=1.0)
        for text in legend.get_texts():
            text.set_color(colours["ink"])
    else:
        figure.subplots_adjust(left=0.06, right=0.76, top=0.93, bottom=0.11)
        known = [arm for arm in measured if np.isfinite(arm.curve.mean[-1])]
        ends = [(arm.label, arm.curve.mean[-1], colours[styles[arm.label][0]]) for arm in known]
        end_labels(ax, ends, colours, bold=REFERENCE)
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
    measured = [arm for arm in content.arms if len(arm.curve.steps)]
    columns = min(len(measured), 2 if width < 5 else 3)
    rows = math.ceil(len(measured) / columns)
    height = rows * (1.45 if width < 5 else 1.75) + 0.5
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), sharex=True, sharey=True, squeeze=False)
    reference = next((arm.curve for arm in measured if arm.name == REFERENCE), None)
    styles = style_of(content)
    for ax, arm in zip(axes.flat, measured, strict=False):
        _panel(ax, arm, reference, colours, colours[styles[arm.label][0]], styles[arm.label][1])
    for ax in list(axes.flat)[len(measured) :]:
        ax.set_visible(False)
    for ax in axes[-1]:
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    left = 0.1 if width < 5 else 0.06
    figure.subplots_adjust(left=left, right=0.98, top=1 - 0.25 / height, bottom=0.5 / height, hspace=0.35, wspace=0.12)
    figure.supxlabel("steps of training", color=colours["muted"], fontsize=9, y=0.06 / height)
    return figure


def _panel(ax: Axes, arm: Arm, reference: Curve | None, colours: Mapping[str, str], colour: str, marker: str) -> None:
    style_axes(ax, colours)
    curve = arm.curve
    for pair in curve.pairs:
        ax.plot(curve.steps, pair, color=colour, linewidth=0.6, alpha=0.45)
    ax.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
    if reference is not None and reference is not curve:
        ax.plot(reference.steps, reference.mean, color=colours["muted"], linewidth=1.1, linestyle=(0, (3, 2)))
    ax.plot(curve.steps, curve.mean, color=colour, linewidth=2, marker=marker, markersize=3.5)
    everything = np.concatenate([curve.pairs.ravel(), curve.mean])
    if np.isfinite(everything).any():
        low, high = np.nanmin(everything), np.nanmax(everything)
        ax.set_ylim(min(ax.get_ylim()[0], low), max(ax.get_ylim()[1], high))
    ax.set_title(arm.label, color=colour)


def _curves_alt(content: Content) -> str:
    ends = [f"{a.label} {a.curve.mean[-1]:.2f}" for a in content.arms if len(a.curve.steps)]
    return f"Line chart of {content.primary} over steps of training. At the last step: {', '.join(ends)}."


# --- claims ---------------------------------------------------------------------------------------------------------


SCALES = {"difference": "difference", "log_ratio": "ratio", "gain_share": "share of a gain"}


def _forest(content: Content, width: float, colours: Mapping[str, str]) -> Figure:
    shown = [claim for claim in headline_first(content.claims) if claim["estimate"] is not None]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for claim in shown:
        measure = "minutes" if claim["point"] == "to_full" else claim["metric"]
        if statistic := claim["statistic"]:  # each in units of its own
            title = f"{measure}, {' '.join(str(statistic.get(k)) for k in ('name', 'parameter') if statistic.get(k))}"
        else:
            title = f"{measure}, {SCALES[claim['scale']]}"
        groups.setdefault(title, []).append(claim)
    sizes = [len(claims) for claims in groups.values()]
    height = 0.5 * sum(sizes) + 0.72 * len(sizes)
    figure, axes = plt.subplots(
        len(groups), 1, figsize=(width, height), squeeze=False, gridspec_kw={"height_ratios": [n + 0.35 for n in sizes]}
    )
    for ax, (title, claims) in zip(axes.flat, groups.items(), strict=True):
        _forest_panel(ax, claims, colours, narrow=width < 5)
        ax.set_title(title, color=colours["muted"])
    between = 0.62 / (0.5 + sum(sizes) / len(sizes) / 2)  # inches, as a share of the panels' mean height
    figure.subplots_adjust(left=0.02, right=0.98, top=1 - 0.27 / height, bottom=0.3 / height, hspace=between)
    return figure


def _forest_panel(ax: Axes, claims: Sequence[Mapping[str, Any]], colours: Mapping[str, str], narrow: bool) -> None:
    style_axes(ax, colours, grid="x")
    ax.spines["left"].set_visible(False)
    ends = [c[k] for c in claims for k in ("estimate", "ci_low", "ci_high") if c[k] is not None]
    ends += [c["reference"] + s * c["margin"] for c in claims for s in (-1, 1)]
    shared = {c["reference"] for c in claims}
    ends += [0.0] * (shared == {0.0})
    span = max(ends) - min(ends)
    left, right = min(ends) - 0.04 * span, max(ends) + 0.04 * span
    for i, claim in enumerate(claims):
        y, decided = -i, claim["verdict"] not in ("inconclusive", "not_comparable")
        within = [claim["reference"] - claim["margin"], claim["reference"] + claim["margin"]]
        ax.fill_between(within, y - 0.34, y + 0.06, color=colours["grid"], linewidth=0)
        if claim["level"] is not None:
            low = left if claim["ci_low"] is None else claim["ci_low"]
            high = right if claim["ci_high"] is None else claim["ci_high"]
            ax.plot([low, high], [y - 0.14] * 2, color=colours["c0"], linewidth=2, solid_capstyle="butt")
            for end, open_, mark in ((low, claim["ci_low"] is None, "<"), (high, claim["ci_high"] is None, ">")):
                ax.plot(end, y - 0.14, mark if open_ else "|", color=colours["c0"], markersize=6 if open_ else 7)
        ax.plot(
            claim["estimate"], y - 0.14, "o", markersize=6, color=colours["c0"], markeredgewidth=1.5,
            markerfacecolor=colours["c0"] if decided else "none", zorder=4,
        )  # fmt: skip
        words = claim["id"] if narrow else f"{contrast_of(claim)}  ({claim['id']})"
        text: Any = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 8.5}
        ax.text(0, y + 0.24, words, color=colours["ink"], **text)
        ax.text(1, y + 0.24, VERDICTS[claim["verdict"]], color=colours["ink"], ha="right", fontweight="bold", **text)
    if len(shared) == 1:
        ax.axvline(shared.pop(), color=colours["muted"], linewidth=1)
    ax.set_xlim(left, right)
    ax.set_ylim(-len(claims) + 0.5, 0.5)
    ax.set_yticks([])
    ticks = MaxNLocator(4 if narrow else 7)
    ax.xaxis.set_major_locator(ticks)
    if claims[0]["scale"] == "log_ratio":
        ratios = [r for r in ticks.tick_values(math.exp(left), math.exp(right)) if r > 0]
        ax.xaxis.set_major_locator(FixedLocator([x for x in map(math.log, ratios) if left <= x <= right]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"×{math.exp(x):.4g}"))


def _forest_alt(content: Content) -> str:
    lines = [
        f"{c['id']}: {effect(c, c['estimate'])} (interval {interval_of(c)}), {VERDICTS[c['verdict']]}"
        for c in headline_first(content.claims)
        if c["estimate"] is not None
    ]
    return "Forest plot of the claims. " + "; ".join(lines) + "."
