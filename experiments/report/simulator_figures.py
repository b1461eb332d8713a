"""The simulator's figures, empty: Bokeh lays them out, and the page's script puts the data and the colours in.

A model that is given a colour has a name and tags of (property, CSS variable), for the scheme of whoever looks.
"""

import html
import json
import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
from bokeh.core.types import ID
from bokeh.embed import json_item
from bokeh.models import (
    ColumnDataSource,
    FixedTicker,
    HoverTool,
    NumeralTickFormatter,
    PrintfTickFormatter,
    Range1d,
)
from bokeh.plotting import figure
from bokeh.resources import Resources

from experiments.slices import Slices

HEIGHT = 250  # pixels
FONT = {"font": "system-ui, sans-serif", "font_size": "12px"}
SHARES = (-0.02, 1.02)  # ends of the axis of a share
Ends = tuple[float, float]
Scale = Literal["linear", "log"]


@cache
def bokeh_script() -> str:
    """BokehJS: its core, without widgets."""
    return Resources("inline", components=["bokeh"], log_level="warn").js_raw[0]


def embedded(found: Slices, sizes: Sequence[float]) -> tuple[list[Any], list[str]]:
    """What Bokeh.embed.embed_item takes, one for each figure, and the names of the models that the script reaches for.

    Args:
        found: whose names and losses the axes are for.
        sizes: all that were measured, ascending.
    """
    losses = np.concatenate([one.values.mean(0) for one in found.slices])
    y = (float(losses.min()) / 1.3, float(losses.max()) * 1.3)
    made = [
        _curve("rows", found.axes.size, (sizes[0] / 1.15, sizes[-1] * 1.15), y, sizes, found.metric),
        _curve("noise", found.axes.noise, SHARES, y, sizes, found.metric),
        *([_curve("copies", found.axes.copies, SHARES, y, sizes, found.metric)] if found.axes.copies else []),
        _equals(found, sizes),
    ]
    names = sorted({str(model.name) for one in made for model in one.references() if model.name})
    return _fixed([json_item(one, target=ID(f"simulator-plot-{one.name}")) for one in made]), names


def _fixed(items: list[Any]) -> list[Any]:
    """The same with ids that depend on nothing but their order, so that two builds are equal."""
    text = json.dumps(items)
    order = {found: f"m{i}" for i, found in enumerate(dict.fromkeys(re.findall(r'"(p\d+)"', text)))}
    return json.loads(re.sub(r'"(p\d+)"', lambda match: f'"{order[match[1]]}"', text))


def _curve(name: str, label: str, x: Ends, y: Ends, sizes: Sequence[float], metric: str) -> Any:
    """The loss along one axis, with both bands and the measured cells."""
    plot = _plot(name, label, x, y, "log" if name == "rows" else "linear", "log")
    if name == "rows":
        _rows_axis(plot.xaxis, sizes)
    else:
        plot.xaxis.ticker = FixedTicker(ticks=[0, 0.2, 0.4, 0.6, 0.8, 1])
    plot.yaxis.ticker = FixedTicker(ticks=nice_ticks(*y))
    plot.yaxis.formatter = PrintfTickFormatter(format="%g")
    curve = _source(f"{name}.curve", "x middle low high runLow runHigh")
    _coloured(plot.varea("x", "runLow", "runHigh", source=curve, fill_alpha=0.16), f"{name}.outer", fill_color="--c0")
    _coloured(plot.varea("x", "low", "high", source=curve, fill_alpha=0.35), f"{name}.inner", fill_color="--c0")
    _coloured(plot.line("x", "middle", source=curve, line_width=2.2), f"{name}.line", line_color="--c0")
    cells = _source(f"{name}.cells", "x y alpha rows noise copies")
    tips = [("rows", "@rows{0,0}"), ("noise", "@noise"), ("copies", "@copies"), (metric, "@y{0.000}")]
    _points(plot, name, cells, tips, fill_alpha="alpha", line_alpha="alpha")
    return _here(plot, name)


