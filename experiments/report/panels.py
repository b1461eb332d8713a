"""Axes with room for the names of arms: a grid of panels over steps of training, and axes that all share."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.report.figures import NARROW
from experiments.report.labels import ROW, at_ends, legend_rows, titles

TITLE, BETWEEN = 0.25, 0.42  # inches above the first row for a title of one line, and between rows
LINE = 0.15  # inches of a further line of a title
SIDES = {True: (0.06, 0.98), False: (0.1, 0.98)}  # of a wide figure, of a narrow one: shares of its width


def panels(labels: Sequence[str], inks: Sequence[str], width: float, below: float) -> tuple[Figure, list[Axes]]:
    """Axes of one size, one a label, with the label as title.

    Args:
        inks: colours of the titles.
        below: inches for what stands under the last row.
    """
    wide = width > NARROW
    columns = min(len(labels), 3 if wide else 2)
    rows = -(-len(labels) // columns)
    left, right = SIDES[wide]
    apart = 0.12  # of the width of a panel
    each = width * (right - left) / (columns + apart * (columns - 1))
    words = titles(labels, each)
    more = LINE * (max(title.count("\n") for title in words))
    tall = 1.33 if wide else 1.05
    height = TITLE + more + rows * tall + (rows - 1) * (BETWEEN + more) + below
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=left, right=right, top=1 - (TITLE + more) / height, bottom=below / height,
        hspace=(BETWEEN + more) / tall, wspace=apart,
    )  # fmt: skip
    for ax, title, ink in zip(axes.flat, words, inks, strict=False):
        ax.set_title(title, color=ink)
    for ax in list(axes.flat)[len(labels) :]:
        ax.set_visible(False)
    return figure, list(axes.flat)[: len(labels)]


def shared(labels: Sequence[str], width: float, wide: float, narrow: float) -> tuple[Figure, Axes, bool]:
    """One pair of axes for all arms, with room for their names on the right, or below where these are long.

    Args:
        wide: height of a wide figure in inches, `narrow` that of a narrow one, without names below.

    Returns:
        The figure, its axes, and whether the names stand on the right, from three quarters of the width on.
    """
    beside = at_ends(labels, width)
    rows = 0 if beside else legend_rows(labels, width)
    is_wide = width > NARROW
    height = (wide if is_wide else narrow) + ROW * rows
    figure, ax = plt.subplots(figsize=(width, height))
    left, right = SIDES[is_wide]
    figure.subplots_adjust(
        left=left, right=0.75 if beside else right - 0.01, top=1 - 0.3 / height, bottom=(0.5 + ROW * rows) / height
    )
    return figure, ax, beside


def steps_below(figure: Figure, axes: Sequence[Axes], colours: Mapping[str, str], up: float) -> None:
    """The axis of steps under the last row; its name `up` inches above the foot."""
    axes[0].xaxis.set_major_locator(MaxNLocator(4, integer=True))  # shared by all
    height = figure.get_size_inches()[1]
    figure.supxlabel("steps of training", color=colours["muted"], fontsize=9, y=up / height)
