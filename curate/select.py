"""Which rows survive, given scores and a budget; the matched controls.

All draws depend on the seed and the kind alone and are nested: the random 100 are among the random 200.
"""

import warnings
import zlib

import numpy as np
from datasets import Dataset

from curate.errors import UserError
from curate.example import column, row_keys
from curate.reading import records
from curate.scoring.surface import length

USES_SEED = ("random", "random_length_matched", "clean", "diversity")
KINDS = (
    "all", "threshold", "top_k", "top_fraction", "band", "stratified", "diversity", "from_file",
    "random", "random_length_matched", "longest", "clean",
)  # fmt: skip
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
    low: float | None = None,
    high: float | None = None,
    floor: float | None = None,
    path: str | None = None,
    embeddings: np.ndarray | None = None,
) -> np.ndarray:
    """Indices of the rows to keep, ascending. Scores are (rows,), higher is better; NaN is never kept.

    all; threshold: score >= threshold; top_k and top_fraction: the k best, ties in pool order; band: scores between
    the quantiles low and high, both kept; stratified: the best of each category, as many as its share of the pool;
    diversity: k-centre greedy on `embeddings` (rows, width), among rows whose score reaches the quantile `floor` if
    one is given; from_file: the rows that the file `path` holds, of these k at random if k is given; random; longest:
    most words in the response; clean: random among the rows without noise; random_length_matched: random with the
    response lengths of the k best. k wins over fraction, which means round(fraction * n) rows, at least one.

    The matched control draws, for each number of words, as many rows as the k best have; lengths that fewer than ten
    rows share are taken together with their neighbours, else the control would be the treatment.

    Raises UserError if nothing would be kept or k rows are not there; warns if everything is or all scores are equal.
    """
    if kind not in KINDS:
        raise UserError(f"selection.kind={kind}: choose one of {', '.join(KINDS)}")
    n = len(pool)
    if kind == "all":
        return np.arange(n)
    if uses_scores(kind, floor):
        scores = _checked(scores, n, kind)
    if kind == "from_file":
        kept = _from_file(pool, str(path))
        if k is not None:
            rng = np.random.default_rng([seed, zlib.crc32(b"select.from_file")])
            kept = _first(rng.permutation(kept), k, kind)
    elif kind == "band":
        assert scores is not None
        if low is None or high is None or not np.isfinite(scores).any():
            raise UserError(f"selection.low={low} selection.high={high}: give two quantiles, and scores to cut")
        least, most = np.nanquantile(scores, [low, high])
        kept = np.flatnonzero((scores >= least) & (scores <= most))
    elif kind == "threshold":
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
        elif kind == "stratified":
            assert scores is not None
            kept = _stratified([str(name) for name in column(pool, "category")], scores, k)
        elif kind == "diversity":
            kept = _diverse(embeddings, scores, floor, k, rng)
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


def uses_scores(kind: str, floor: float | None = None) -> bool:
    """Whether a selection needs scores; diversity does if it has a quality floor."""
    scored = ("threshold", "top_k", "top_fraction", "band", "stratified", "random_length_matched")
    return kind in scored or (kind == "diversity" and floor is not None)


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
        what = {"clean": "clean rows", "from_file": "rows of the pool in that file"}.get(kind, "rows with a score")
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


def _stratified(categories: list[str], scores: np.ndarray, k: int) -> np.ndarray:
    """The best of each category, k in all, by largest remainder of the categories' shares, scores allowing."""
    best = _best(scores)
    _first(best, k, "stratified")  # are there so many
    names, group = np.unique(categories, return_inverse=True)
    there = np.bincount(group[best], minlength=len(names))
    quota = k * np.bincount(group) / len(group)
    take = np.minimum(np.floor(quota).astype(int), there)
    while take.sum() < k:  # what is left goes where most is owed and rows are still there
        take[np.argmax(np.where(take < there, quota - take, -np.inf))] += 1
    return np.concatenate([best[group[best] == at][:count] for at, count in enumerate(take)])


def _diverse(
    embeddings: np.ndarray | None, scores: np.ndarray | None, floor: float | None, k: int, rng: np.random.Generator
) -> np.ndarray:
    """k-centre greedy (Gonzalez 1985; Sener & Savarese 2018, arXiv:1708.00489): the next row is the one farthest from
    all that are kept. Starts from the best row, without scores from a random one."""
    if embeddings is None:
        raise UserError("selection.kind=diversity: needs embeddings of the rows; give them")
    rows = np.arange(len(embeddings))
    if floor is not None:
        assert scores is not None
        rows = rows[scores >= np.nanquantile(scores, floor)]
    if len(rows) < k:
        raise UserError(f"selection.floor={floor}: {len(rows)} rows reach it; lower it, or selection.k={k}")
    points = np.ascontiguousarray(embeddings[rows], dtype=np.float32)
    at = int(np.argmax(scores[rows])) if floor is not None and scores is not None else int(rng.integers(len(rows)))
    chosen, closest = [at], points @ points[at]
    while len(chosen) < k:
        closest[at] = np.inf  # never twice
        at = int(np.argmin(closest))
        chosen.append(at)
        np.maximum(closest, points @ points[at], out=closest)
    return rows[chosen]


def _from_file(pool: Dataset, path: str) -> np.ndarray:
    """The rows of the pool that the file holds, by what they say; the file may know a row by its id alone."""
    known = {key for _, row in records(path, "selection.path") for key in row_keys(row)}
    kept = np.flatnonzero([row in known for row in column(pool, "id")])
    if len(kept) == 0:
        raise UserError(f"selection.path={path}: holds no row of the pool; is it a selection of these data?")
    return kept
