"""Scores of a pool's rows, higher is better. Everything that needs PyTorch is imported when it is asked for."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset

from curate.config import ScorerConfig
from curate.errors import UserError
from curate.example import column
from curate.progress import Progress
from curate.scoring.cache import Scores
from curate.scoring.surface import length, surface

__all__ = ["Models", "Scores", "score"]


@dataclass(frozen=True)
class Models:
    """Folders of the models to score with where the config names none: made for this run, say."""

    reward: Path | None = None
    causal: Path | None = None  # for ifd and perplexity
    encoder: Path | None = None  # for embeddings; None: all-MiniLM-L6-v2


def score(
    pool: Dataset,
    scorer: ScorerConfig,
    *,
    seed: int,
    template: Mapping[str, str] | None = None,
    cache: Path | None = None,
    models: Models = Models(),
    known: Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score every row by the config's kind; a row without a score is NaN, and says why in `reasons`.

    none: NaN. length: words in the response. surface: another feature of the text. random. oracle: 1 for clean rows and
    0 for corrupted ones, by the ledger. reward_model: a folder with a reward.json, a Hugging Face folder or a hub id.
    judge: a language model's grade from 1 to 5. ifd, perplexity: by a causal LM. embedding: distance to the nearest
    neighbours, or closeness to a target set. ensemble: the mean rank under its members. own: the user's function.

    `template` renders prompts for ifd and perplexity. `known` scores by row id are taken as they are.
    """
    kind = scorer.kind
    if kind == "reward_model":
        from curate.scoring.reward_model import score_folder, score_model

        name = _existing(scorer.model or models.reward, "reward model")
        if (Path(name) / "reward.json").exists():
            return score_folder(Path(name), pool, features=scorer.features, cache=cache, progress=progress)
        return score_model(name, pool, template=scorer.template, dtype=scorer.dtype, cache=cache, progress=progress)
    if kind in ("ifd", "perplexity"):
        from curate.scoring.ifd import ifd, perplexity

        name = _existing(scorer.model or models.causal, "causal language model")
        measure = ifd if kind == "ifd" else perplexity
        return measure(pool, name, scorer, template=template, cache=cache, progress=progress)
    if kind == "embedding":
        from curate.scoring.embedding import closeness

        return closeness(pool, scorer, encoder=scorer.model or models.encoder, cache=cache, progress=progress)
    if kind == "judge":
        from curate.scoring.judge import judge

        assert scorer.endpoint is not None  # checked with the config
        return judge(pool, scorer.endpoint, cache=cache, known=known, progress=progress)
    if kind == "ensemble":
        from curate.scoring.ensemble import ensemble

        return ensemble(pool, scorer, seed=seed, template=template, cache=cache, models=models, progress=progress)
    if kind == "own":
        from curate.scoring.own import own

        return own(pool, scorer, cache=cache, progress=progress)
    if kind == "length":
        values = length(pool)
    elif kind == "surface":
        values = surface(pool, scorer.feature)
    elif kind == "random":
        values = np.random.default_rng([seed, zlib.crc32(b"score.random")]).random(len(pool))
    elif kind == "oracle":
        values = np.array([float(noise is None) for noise in column(pool, "noise_kind")])
    else:
        values = np.full(len(pool), np.nan)
    return Scores(values, 0.0, 0)


def _existing(model: str | Path | None, what: str) -> str:
    if model is None:
        raise UserError(f"scorer.model=null: which {what}? set scorer.model to a folder or a model of the hub")
    if str(model).startswith(("/", ".", "~")) and not Path(model).is_dir():
        raise UserError(f"scorer.model={model}: no such folder; name a folder or a model of the hub")
    return str(model)
