"""Places for labels in figures, so that no two of them touch."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes


def end_labels(
    ax: Axes,
    ends: Sequence[tuple[str, float, str]],
    colours: Mapping[str, str],
    gap: float = 0.052,
    bold: str = "",
) -> None:
    """Labels right of the axes, no two of them closer than `gap` of its height, each with a line to its end.

    Args:
        ends: (label, value, colour) of lines that end on the right.
        bold: the label that stands out.
    """
    low, high = ax.get_ylim()
    places = within(spread([value for _, value, _ in ends], gap * (high - low)), gap * (high - low), low, high)
    for (label, value, colour), place in zip(ends, places, strict=True):
        ax.annotate(
            label, (1, value), xycoords=("axes fraction", "data"), xytext=(1.03, place),
            textcoords=("axes fraction", "data"), va="center", fontsize=8.5, color=colour,
            fontweight="bold" if label == bold else "normal", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colours["grid"], "shrinkA": 0, "shrinkB": 4, "linewidth": 0.8},
        )  # fmt: skip


def spread(values: Sequence[float], gap: float) -> list[float]:
    """The values moved as little as needed to be at least `gap` apart, in the same order."""
    order = np.argsort(values, kind="stable")
    wanted = np.asarray(values, dtype=float)[order] - gap * np.arange(len(values))
    blocks: list[list[float]] = []  # runs of labels that touch: their sum and how many they are
    for value in wanted:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, n = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + n]
    moved = np.concatenate([[total / n] * int(n) for total, n in blocks]) if blocks else np.array([])
    found = np.empty(len(values))
    found[order] = moved + gap * np.arange(len(values))
    return [float(v) for v in found]


def within(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places that are `gap` apart, moved to lie between `low` and `high` as far as that many can."""
    found = np.array(places, dtype=float)
    order = np.argsort(found, kind="stable")
    steps = gap * np.arange(len(found))
    found[order] = np.minimum(np.maximum(found[order], low + steps), high - steps[::-1])
    return [float(v) for v in found]


def inches(ax: Axes) -> tuple[float, float]:
    """Width and height of axes."""
    root = ax.get_figure(root=True)
    assert root is not None
    width, height = (float(x) for x in np.multiply(ax.get_position().size, root.get_size_inches()))
    return width, height
