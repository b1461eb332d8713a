"""Rows that say what another row, or an evaluation suite, says already (Lee et al. 2022, arXiv:2107.06499).

Similarity is the Jaccard similarity of the sets of word 3-grams. MinHash signatures in bands only propose pairs; every
removal is decided by the similarity itself. Rows are read in portions: of a pool of n rows, n * (bands + 1) hashes of
8 bytes are held, and the 3-grams of the kept rows that share a band with another one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as pc
from datasets import Dataset

from curate.errors import UserError
from curate.example import column
from curate.layouts import ALIASES, fields_of
from curate.reading import records
from curate.shingles import band_keys, banding, jaccard, ngrams, text_keys, words_of

SHINGLE = 3  # words
FIELDS = {"prompt+response": ("instruction", "input", "output"), "prompt": ("instruction", "input")}
_CHUNK = 20_000  # rows whose texts are in work at a time
_HELD = 32  # kept rows of a band with which a new one is compared: the work stays linear if thousands share a band
_START = 60  # characters of an evaluation prompt that a reason quotes
_PROMPTS = ("instruction", "prompt", "question", "text")  # what evaluation files call a question
_NESTED = ("instances", "examples")  # and their lists of questions: Self-Instruct's, BIG-Bench-Hard's


@dataclass(frozen=True)
class Removed:
    """A row of the pool that should go, the row `of` that stays in its place (None: none does), and why."""

    row: int
    of: int | None
    why: str
    similarity: float


def near_duplicates(
    pool: Dataset, *, threshold: float = 0.8, by: str = "prompt+response", seed: int = 0
) -> list[Removed]:
    """Rows whose text is that of an earlier row that stays, or has at least this Jaccard similarity to it; in order.

    Texts that differ in case and white space alone are exact duplicates. Of other pairs at the threshold about 95 %
    are found, more the more similar they are; none is removed that is less similar.
    """
    if by not in FIELDS:
        raise UserError(f"dedup.by={by}: choose one of {', '.join(FIELDS)}")
    n, bands = len(pool), banding(threshold)[0]
    keys, buckets = np.empty(n, np.uint64), np.empty((bands, n), np.uint64)
    for rows, texts in _texts(pool, FIELDS[by]):
        words = words_of(texts)
        keys[rows] = text_keys(words)
        buckets[:, rows] = band_keys(ngrams(words, SHINGLE), threshold, seed)
    first = _first_of_equal(keys)
    fresh = first == np.arange(n)
    near = {one.row: one for one in _similar(pool, FIELDS[by], _shared(buckets, fresh), threshold)}
    removed = list(near.values())
    for row in np.flatnonzero(~fresh).tolist():
        of = int(first[row])
        # where the first of equals goes, what it is near to stands for them all
        removed.append(replace(near[of], row=row) if of in near else Removed(row, of, "exact duplicate", 1.0))
    return sorted(removed, key=lambda one: one.row)


def decontaminate(
    pool: Dataset, texts: Mapping[str, Sequence[str]], *, ngram: int = 13, threshold: float = 0.8, seed: int = 0
) -> list[Removed]:
    """Rows whose prompt (instruction and input) stands in an evaluation suite; `texts` are the prompts by suite.

    It does if it is the same, shares `ngram` words in a row (Brown et al. 2020, arXiv:2005.14165, appendix C), or has
    at least this Jaccard similarity to one; of the last about 95 % are found at the threshold, more above. Case and
    punctuation do not count. Of several prompts, the one named first, or the most similar, is the reason.
    """
    prompts = [(suite, prompt) for suite, some in texts.items() for prompt in some]
    if not prompts:
        return []
    theirs = words_of(pyarrow.array([prompt for _, prompt in prompts], pyarrow.large_string()), punctuation=False)
    shingles = ngrams(theirs, SHINGLE)
    same, same_owner = np.unique(text_keys(theirs), return_index=True)
    grams = ngrams(theirs, ngram)
    long, place = np.unique(grams.flat, return_index=True)
    long_owner = np.searchsorted(grams.starts, place, side="right") - 1
    bands = [np.unique(keys, return_inverse=True) for keys in band_keys(shingles, threshold, seed)]
    members = [_members(inverse) for _, inverse in bands]
    removed: list[Removed] = []
    for rows, chunk in _texts(pool, FIELDS["prompt"]):
        words = words_of(chunk, punctuation=False)
        mine, some = ngrams(words, SHINGLE), ngrams(words, ngram)
        worded = np.diff(words.starts) > 0
        whole = np.where(worded, _owners(text_keys(words), same, same_owner), -1)
        shared = _least(_owners(some.flat, long, long_owner), some.starts)
        near: dict[int, set[int]] = {}
        for (known, _), inside, keys in zip(bands, members, band_keys(mine, threshold, seed), strict=True):
            found = _owners(keys, known, np.arange(len(known)))
            for row in np.flatnonzero((found >= 0) & worded & (whole < 0) & (shared < 0)).tolist():
                near.setdefault(row, set()).update(inside[found[row]])
        for row in np.flatnonzero((whole >= 0) | (shared >= 0)).tolist():
            at = int(whole[row] if whole[row] >= 0 else shared[row])
            what = "same prompt as" if whole[row] >= 0 else f"shares {ngram} words in a row with"
            similarity = jaccard(mine.distinct(row), shingles.distinct(at))
            removed.append(Removed(rows.start + row, None, f"{what} {_named(prompts[at])}", similarity))
        for row, candidates in near.items():
            own = mine.distinct(row)
            similarity, at = max((jaccard(own, shingles.distinct(one)), -one) for one in candidates)
            if similarity >= threshold:
                why = f"near-duplicate (Jaccard {similarity:.2f}) of {_named(prompts[-at])}"
                removed.append(Removed(rows.start + row, None, why, similarity))
    return sorted(removed, key=lambda one: one.row)


def as_rows(pool: Dataset, removed: Sequence[Removed]) -> list[dict[str, Any]]:
    """What was removed and why: id, kept_id (None if nothing was kept in its place), similarity, why."""
    ids = column(pool.select([one.row for one in removed]), "id")
    kept = iter(column(pool.select([one.of for one in removed if one.of is not None]), "id"))
    return [
        {"id": id_, "kept_id": None if one.of is None else next(kept), "similarity": one.similarity, "why": one.why}
        for id_, one in zip(ids, removed, strict=True)
    ]


def suite_prompts(paths: Sequence[str]) -> dict[str, list[str]]:
    """The prompts of evaluation files or hub data sets (`curate.reading.records`), instruction and input together.

    Questions may be called instruction, prompt, question or text, or stand in a conversation; Self-Instruct's
    `instances` and BIG-Bench-Hard's `examples` are unfolded. Raises UserError for a row without a question: a suite
    that is read in part would let its other questions pass.
    """
    found: dict[str, list[str]] = {}
    for path in paths:
        mine = found.setdefault(str(path), [])
        for line, row in records(path, "decontaminate.paths"):
            try:
                mine += _prompts(row)
            except ValueError as error:
                raise UserError(f"decontaminate.paths={path}: line {line}: {error}; mend or remove it") from None
        if not mine:
            raise UserError(f"decontaminate.paths={path}: holds no prompt; name an evaluation file")
    return found


def _prompts(row: Any) -> list[str]:
    if not isinstance(row, dict):
        return [fields_of(row, ALIASES)["instruction"] or ""]  # raises and says what is wrong
    row = {str(name).lower(): value for name, value in row.items()}
    for name in _NESTED:
        if isinstance(row.get(name), list) and any(isinstance(one, dict) for one in row[name]):
            return [text for one in row[name] if isinstance(one, dict) for text in _prompts({**row, name: None, **one})]
    parts = [next((row[name] for name in _PROMPTS if isinstance(row.get(name), str)), ""), row.get("input")]
    text = "\n".join(part for part in parts if isinstance(part, str) and part.strip())
    if not text:
        values = fields_of(row, ALIASES)  # a conversation
        text = f"{values['instruction']}\n{values['input']}"
    return [text]


def _named(prompt: tuple[str, str]) -> str:
    return f"{prompt[0]}: {prompt[1][:_START]!r}"


# --- portions of a pool -----------------------------------------------------------------------------------------------


def _texts(
    pool: Dataset, fields: Sequence[str], some: np.ndarray | None = None
) -> Iterator[tuple[slice, pyarrow.Array]]:
    """(rows, their texts) from one portion to the next; with `some` (rows, ascending), texts of those alone."""
    arrow = pool.select_columns(list(fields)).with_format("arrow")
    for start in range(0, len(pool), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(pool)))
        if some is not None:
            inside = some[np.searchsorted(some, rows.start) : np.searchsorted(some, rows.stop)]
            if len(inside) == 0:
                continue
        table = arrow[rows]
        if some is not None:
            table = table.take(inside - start)
        columns = [table[name].combine_chunks().cast(pyarrow.large_string()) for name in fields]
        yield rows, pc.binary_join_element_wise(*columns, pyarrow.scalar("\n", pyarrow.large_string()))


def _first_of_equal(keys: np.ndarray) -> np.ndarray:
    """For every entry, the first one that equals it."""
    order = np.argsort(keys, kind="stable")
    new = np.ones(len(keys), bool)
    new[1:] = keys[order[1:]] != keys[order[:-1]]
    first = np.empty(len(keys), np.int64)
    first[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(keys)), 0))]
    return first


def _shared(buckets: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """The bands' keys, in place, as numbers of buckets (bands, rows) int64; -1 where no other fresh row agrees."""
    numbers, used = buckets.view(np.int64), 0
    rows = np.flatnonzero(fresh)
    for band in range(len(buckets)):
        _, number, count = np.unique(buckets[band, rows], return_inverse=True, return_counts=True)
        numbers[band] = -1
        numbers[band, rows] = np.where(count[number] > 1, number + used, -1)
        used += len(count)
    return numbers


