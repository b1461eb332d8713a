"""From pool to subset: noise, scores, selection, duplication; what is trained on, and how it came to be."""

import csv
import io
import json
import time
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from curate import UserError, microworld
from curate.config import DataConfig
from curate.duplicate import duplicate
from curate.example import column, digest, load_pool, make_pool, pool_hash, render
from curate.noise import corrupt
from curate.preferences import read_preferences
from curate.rewrite import rewrite
from curate.scoring import Models, score
from curate.select import select
from curate.text import load_stories
from train.batches import Row

from . import prepare
from .account import account
from .asked import suites_of, without_asked
from .config import Config, located, scores_are_used, trains_reward_model

SAID = ("instruction", "input", "output")
WORLD_ROWS = 4096  # of the embedded world, where data.rows says nothing


@dataclass
class Subset:
    """What is trained on, and how it came to be."""

    rows: Dataset
    facts: dict[str, Any]  # the record's `data`
    cost: dict[str, float]
    account: dict[str, Any]  # what selection.json says


def curate_subset(config: Config) -> Subset:
    """Pool to subset: noise, scores, selection, duplication; with the facts and costs that the record keeps."""
    pool, set_aside = clean_pool(config)
    noisy = corrupt(pool, kind=config.noise.kind, rate=config.noise.rate, seed=config.seed.data)
    cost = {"score_s": 0.0, "scorer_train_s": 0.0}
    facts: dict[str, Any] = {"scorer_auroc": None, "reward_model": None, "unscored": 0}
    scores = None
    if scores_are_used(config):
        scores = _scores(config, noisy, facts, cost)
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        options = {**config.selection.model_dump(exclude={"encoder"}), "embeddings": _embeddings(config, noisy)}
        options["path"] = located(config, config.selection.path) if config.selection.path else None
        chosen = select(noisy, seed=config.seed.select, scores=scores, **options)
    kept = noisy.select(chosen)
    if config.rewrite.by != "none":
        dropped = np.setdiff1d(np.arange(len(noisy)), chosen)
        kept = rewrite(noisy, dropped, config.rewrite, cache=Path(config.store.root) / "cache")
    rows = duplicate(
        kept, seed=config.seed.select, templates=config.data.paraphrases, **config.duplication.model_dump()
    )
    cost["select_s"] = time.perf_counter() - started
    clean = [kind is None for kind in column(noisy, "noise_kind")]
    kept_clean = [kind is None for kind in column(rows, "noise_kind")]
    copies = [of is not None for of in column(rows, "duplicate_of")]
    facts |= {
        "pool_rows": len(pool),
        "rows": len(rows),
        "unique_rows": len(rows) - sum(copies),
        "noise_rate": 1 - float(np.mean(clean)),
        "subset_noise_rate": 1 - float(np.mean(kept_clean)),
        "kept_clean": sum(clean[i] for i in chosen) / max(1, sum(clean)),
        "duplicate_share": float(np.mean(copies)),
        "response_words": float(np.mean([len(o.split()) for o in column(rows, "output")])),
        "subset_hash": pool_hash(rows),
        "set_aside": set_aside,
        "warnings": sorted({str(w.message) for w in said if w.category is UserWarning}),
    }
    return Subset(rows, facts, cost, account(noisy, chosen, rows, config.seed.data))


def clean_pool(config: Config) -> tuple[Dataset, int]:
    """The pool of this data seed and how many bad rows were set aside; `data.rows` of the file, drawn by the seed.

    With `data.drop_asked` the file's rows whose prompts a suite asks are no part of it.
    """
    data = config.data
    if data.name == "microworld":
        return world_pool(config.seed.world, data.rows or WORLD_ROWS, config.seed.data, data.facts, data.styles), 0
    if data.name == "world_text":
        return _world_text(data, config.seed.world, config.seed.data), 0
    assert data.path  # checked with the config
    if data.name == "text":
        stories = load_stories(data.path, data.max_bad_share)
        pool, set_aside = stories.pool, len(stories.bad) + stories.near
    else:
        pool, set_aside = _of_file(config)
        if data.drop_asked:
            pool = without_asked(pool, suites_of(config))
    if data.rows is None:
        return pool, set_aside
    if data.rows > len(pool):
        raise UserError(f"data.rows: {data.rows} is more than the {len(pool)} rows of {data.path}; give fewer")
    rng = np.random.default_rng([config.seed.data, zlib.crc32(b"pool rows")])
    return pool.select(np.sort(rng.choice(len(pool), data.rows, replace=False))), set_aside


def check_sources(configs: Iterable[Config]) -> None:
    """Read each file of rows, of pairs and of suites once, so that what is wrong with one is found before all else.

    Raises UserError for a file that cannot be read or holds too many bad rows.
    """
    for config in {_sources(config): config for config in configs}.values():
        data = config.data
        if data.name == "text":
            load_stories(str(data.path), data.max_bad_share)
        elif data.path:
            _of_file(config)
        if trains_reward_model(config):
            prepare.preference_pairs(config)
        suites_of(config)


def _sources(config: Config) -> str:
    """What `check_sources` reads for this config."""
    data = config.data.model_dump(mode="json", exclude={"rows", "drop_asked"})
    reward = [trains_reward_model(config), config.model.reward.unescape]
    return json.dumps([data, config.evaluation.model_dump(mode="json"), config.seed.world, reward], sort_keys=True)


