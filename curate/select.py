"""Which rows survive, given scores and a budget; the matched controls.

All draws depend on the seed and the kind alone and are nested: the random 100 are among the random 200.
"""

import warnings
import zlib

import numpy as np
from datasets import Dataset

from curate.errors import UserError
from curate.example import column
from curate.scoring.surface import length

USES_SCORES = ("threshold", "top_k", "top_fraction", "random_length_matched")
USES_SEED = ("random", "random_length_matched", "clean")
KINDS = ("all", "threshold", "top_k", "top_fraction", "random", "random_length_matched", "longest", "clean")
_BIN = 10  # rows that a length bin of the matched control holds at least


def select(
    pool: Dataset,
    *,
    kind: str,
    seed: int,
    scores: np.ndarray | None = None,
    k: int | None = None,
    fraction: float | None = None,
    threshold: float | None = None,
) -> np.ndarray:
    """Indices of the rows to keep, ascending. Scores are (rows,), higher is better; NaN is never kept.

    all; threshold: score >= threshold; top_k and top_fraction: the k best, ties in pool order; random; longest: most
    words in the response; clean: random among the rows without noise; random_length_matched: random with the response
    lengths of the k best. k wins over fraction, which means round(fraction * n) rows, at least one.

    The matched control draws, for each number of words, as many rows as the k best have; lengths that fewer than ten
    rows share are taken together with their neighbours, else the control would be the treatment.

    Raises UserError if nothing would be kept or k rows are not there; warns if everything is or all scores are equal.
    """
    if kind not in KINDS:
        raise UserError(f"selection.kind={kind}: choose one of {', '.join(KINDS)}")
    n = len(pool)
    if kind == "all":
        return np.arange(n)
    if kind in USES_SCORES:
        scores = _checked(scores, n, kind)
    if kind == "threshold":
        if threshold is None:
            raise UserError("selection.threshold=null: set it, for example selection.threshold=1.5")
        assert scores is not None
        kept = np.flatnonzero(scores >= threshold)
        if len(kept) == 0:
            best = f"the best score is {np.nanmax(scores):.4g}" if np.isfinite(scores).any() else "no row has a score"
            raise UserError(f"selection.threshold={threshold:g}: keeps none of {n} rows ({best}); lower it")
    else:
        k = _size(n, kind, k, fraction)
        rng = np.random.default_rng([seed, zlib.crc32(f"select.{kind}".encode())])
        if kind in ("top_k", "top_fraction"):
            assert scores is not None
            kept = _first(_best(scores), k, kind)
        elif kind == "random":
            kept = rng.permutation(n)[:k]
        elif kind == "longest":
            kept = _best(length(pool))[:k]
        elif kind == "clean":
            dirty = np.array([noise is not None for noise in column(pool, "noise_kind")])
            order = rng.permutation(n)
            kept = _first(order[~dirty[order]], k, kind)
        else:
            assert scores is not None
            kept = _length_matched(length(pool), _first(_best(scores), k, kind), rng)
    if len(kept) == n:
        warnings.warn(f"selection.kind={kind} keeps all {n} rows: nothing was selected", stacklevel=2)
    return np.sort(kept)


def _checked(scores: np.ndarray | None, n: int, kind: str) -> np.ndarray:
    if scores is None:
        raise UserError(f"selection.kind={kind}: needs scores; choose a scorer, for example scorer=length")
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (n,):
        raise ValueError(f"scores have shape {scores.shape}, the pool has {n} rows")
    known = scores[~np.isnan(scores)]
    if n > 1 and len(known) and known.min() == known.max():
        warnings.warn(
            f"all scores equal {known[0]:g}: selection.kind={kind} goes by the order of the rows", stacklevel=3
        )
    return scores


def _size(n: int, kind: str, k: int | None, fraction: float | None) -> int:
    if k is None and fraction is None:
        raise UserError(f"selection.k=null: how many rows should {kind} keep? set selection.k=1000")
    if k is None:
        assert fraction is not None
        if not 0 < fraction <= 1:
            raise UserError(f"selection.fraction={fraction}: choose a share of the rows in (0, 1]")
        return max(1, round(fraction * n))
    if not 1 <= k <= n:
        raise UserError(f"selection.k={k}: the pool has {n} rows; choose 1 to {n}")
    return k


def _best(scores: np.ndarray) -> np.ndarray:
    """Rows by falling score, ties in pool order, without those that have none."""
    order = np.argsort(-scores, kind="stable")
    return order[~np.isnan(scores[order])]


def _first(rows: np.ndarray, k: int, kind: str) -> np.ndarray:
    if len(rows) < k:
        what = "clean rows" if kind == "clean" else "rows with a score"
        raise UserError(f"selection.k={k}: there are {len(rows)} {what}; choose at most that many")
    return rows[:k]


def _length_matched(words: np.ndarray, best: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    counts, rows = np.unique(words, return_counts=True)
    bins, held = np.zeros(len(counts), dtype=int), 0
    for at in range(1, len(counts)):
        held += rows[at - 1]
        full = held >= _BIN and rows[at:].sum() >= _BIN  # what is left must fill a bin too
        bins[at] = bins[at - 1] + full
        held = 0 if full else held
    group = bins[np.searchsorted(counts, words)]
    wanted = np.bincount(group[best], minlength=group.max() + 1)
    order = rng.permutation(len(words))
    return np.concatenate([order[group[order] == at][:take] for at, take in enumerate(wanted)])
