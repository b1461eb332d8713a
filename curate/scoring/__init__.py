"""Scores of a pool's rows, higher is better. Everything that needs PyTorch is imported when it is asked for."""

import zlib
from pathlib import Path

import numpy as np
from datasets import Dataset

from curate.config import ScorerConfig
from curate.errors import UserError
from curate.example import column
from curate.progress import Progress
from curate.scoring.cache import Scores
from curate.scoring.surface import length

__all__ = ["Scores", "score"]


def score(
    pool: Dataset,
    scorer: ScorerConfig,
    *,
    seed: int,
    cache: Path | None = None,
    reward_model: Path | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score every row by the config's kind.

    none: NaN. length: words in the response. random. oracle: 1 for clean rows and 0 for corrupted ones, by the ledger.
    reward_model: the model `scorer.model` (a folder with a reward.json, a Hugging Face folder or a hub id), else the
    folder `reward_model` that was trained for this run.
    """
    if scorer.kind == "reward_model":
        from curate.scoring.reward_model import score_folder, score_model

        name = scorer.model or reward_model
        if name is None:
            raise UserError("scorer.model=null: which reward model? set scorer.model to a folder or a model of the hub")
        if str(name).startswith(("/", ".", "~")) and not Path(name).is_dir():
            raise UserError(f"scorer.model={name}: no such folder; name a folder or a model of the hub")
        if (Path(name) / "reward.json").exists():
            return score_folder(Path(name), pool, features=scorer.features, cache=cache, progress=progress)
        return score_model(str(name), pool, template=scorer.template, cache=cache, progress=progress)
    if scorer.kind == "length":
        values = length(pool)
    elif scorer.kind == "random":
        values = np.random.default_rng([seed, zlib.crc32(b"score.random")]).random(len(pool))
    elif scorer.kind == "oracle":
        values = np.array([float(kind is None) for kind in column(pool, "noise_kind")])
    else:
        values = np.full(len(pool), np.nan)
    return Scores(values, 0.0, 0)
