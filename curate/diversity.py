"""How varied a set of rows is, in measures that may be compared between sets of different rows.

Shares of distinct words fall with the amount of text, so that every measure of text is taken on equally many words: the
first so many of the set in random order.
"""

import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from datasets import Dataset

from curate.example import column

MOST_WORDS = 50_000


def excerpt(pool: Dataset, field: str, order: np.ndarray, counts: np.ndarray, budget: int) -> list[str]:
    """The first `budget` words, in lower case, of a field of the rows `order`; `counts` (pool,) are words a row."""
    needed = int(np.searchsorted(np.cumsum(counts[order]), budget)) + 1
    texts = column(pool.select(order[:needed]), field)
    return [word for text in texts for word in text.lower().split()][:budget]


def text_measures(words: Sequence[str]) -> dict[str, float]:
    """distinct-1 and distinct-2: distinct words and word pairs as a share of all (Li et al. 2016, arXiv:1510.03055);
    zlib: bytes after compression as a share of those before, low for what repeats itself."""
    if len(words) < 2:
        return {}
    raw = " ".join(words).encode(errors="replace")
    return {
        "distinct-1": len(set(words)) / len(words),
        "distinct-2": len(set(pairwise(words))) / (len(words) - 1),
        "zlib": len(zlib.compress(raw, 6)) / len(raw),
    }


def entropy(groups: np.ndarray) -> float:
    """In bits, of the labels (rows,) int: 0 where all rows are of one category."""
    counts = np.bincount(groups)
    shares = counts[counts > 0] / len(groups)
    return float(max(0.0, -(shares * np.log2(shares)).sum()))


def spread(embeddings: np.ndarray) -> float:
    """Mean cosine distance of all pairs of rows of unit length; 0 for fewer than two. Exact, in linear time."""
    n = len(embeddings)
    if n < 2:
        return 0.0
    total = embeddings.sum(axis=0, dtype=np.float64)
    own = float(np.einsum("ij,ij->", embeddings, embeddings, dtype=np.float64))
    return float(1 - (total @ total - own) / (n * (n - 1)))