def _similar(pool: Dataset, fields: Sequence[str], buckets: np.ndarray, threshold: float) -> Iterator[Removed]:
    """In pool order, each row that is as similar to one that stays; the first such one is its `of`."""
    some = np.flatnonzero((buckets >= 0).any(0))
    inside: dict[int, list[int]] = {}  # bucket -> rows that stay
    shingles: dict[int, np.ndarray] = {}  # of those
    for rows, texts in _texts(pool, fields, some):
        hashed = ngrams(words_of(texts), SHINGLE)
        for at, row in enumerate(some[np.searchsorted(some, rows.start) : np.searchsorted(some, rows.stop)].tolist()):
            mine = hashed.distinct(at)
            places = [bucket for bucket in buckets[:, row].tolist() if bucket >= 0]
            for other in sorted({other for bucket in places for other in inside.get(bucket, ())}):
                theirs = shingles[other]
                if min(len(mine), len(theirs)) < threshold * max(len(mine), len(theirs)):
                    continue  # cannot be so similar
                similarity = jaccard(mine, theirs)
                if similarity >= threshold:
                    yield Removed(row, other, f"near-duplicate (Jaccard {similarity:.2f})", similarity)
                    break
            else:
                shingles[row] = mine
                for bucket in places:
                    held = inside.setdefault(bucket, [])
                    if len(held) < _HELD:
                        held.append(row)


# --- look-ups ---------------------------------------------------------------------------------------------------------


def _owners(keys: np.ndarray, known: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """For each key what belongs to its equal in `known` (sorted, not empty); -1 where there is none."""
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[at] == keys, owners[at], -1)


def _least(owners: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The least owner from 0 on among each text's, -1 where there is none."""
    least = np.full(len(starts) - 1, -1)
    text = np.searchsorted(starts, np.flatnonzero(owners >= 0), side="right") - 1
    for at, owner in zip(text.tolist(), owners[owners >= 0].tolist(), strict=True):
        least[at] = owner if least[at] < 0 else min(least[at], owner)
    return least


def _members(inverse: np.ndarray) -> list[list[int]]:
    members: list[list[int]] = [[] for _ in range(inverse.max(initial=-1) + 1)]
    for at, group in enumerate(inverse.tolist()):
        members[group].append(at)
    return members