def _equals(found: Slices, sizes: Sequence[float]) -> Any:
    """Rows over noise: those that are as good as where the sliders stand, with their band, and what was measured."""
    plot = _plot("iso", found.axes.noise, SHARES, (sizes[0] / 1.3, sizes[-1] * 1.3), "linear", "log")
    plot.xaxis.ticker = FixedTicker(ticks=[0, 0.2, 0.4, 0.6, 0.8, 1])
    _rows_axis(plot.yaxis, sizes)
    region, curve = _source("iso.region", "x low high"), _source("iso.curve", "x y low high")
    _coloured(plot.varea("x", "low", "high", source=region, fill_alpha=0.5), "iso.measured", fill_color="--grid")
    _coloured(plot.varea("x", "low", "high", source=curve, fill_alpha=0.35), "iso.band", fill_color="--c2")
    _coloured(plot.line("x", "y", source=curve, line_width=2.2), "iso.line", line_color="--c2")
    tips = [("rows", "@y{0,0}"), ("noise", "@x"), (found.metric, "@loss{0.000}")]
    _points(plot, "iso", _source("iso.cells", "x y loss"), tips)
    return _here(plot, "iso")


def _plot(name: str, label: str, x: Ends, y: Ends, x_scale: Scale, y_scale: Scale) -> Any:
    plot = figure(
        name=name, height=HEIGHT, sizing_mode="stretch_width", tools="", toolbar_location=None,
        x_axis_type=x_scale, y_axis_type=y_scale,
        x_range=Range1d(start=x[0], end=x[1]), y_range=Range1d(start=y[0], end=y[1]),
        outline_line_color=None, background_fill_color=None, border_fill_color=None,
        min_border_right=14, min_border_top=8,
    )  # fmt: skip
    for which, axis, grid in (("x", plot.xaxis[0], plot.xgrid[0]), ("y", plot.yaxis[0], plot.ygrid[0])):
        axis.update(minor_tick_line_color=None, major_tick_line_color=None, axis_label_text_font_style="normal")
        axis.update(**{f"{part}_text_{key}": v for part in ("major_label", "axis_label") for key, v in FONT.items()})
        _tag(axis, f"{name}.{which}", major_label_text_color="--muted", axis_label_text_color="--muted",
             axis_line_color="--grid")  # fmt: skip
        _tag(grid, f"{name}.grid.{which}", grid_line_color="--grid")
    plot.xaxis.axis_label = untyped(label)
    return plot


def _points(plot: Any, name: str, cells: Any, tips: Sequence[tuple[str, str]], **look: str) -> None:
    """Measured cells, as circles that say their numbers."""
    points = plot.scatter("x", "y", source=cells, size=7, **look)
    _coloured(points, f"{name}.points", fill_color="--ink", line_color="--ink")
    plot.add_tools(HoverTool(renderers=[points], tooltips=[(_plain(label), field) for label, field in tips]))


def _here(plot: Any, name: str) -> Any:
    """The plot with a mark for where the sliders stand: a diamond, apart from the circles in shape too."""
    mark = plot.scatter("x", "y", source=_source(f"{name}.here", "x y"), marker="diamond", size=17, line_width=1.5,
                        level="overlay")  # fmt: skip
    _coloured(mark, f"{name}.mark", fill_color="--c1", line_color="--page")
    return plot


def _source(name: str, columns: str) -> ColumnDataSource:
    return ColumnDataSource({column: [] for column in columns.split()}, name=name)


def _coloured(renderer: Any, name: str, **variables: str) -> None:
    _tag(renderer.glyph, name, **variables)


def _tag(model: Any, name: str, **variables: str) -> None:
    model.name, model.tags = name, [list(one) for one in variables.items()]


def _rows_axis(axis: Any, sizes: Sequence[float]) -> None:
    """Ticks at measured sizes, as far as there is room for them."""
    kept = [sizes[0]]
    for n in sizes[1:]:
        if math.log(n / kept[-1]) >= math.log(sizes[-1] / sizes[0]) / 6:
            kept.append(n)
    axis.ticker = FixedTicker(ticks=kept)
    axis.formatter = NumeralTickFormatter(format="0,0")


def nice_ticks(low: float, high: float) -> list[float]:
    """At least three round numbers between two, on a logarithmic axis, at most eight."""
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(np.round(np.arange(1, 10, 0.1), 1))):
        ends = math.floor(math.log10(low)), math.ceil(math.log10(high))
        ticks = [float(f"{d * 10.0**e:.3g}") for e in range(ends[0], ends[1] + 1) for d in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3:
            break
    return ticks[:: max(1, math.ceil(len(ticks) / 8))]


def untyped(text: str) -> str:
    """A name that Bokeh draws as it is, and not as TeX, for which it would ask the net."""
    return re.sub(r"\$(?=\$)|\\(?=[(\[])", lambda match: f"{match[0]}\u200b", text)


def _plain(text: str) -> str:
    """A name that Bokeh's tooltips, which are markup with fields, show as it is."""
    return html.escape(text).replace("@", "＠").replace("$", "＄")
