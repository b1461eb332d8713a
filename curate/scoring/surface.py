"""Scores that need no model: what a text looks like."""

import re
from collections.abc import Callable

import numpy as np
from datasets import Dataset

from curate.errors import UserError
from curate.example import column

_LIST = re.compile(r"(?m)^\s*(?:[-*•]|\d+[.)])\s+\S")
_HEDGES = re.compile(
    r"(?i)\b(?:maybe|perhaps|possibly|probably|might|may|could|i think|i believe|it seems|generally|usually|often)\b"
)
_BOILERPLATE = re.compile(
    r"(?i)\bas an ai\b|\blanguage model\b|\bi(?:'m| am) sorry\b|\bi cannot\b|\bsure[,!]|\bcertainly[,!]"
    r"|\bhope (?:this|that) helps\b|\blet me know\b|\bhere (?:is|are)\b"
)


def _variety(text: str) -> float:
    """Distinct words per square root of all words (Guiraud 1954): less bound to length than their plain ratio."""
    words = text.lower().split()
    return len(set(words)) / len(words) ** 0.5 if words else 0.0


# One number for a response.
SURFACE: dict[str, Callable[[str], float]] = {
    "words": lambda text: len(text.split()),
    "characters": len,
    "lexical_variety": _variety,
    "list_items": lambda text: len(_LIST.findall(text)),
    "hedges": lambda text: len(_HEDGES.findall(text)),
    "boilerplate": lambda text: len(_BOILERPLATE.findall(text)),
}


def length(pool: Dataset) -> np.ndarray:
    """(rows,) float64: words in the response, split at white space."""
    return surface(pool, "words")


def surface(pool: Dataset, feature: str) -> np.ndarray:
    """(rows,) float64: a feature of `SURFACE` of each response."""
    if feature not in SURFACE:
        raise UserError(f"scorer.feature={feature}: choose one of {', '.join(SURFACE)}")
    measure = SURFACE[feature]
    return np.fromiter((measure(text) for text in _stream(pool)), dtype=np.float64, count=len(pool))


def _stream(pool: Dataset):
    """The responses one chunk after the other: five million at once would be held as Python objects."""
    for start in range(0, len(pool), 50_000):
        yield from column(pool.select(range(start, min(start + 50_000, len(pool)))), "output")
