"""Rows that a selection would drop, repaired instead: from the noise's own ledger, or by a teacher."""

from pathlib import Path

import numpy as np
from datasets import Dataset

from curate.config import RewriteConfig
from curate.example import column, replace
from curate.progress import Progress


def rewrite(
    pool: Dataset,
    flagged: np.ndarray,
    config: RewriteConfig,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """The pool with the responses of the rows `flagged` (indices) repaired; what they were is not kept.

    by ledger: a corrupted row gets the right answer back, a clean one stays as it is; so a scorer that flags well
    repairs much. by teacher: a language model writes all of them anew, and rows for which it fails stay as they are;
    the ledger goes on calling the corrupted ones so, since nobody knows whether the teacher is right. Its replies are
    kept in `cache`.
    """
    outputs, kinds, truth = (column(pool, name) for name in ("output", "noise_kind", "clean_output"))
    if config.by == "teacher":
        from curate.teacher import answers

        assert config.endpoint is not None  # checked with the config
        new = answers(pool.select(flagged), config.endpoint, cache=cache, progress=progress)
    else:
        new = [truth[row] for row in flagged.tolist()]
    for row, text in zip(flagged.tolist(), new, strict=True):
        if text is not None:
            outputs[row] = text
            if config.by == "ledger":
                kinds[row] = truth[row] = None
    return replace(pool, output=outputs, noise_kind=kinds, clean_output=truth)
