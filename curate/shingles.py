"""Texts as sets of hashed word n-grams, and their MinHash signatures cut into bands, for many texts at once.

A text is its words: lower case, split at white space; what is written without spaces is split into characters. Its
n-grams are all runs of n words; a text of fewer words has one, itself. From the words on everything is a 64-bit hash in
flat arrays, so that millions of texts cost no Python object each.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow
import pyarrow.compute as pc
from pandas.util import hash_array
from rensa import RMinHash

from curate.errors import UserError

PERMUTATIONS = 128
_RECALL = 0.95  # of the pairs that are just as similar as asked for, this share is to meet in some band
_AT_ONCE = 2_000  # texts whose signatures are Python integers at a time
_UNSPACED = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that a product modulo 2**64 loses nothing


@dataclass(frozen=True)
class Hashes:
    """Those of text i are `flat[starts[i] : starts[i + 1]]` (uint64); `starts` is one longer than there are texts."""

    flat: np.ndarray
    starts: np.ndarray

    def distinct(self, text: int) -> np.ndarray:
        """Of one text, sorted."""
        return np.unique(self.flat[self.starts[text] : self.starts[text + 1]])


def words_of(texts: pyarrow.Array, *, punctuation: bool = True) -> Hashes:
    """The words of each text, in order; without `punctuation`, letters and digits alone."""
    texts = pc.utf8_lower(texts)
    if pc.any(pc.match_substring_regex(texts, _UNSPACED)).as_py():
        texts = pc.replace_substring_regex(texts, _UNSPACED, r" \1 ")
    if not punctuation:
        texts = pc.replace_substring_regex(texts, r"[^\p{L}\p{M}\p{N}]+", " ")
    texts = pc.utf8_trim_whitespace(texts)
    split = pc.utf8_split_whitespace(pc.if_else(pc.equal(texts, ""), None, texts))  # "" would have the word ""
    words = split.values.dictionary_encode()
    hashed = hash_array(np.array(words.dictionary.to_pylist(), dtype=object), categorize=False)
    return Hashes(hashed[words.indices.to_numpy()], split.offsets.to_numpy().astype(np.int64))


def text_keys(words: Hashes) -> np.ndarray:
    """(texts,) uint64: equal for texts of the same words in the same order."""
    lengths = np.diff(words.starts)
    powers = np.cumprod(np.full(max(1, lengths.max(initial=0)), _FACTOR))
    place = np.arange(len(words.flat)) - np.repeat(words.starts[:-1], lengths)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(words.flat * powers[place])])
    return sums[words.starts[1:]] - sums[words.starts[:-1]]


def ngrams(words: Hashes, n: int) -> Hashes:
    """All runs of n words of each text; of a text of fewer words, the text itself."""
    lengths = np.diff(words.starts)
    counts = np.where(lengths >= n, lengths - n + 1, np.minimum(lengths, 1))
    starts = np.concatenate([[0], np.cumsum(counts)])
    place = np.arange(starts[-1]) + np.repeat(words.starts[:-1] - starts[:-1], counts)
    end = np.repeat(words.starts[1:], counts)
    flat = np.zeros(starts[-1], np.uint64)
    for step in range(min(n, lengths.max(initial=0))):
        at = place + step
        inside = at < end
        flat = np.where(inside, flat * _FACTOR + words.flat[np.where(inside, at, 0)], flat)
    return Hashes(_mixed(flat), starts)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Of two sorted arrays of distinct hashes; 1 if both are empty."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    either = len(a) + len(b) - shared
    return shared / either if either else 1.0


def banding(threshold: float) -> tuple[int, int]:
    """(bands, signature values a band) for LSH (Broder 1997; Leskovec et al., Mining of Massive Datasets, 3.4).

    Bands are as long as they can be while 95 % of the pairs at the threshold agree in at least one; more similar pairs
    are found with a probability closer to 1. Raises UserError for a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise UserError(f"threshold={threshold}: choose a Jaccard similarity in (0, 1]")
    rows = max(
        (r for r in range(1, PERMUTATIONS + 1) if 1 - (1 - threshold**r) ** (PERMUTATIONS // r) >= _RECALL), default=1
    )
    return PERMUTATIONS // rows, rows


def band_keys(shingles: Hashes, threshold: float, seed: int) -> np.ndarray:
    """(bands, texts) uint64: texts that agree in a band of their MinHash signatures have the same key there."""
    bands, rows = banding(threshold)
    keys = np.zeros((bands, len(shingles.starts) - 1), np.uint64)
    for first in range(0, keys.shape[1], _AT_ONCE):
        starts = shingles.starts[first : first + _AT_ONCE + 1]
        signatures = RMinHash.digest_matrix_from_flat_token_hashes(
            shingles.flat[starts[0] : starts[-1]], (starts - starts[0]).astype(np.uint64), PERMUTATIONS, seed
        )
        values = np.array(signatures.to_rows(), dtype=np.uint64)[:, : bands * rows].reshape(-1, bands, rows)
        for at in range(rows):
            keys[:, first : first + _AT_ONCE] = keys[:, first : first + _AT_ONCE] * _FACTOR + values[:, :, at].T
    return _mixed(keys)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Every bit depends on every bit (the finalizer of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
