"""The figure `claims`: the estimate and interval of each claim beside its margin."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from experiments.report.content import (
    VERDICTS,
    Content,
    contrast_of,
    effect,
    headline_first,
    interval_of,
    shown,
)
from experiments.report.figures import WIDE, Plan, style_axes
from experiments.report.labels import CHARACTER, cut

COLUMNS = ["id", "metric", "scale", "estimate", "ci_low", "ci_high", "level", "margin", "reference", "verdict", "pairs"]


def plans(content: Content) -> list[Plan]:
    """The figure, if anything was estimated."""
    shown = [claim for claim in headline_first(content.claims) if claim["estimate"] is not None]
    if not shown:
        return []
    words = "Estimates and intervals of the claims, at the level that Holm's procedure gives each. Grey: within the"
    words += " margin. Filled: decided."
    words += " Diamond: the quoted figure." * any(_quoted(claim) is not None for claim in shown)
    data = pd.DataFrame([{key: claim[key] for key in COLUMNS} | {"quoted": _quoted(claim)} for claim in shown])
    return [Plan("claims", partial(_forest, content), _forest_alt(content), words, data)]


def _quoted(claim: Mapping[str, Any]) -> float | None:
    """The source's figure on the claim's own scale, where it can be put so."""
    return claim["definition"]["quoted"]["effect"]


WIDE_RANGE = 8  # times: ratios further apart than this stand on logarithmic ticks
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
        _forest_panel(ax, claims, colours, width)
        ax.set_title(title, color=colours["muted"])
    between = 0.62 / (0.5 + sum(sizes) / len(sizes) / 2)  # inches, as a share of the panels' mean height
    figure.subplots_adjust(left=0.02, right=0.98, top=1 - 0.27 / height, bottom=0.3 / height, hspace=between)
    return figure


def _forest_panel(ax: Axes, claims: Sequence[Mapping[str, Any]], colours: Mapping[str, str], width: float) -> None:
    narrow = width < 5
    style_axes(ax, colours, grid="x")
    ax.spines["left"].set_visible(False)
    ends = [c[k] for c in claims for k in ("estimate", "ci_low", "ci_high") if c[k] is not None]
    ends += [c["reference"] + s * c["margin"] for c in claims for s in (-1, 1)]
    ends += [quoted for c in claims if (quoted := _quoted(c)) is not None]
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
        if (quoted := _quoted(claim)) is not None:
            ax.plot(quoted, y - 0.14, "D", markersize=6, color=colours["c1"], markerfacecolor="none", zorder=5)
        verdict = VERDICTS[claim["verdict"]]
        words = shown(claim["id"] if narrow else f"{claim['id']}: {contrast_of(claim)}")
        words = cut(words, int(0.96 * width / CHARACTER - 1.3 * len(verdict)))  # bold letters are wider
        text: Any = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 8.5}
        ax.text(0, y + 0.24, words, color=colours["ink"], **text)
        ax.text(1, y + 0.24, verdict, color=colours["ink"], ha="right", fontweight="bold", **text)
    if len(shared) == 1:
        ax.axvline(shared.pop(), color=colours["muted"], linewidth=1)
    ax.set_xlim(left, right)
    ax.set_ylim(-len(claims) + 0.5, 0.5)
    ax.set_yticks([])
    ticks = MaxNLocator(4 if narrow else 7)
    ax.xaxis.set_major_locator(ticks)
    if claims[0]["scale"] == "log_ratio":
        ratios = _ratios(math.exp(left), math.exp(right), ticks)
        room = 0.03 * (right - left) * WIDE / width  # half of a tick's label
        ax.xaxis.set_major_locator(FixedLocator([x for x in map(math.log, ratios) if left + room <= x <= right - room]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"×{math.exp(x):.4g}"))


def _ratios(low: float, high: float, ticks: MaxNLocator) -> list[float]:
    """Ticks of ratios on an axis of logarithms: evenly spaced, or 1, 2, 5 and their decades where they span much."""
    if high < WIDE_RANGE * low:
        return [r for r in ticks.tick_values(low, high) if r > 0]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10**power for power in powers for step in ((1,) if high > 1e4 * low else (1, 2, 5))]


def _forest_alt(content: Content) -> str:
    lines = [
        f"{c['id']}: {effect(c, c['estimate'])} (interval {interval_of(c)}), {VERDICTS[c['verdict']]}"
        + (f", quoted {effect(c, _quoted(c))}" if _quoted(c) is not None else "")
        for c in headline_first(content.claims)
        if c["estimate"] is not None
    ]
    return "Forest plot of the claims. " + "; ".join(lines) + "."