def _of_file(config: Config) -> tuple[Dataset, int]:
    data = config.data
    path = located(config, str(data.path))
    if data.name == "preferences":
        return _preferred(path, str(data.side), data.max_length_ratio), 0
    loaded = _file_pool(path, data.max_bad_share, json.dumps(data.fields))
    return loaded.pool, len(loaded.bad)


@lru_cache(maxsize=4)
def _preferred(path: str, side: str, ratio: float | None) -> Dataset:
    """One side of a file of preference pairs, in its order: the rows of both sides have the same prompts.

    Pairs whose responses are equal tell nothing and are left out; so are, with `ratio`, those where one response has
    more than so many times the words of the other.
    """
    pairs = [pair for pair in read_preferences(path, "data.path", unescape=True) if pair.chosen != pair.rejected]
    if ratio is not None:
        words = [sorted((len(pair.chosen.split()), len(pair.rejected.split()))) for pair in pairs]
        pairs = [pair for pair, (fewer, more) in zip(pairs, words, strict=True) if more <= ratio * fewer]
    if not pairs:
        raise UserError(f"data.path={path}: no pair of different responses is left; raise data.max_length_ratio")
    rows = [{"instruction": p.instruction, "input": p.input, "output": getattr(p, side)} for p in pairs]
    return make_pool(rows, Path(path).stem)


@lru_cache(maxsize=8)
def world_pool(world: int, rows: int, seed: int, facts: str, styles: bool) -> Dataset:
    return microworld.build_pool(microworld.build_world(world), rows, seed, facts, styles)


def _world_text(data: DataConfig, world: int, seed: int) -> Dataset:
    assert data.rows is not None
    assert data.entities is not None
    assert data.wrong_share is not None
    assert data.words is not None
    told = {"entities": data.entities, "wrong_share": data.wrong_share, "words": data.words}
    return microworld.prose(microworld.build_world(world), data.rows, seed, **told)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _file_pool(path: str, max_bad_share: float, fields: str):
    return load_pool(path, max_bad_share=max_bad_share, fields=json.loads(fields))


def _scores(config: Config, pool: Dataset, facts: dict[str, Any], cost: dict[str, float]) -> np.ndarray:
    folder = None
    if trains_reward_model(config):
        folder = prepare.build_reward(config)
        card = json.loads((folder / "reward.json").read_text())
        facts["reward_model"] = card["pairwise_accuracy"]
        cost["scorer_train_s"] = card["train_s"]
    cache = Path(config.store.root) / "cache"
    base = prepare.build_base(config)
    models = Models(reward=folder, causal=base, encoder=base if config.model.kind == "micro" else None)
    found = score(
        pool, config.scorer, seed=config.seed.select, template=config.data.template, cache=cache, models=models
    )
    cost |= {"score_s": found.seconds, "score_tokens": found.tokens, "score_dollars": found.dollars}
    facts["unscored"] = len(found.reasons)
    facts["scorer_auroc"] = auroc(found.values, column(pool, "noise_kind"))
    return found.values


def _embeddings(config: Config, pool: Dataset) -> np.ndarray | None:
    """What a selection for diversity measures distances by: the encoder it names, or the world's base model."""
    if config.selection.kind != "diversity":
        return None
    from curate.scoring.embedding import embed, row_texts

    base = prepare.build_base(config) if config.model.kind == "micro" else None
    return embed(row_texts(pool), config.selection.encoder or base, cache=Path(config.store.root) / "cache")


def manifest(rows: Dataset) -> str:
    """What a run's `subset.csv` says: which rows these are, in order, without what they say.

    Columns: `id`, the row's in its pool; `hash`, `curate.example.digest` of instruction, input, output and, where
    there are any, the turns before, as they are trained on. Without turns, a row that nothing was done to has its
    hash as its id unless the file gave it one of its own.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "hash"))
    for row_id, turns, *said in zip(*(column(rows, name) for name in ("id", "turns", *SAID)), strict=True):
        writer.writerow((row_id, digest(*said, *([turns] if turns else []))))
    return text.getvalue()


def auroc(scores: np.ndarray, kinds: list[str | None]) -> dict[str, float] | None:
    """How well scores tell clean rows from each kind of noise, and from all: P(clean scores higher), ties half."""
    from scipy.stats import mannwhitneyu

    clean = np.array([k is None for k in kinds])
    known = np.isfinite(scores)
    if not (clean & known).any():
        return None
    found = {}
    for name in [*sorted({k for k in kinds if k is not None}), "all"]:
        noisy = ~clean if name == "all" else np.array([k == name for k in kinds])
        if (noisy & known).any():
            a, b = scores[clean & known], scores[noisy & known]
            found[name] = float(mannwhitneyu(a, b).statistic / (len(a) * len(b)))
    return found or None


def training_rows(config: Config, rows: Dataset) -> list[Row]:
    """Rendered prompts with their responses."""
    columns = (column(rows, name) for name in ("instruction", "input", "output"))
    return [Row(render(config.data.template, i, x), o) for i, x, o in zip(*columns, strict=True)]
