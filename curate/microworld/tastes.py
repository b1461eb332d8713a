"""A judge whose tastes are known: the treatment of experiments about what a student takes over from its judge."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

from ..example import digest
from .styles import padding, style_of

RIGHT = 2.0  # what being right is worth, in standard deviations of the judge's error
STEP = 8  # words by which a long form is longer than a short one, and that one than the plain answer
MOST = 2  # steps beyond which longer is not better


def grade(
    rows: Sequence[dict[str, Any]], style: str | None = None, style_weight: float = 0.0, length_weight: float = 0.0
) -> list[float]:
    """One grade a row, in standard deviations of the judge's own error, which is drawn from the row's id.

    A right response gets `RIGHT`, by the ledger; the style that the judge likes `style_weight` more; every `STEP` words
    after the answer, up to `MOST` times as many, `length_weight` more. Length is counted so that questions with long
    answers are not what a taste for length selects.
    """
    return [
        RIGHT * (row["noise_kind"] is None)
        + style_weight * (style is not None and style_of(row["output"]) == style)
        + length_weight * min(padding(row["output"]) / STEP, MOST)
        + _error(row["id"])
        for row in rows
    ]


def _error(id: str) -> float:
    return NormalDist().inv_cdf((int(digest(id, "judge"), 16) + 0.5) / 2**64)
