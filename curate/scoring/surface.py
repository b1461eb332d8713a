"""Scores that need no model."""

import numpy as np
from datasets import Dataset

from curate.example import column


def length(pool: Dataset) -> np.ndarray:
    """(rows,) float64: words in the response, split at white space."""
    return np.array([len(text.split()) for text in column(pool, "output")], dtype=np.float64)
