"""The mean rank under several scorers: no scale of theirs matters."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset
from scipy.stats import rankdata

from curate.config import ScorerConfig
from curate.progress import Progress
from curate.scoring.cache import Scores

if TYPE_CHECKING:
    from curate.scoring import Models


def ensemble(
    pool: Dataset,
    scorer: ScorerConfig,
    *,
    seed: int,
    template: Mapping[str, str] | None,
    cache: Path | None,
    models: "Models",
    progress: Progress | None,
) -> Scores:
    """(rows,) in (0, 1]: mean over `scorer.members` of a row's rank among the rows that all of them could score.

    Ties share their mean rank. A row that any member has no score for has none.
    """
    from curate.scoring import score

    parts = [
        score(pool, member, seed=seed, template=template, cache=cache, models=models, progress=progress)
        for member in scorer.members or ()
    ]
    known = np.all([~np.isnan(part.values) for part in parts], axis=0)
    values = np.full(len(pool), np.nan)
    values[known] = np.mean([rankdata(part.values[known]) for part in parts], axis=0) / max(1, known.sum())
    return Scores(
        values,
        seconds=sum(part.seconds for part in parts),
        computed=max(part.computed for part in parts),
        reasons={row: reason for part in parts for row, reason in part.reasons.items()},
        tokens=sum(part.tokens for part in parts),
        dollars=sum(part.dollars for part in parts),
    )
