"""Places for labels in figures, so that no two of them touch, and what of them fits."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report.figures import NARROW

LONGEST_END, LONGEST, LONGEST_NARROW = 24, 46, 40  # characters of a label at the end of a line, in legends
ROW, CHARACTER = 0.175, 0.08  # inches: a row of a legend, a character of 9 points
MOST_TITLE_LINES = 3


def at_ends(labels: Sequence[str], width: float) -> bool:
    """Whether a figure of this width has room for the labels beside the axes."""
    return width > NARROW and max(map(len, labels), default=0) <= LONGEST_END


def cut(label: str, most: int) -> str:
    """The label, its end dotted where it has more than `most` characters."""
    return label if len(label) <= most else label[: most - 1] + "…"


def told_apart(labels: Sequence[str], width: float) -> list[str]:
    """Labels that fit a legend of this width; where two would be cut to the same, their ends are kept instead."""
    most = LONGEST if width > NARROW else LONGEST_NARROW
    return _apart(labels, lambda label: cut(label, most), lambda label: tail(label, most))


def _apart(labels: Sequence[str], short: Callable[[str], str], ending: Callable[[str], str]) -> list[str]:
    shorts = [short(label) for label in labels]
    return [one if shorts.count(one) == 1 else ending(label) for one, label in zip(shorts, labels, strict=True)]


def tail(label: str, most: int) -> str:
    """As many of the label's last words as fit, behind dots; of a single long word its last characters."""
    if len(label) <= most:
        return label
    words = label.split(" ")
    while len(words) > 1 and len(" ".join(words)) > most - 2:
        del words[0]
    return f"… {' '.join(words)[-(most - 2) :]}"


def columns(labels: Sequence[str], width: float) -> int:
    """Columns of a legend of this width."""
    longest = max(map(len, told_apart(labels, width)))
    return max(1, min(len(labels), int(width / (0.5 + 0.068 * longest))))


def legend_rows(labels: Sequence[str], width: float) -> int:
    """Rows of a legend of this width."""
    return -(-len(labels) // columns(labels, width))


def titles(labels: Sequence[str], width: float) -> list[str]:
    """Titles that stay above panels of this width, in at most three lines; where two would be cut to the same, their
    ends are kept instead."""
    across = max(8, int(width / CHARACTER))

    def wrapped(label: str) -> str:
        label = " ".join(_parted(word, across) for word in label.split(" "))
        lines = textwrap.wrap(label, across, max_lines=MOST_TITLE_LINES, placeholder=" …", break_on_hyphens=False)
        return "\n".join(lines)

    most = (MOST_TITLE_LINES - 1) * across + 2  # lines do not fill, so that one less is sure to do
    return _apart(labels, wrapped, lambda label: wrapped(tail(label, most)))


def _parted(word: str, most: int) -> str:
    """A word longer than `most` in parts, each but the first with its underscore, where it has any that serve."""
    at = word.rfind("_", 1, most + 1) if len(word) > most else -1
    return word if at < 0 else f"{word[:at]} {_parted(word[at:], most)}"


def legend(
    figure: Figure, labels: Sequence[str], width: float, colours: Mapping[str, str], beside: bool = False
) -> None:
    """The legend of a figure for its lines of these labels: at its foot, or in a column from three quarters on."""
    handles = {line.get_label(): line for ax in figure.axes for line in ax.get_lines()}
    if beside:
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.75, 0.95), "labelspacing": 0.7}
    else:
        place = {"loc": "lower left", "bbox_to_anchor": (0.0, 0.0), "labelspacing": 0.35, "columnspacing": 1.0}
        place |= {"ncols": columns(labels, width)}
    drawn = figure.legend([handles[label] for label in labels], told_apart(labels, width), fontsize=8, **place)
    for text in drawn.get_texts():
        text.set_color(colours["ink"])


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
