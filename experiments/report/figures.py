"""Figures by matplotlib: SVG, PNG and CSV files, and inline in the page, drawn for wide and for narrow windows.

In the page colours are CSS variables, so that a figure is light or dark with it. Text stays text, ids are fixed by
content and no date is written: two builds give the same bytes.
"""

import html
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
from markupsafe import Markup

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import store
from experiments.report.content import Arm, Content, Curve
from experiments.table import REFERENCE

WIDE, NARROW, DPI = 7.6, 3.7, 160  # inches, dots an inch of a PNG
LONGEST_ALT = 2000  # characters
FARTHEST = 0.5  # of the span of means and pairs: how far beyond them intervals are drawn
MOST_PANELS, MOST_LINES = 24, 16  # arms that are drawn each by itself, and together
MOST_PAIRS = 12  # that are drawn beside their mean: a hundred thin lines are a blot, and take minutes
PDF_DATES, NO_SOFTWARE = ("Creator", "Producer", "CreationDate"), {"Software": None}
# variable of the page: on light, on dark. Figures are drawn in the light ones, and inside a page variables stand for
# them. After Okabe and Ito (2008), made darker or lighter until each stands off its ground; markers tell arms apart.
COLOURS = {
    "ink": ("#1d2126", "#e8eaed"),
    "muted": ("#5c6670", "#9aa4ae"),
    "grid": ("#e3e6ea", "#2e343b"),
    "c0": ("#0072b2", "#5ab4f0"),
    "c1": ("#d55e00", "#ff8d45"),
    "c2": ("#00805f", "#35c99b"),
    "c3": ("#a8428a", "#ec9bd0"),
    "c4": ("#b07a00", "#f2b632"),
    "c5": ("#3b8fc4", "#9bd2f7"),
    "c6": ("#7a5195", "#b99cdb"),
    "c7": ("#8a6240", "#d3a983"),
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
    """A figure in words, as inline SVG for wide and narrow windows, and its numbers as CSV."""

    name: str
    alt: str
    caption: str
    wide: Markup
    narrow: Markup
    csv: str


Draw = Callable[[float, Mapping[str, str]], Figure]  # of a width in inches, with these colours


@dataclass(frozen=True)
class Plan:
    """A figure that can be drawn: its name, what draws it, what it says in words, and the numbers in it."""

    name: str
    draw: Draw
    alt: str
    caption: str
    data: pd.DataFrame


def draw_all(plans: Sequence[Plan], folder: Path, paper: Path | None = None) -> list[Drawing]:
    """Draw each as `<name>.svg`, `.png` and, its numbers, `.csv` in `folder`, where no others are left.

    Args:
        paper: where each is written as vector PDF as well.
    """
    wanted = {plan.name for plan in plans}
    for stale in folder.glob("*.*"):
        if stale.stem not in wanted:
            stale.unlink()
    return [_drawing(folder, plan, paper) for plan in plans]


def _drawing(folder: Path, plan: Plan, paper: Path | None) -> Drawing:
    light = {key: colour for key, (colour, _) in COLOURS.items()}
    alt = plan.alt if len(plan.alt) <= LONGEST_ALT else f"{plan.alt[:LONGEST_ALT]} … (the rest is in the data)"
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": plan.name}):
        figure, small = (plan.draw(width, light) for width in (WIDE, NARROW))
        wide, narrow = _svg(figure), _svg(small)
        _save(figure, folder / f"{plan.name}.png", dpi=DPI, facecolor="white", metadata=NO_SOFTWARE)
        if paper:
            with matplotlib.rc_context({"pdf.fonttype": 42}):  # TrueType, that journals take
                _save(figure, paper / f"{plan.name}.pdf", metadata=dict.fromkeys(PDF_DATES))
        plt.close(figure)
        plt.close(small)
    store.write_atomic(folder / f"{plan.name}.svg", _alone(wide))
    csv = plan.data.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    store.write_atomic(folder / f"{plan.name}.csv", csv)
    return Drawing(plan.name, alt, plan.caption, _inline(wide, alt), _inline(narrow, alt), csv)


def _save(figure: Figure, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, **options)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return text.getvalue()


def _alone(svg: str) -> str:
    """The figure as a file of its own: on white."""
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
    for key, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--{key})")
    return Markup(svg.strip())  # matplotlib escapes what it writes


def _opening(alt: str) -> Callable[[re.Match], str]:
    label = html.escape(alt, quote=True)
    return lambda m: (
        f'<svg viewBox="{m.group(1)}" role="img" aria-label="{label}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )


# --- style ---------------------------------------------------------------------------------------------------------


def style_of(content: Content) -> dict[str, tuple[str, str]]:
    """Label -> (colour name, marker). The reference arm is in ink."""
    others = [arm.label for arm in content.arms if arm.label != REFERENCE]
    styles = {label: (SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]) for i, label in enumerate(others)}
    return {REFERENCE: ("ink", "o")} | styles


def drawn_arms(content: Content, most: int) -> list[Arm]:
    """The measured arms in the order of the plan; of more than `most`, the reference and those of claims come first."""
    measured = [arm for arm in content.arms if len(arm.curve.steps)]
    claimed = [side for claim in content.claims for side in (claim["treatment"], claim["control"]) if side]

    def place(arm: Arm) -> int:
        levels = {"arm": arm.name, **arm.levels}
        asked = any(all(str(levels.get(key)) == str(value) for key, value in side.items()) for side in claimed)
        return 0 if arm.label == REFERENCE else 1 if asked else 2

    kept = sorted(measured, key=place)[:most]
    return [arm for arm in measured if any(arm is one for one in kept)]


def left_out(content: Content, most: int) -> str:
    """What a caption says of measured arms that are not drawn."""
    more = sum(len(arm.curve.steps) > 0 for arm in content.arms) - most
    return f" {most} arms are drawn; {more} more stand in the table of arms." if more > 0 else ""


def drawn_pairs(pairs: Iterable[np.ndarray], whose: str = "the") -> str:
    """What a caption says of the pairs that are drawn, given those of each curve."""
    most = max(map(len, pairs), default=0)
    return f"{whose} first {MOST_PAIRS} of {most} pairs" if most > MOST_PAIRS else f"{whose} pairs"


def curves_frame(curves: Sequence[tuple[Mapping[str, Any], Curve]]) -> pd.DataFrame:
    """The numbers of curves: what each is, step, mean, interval, and a column for each pair."""
    rows = []
    for what, curve in curves:
        for i, step in enumerate(curve.steps):
            pairs = {f"pair {n}": value for n, value in enumerate(curve.pairs[:, i], 1)}
            band = {"mean": curve.mean[i], "low": curve.low[i], "high": curve.high[i]}
            rows.append({**what, "step": step, **band, **pairs})
    return pd.DataFrame(rows)


def style_axes(ax: Axes, colours: Mapping[str, str], grid: Literal["x", "y"] = "y") -> None:
    ax.grid(axis=grid, color=colours["grid"], linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(colors=colours["muted"], length=0, pad=4)
    for spine in ax.spines.values():
        spine.set_color(colours["grid"])


def hold(ax: Axes, *drawn: np.ndarray) -> None:
    """Keep the axes to what was `drawn` of means and pairs: intervals that reach far beyond run to the edge.

    Two pairs give intervals that leave nothing else to be seen.
    """
    values = np.concatenate([np.ravel(one) for one in drawn])
    if not np.isfinite(values).any():
        return
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = FARTHEST * ((high - low) or abs(high) or 1.0)
    bottom, top = ax.get_ylim()
    ax.set_ylim(min(max(bottom, low - room), low), max(min(top, high + room), high))
