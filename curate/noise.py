"""Typed corruptions of responses, each leaving the truth beside the lie (`noise_kind`, `clean_output`).

Exactly round(rate * n) rows are corrupted, nested across rates for one seed and kind: what is corrupted at 0.2 is
corrupted in the same way at 0.4. To get this, every random number of every row is drawn up front, whatever the rate.
"""

import re
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice

import numpy as np
from datasets import Dataset

from curate.errors import UserError
from curate.example import column, replace

SINGLE_KINDS = ("swapped_response", "near_miss", "truncated", "off_format")
KINDS = ("none", *SINGLE_KINDS, "contradictory", "mixture", "correlated")

# What a generic near miss exchanges, first choice first: a number, a name inside a sentence, a content word, any word.
_DETAILS = (
    re.compile(r"(?m)(?!^\d+[.)])\b\d+(?:[.,]\d+)*"),  # but for the numbers of a list
    re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+"),
    re.compile(r"[^\W\d_]{4,}"),
    re.compile(r"\w+"),
)
_MARKER = re.compile(r"\A\s*\w+\s*:(?=\s)")  # an answer's opening, as in "ok : red ."
_DONORS = 500  # rows asked for another detail of the same sort before a weaker sort is tried


def corrupt(pool: Dataset, *, kind: str, rate: float, seed: int) -> Dataset:
    """The pool with round(rate * n) outputs corrupted; `noise_kind` says how, `clean_output` holds what was there.

    swapped_response: another row's answer. near_miss: the row's own `near_miss`, else one detail exchanged for another
    row's. truncated: the first 30-70 % of the words. off_format: the words without opening marker, punctuation and
    layout. mixture: one of these four, drawn for each row. correlated: a mixture that prefers rows of rare categories
    and with long responses. A response too short for its kind is swapped instead, and marked so.

    contradictory: the row takes over another row's prompt, and answers it with a near miss of that row's answer, so
    that the same prompt has two answers in the pool; up to a rate of one half the other row stays clean.
    `clean_output` is the other row's answer: the right one for the prompt.
    """
    if kind not in KINDS:
        raise UserError(f"noise.kind={kind}: choose one of {', '.join(KINDS)}")
    if not 0 <= rate <= 1:
        raise UserError(f"noise.rate={rate}: choose a share of the rows in [0, 1]")
    count = round(rate * len(pool))
    if count == 0 or kind == "none":
        return pool
    kinds: list[str | None] = column(pool, "noise_kind")
    if any(kinds):
        raise UserError(f"noise.kind={kind}: the pool is corrupted already; start from a clean one")
    prompts = list(zip(column(pool, "instruction"), column(pool, "input"), strict=True))
    outputs: list[str] = column(pool, "output")
    misses: list[str | None] = column(pool, "near_miss")
    rng = np.random.default_rng([seed, zlib.crc32(b"noise")])
    order, draws = rng.random(len(pool)), rng.random((len(pool), 3))
    if kind == "correlated":
        # Exponential keys (Efraimidis & Spirakis 2006): the first m are a weighted sample without replacement, any m.
        order = -np.log1p(-order) / np.exp(3 * hardness(pool))
    changed: list[str] = list(outputs)
    truth: list[str | None] = column(pool, "clean_output")
    ranked = np.argsort(order, kind="stable").tolist()
    if kind == "contradictory":
        # the first to be corrupted repeat the prompts of the last to be
        asked = list(prompts)
        for row, other in zip(ranked[:count], reversed(ranked), strict=False):
            other = other if other != row else ranked[0]
            kinds[row], truth[row], asked[row] = kind, outputs[other], prompts[other]
            changed[row] = _contradiction(prompts, outputs, misses, other, draws[row])
        instructions, inputs = map(list, zip(*asked, strict=True))
        return replace(
            pool, instruction=instructions, input=inputs, output=changed, noise_kind=kinds, clean_output=truth
        )
    for row in ranked[:count]:
        which, where, what = draws[row].tolist()
        text, done = outputs[row], kind if kind in SINGLE_KINDS else SINGLE_KINDS[int(which * len(SINGLE_KINDS))]
        wrong: str | None = None
        if done == "near_miss":
            ready = misses[row]
            wrong = ready if ready and ready != text else _near_miss(outputs, row, where, what)
        elif done == "truncated":
            wrong = _truncated(text, where)
        elif done == "off_format":
            wrong = _off_format(text)
        if wrong is None:
            done, wrong = "swapped_response", _swapped(prompts, outputs, row, where)
        kinds[row], truth[row], changed[row] = done, text, wrong
    return replace(pool, output=changed, noise_kind=kinds, clean_output=truth)


def hardness(pool: Dataset) -> np.ndarray:
    """(rows,) in [0, 1]: mean of how rare a row's category is and of the rank of its response's length in words."""
    categories = column(pool, "category")
    _, group, size = np.unique([str(name) for name in categories], return_inverse=True, return_counts=True)
    rarity = 1 - size[group] / size.max()
    lengths = sorted(words := [len(text.split()) for text in column(pool, "output")])
    rank = np.array([bisect_left(lengths, count) for count in words]) / len(words)
    return (rarity + rank) / 2


def _others(n: int, row: int, where: float) -> Iterator[int]:
    """All other rows in order, from a random one on."""
    start = int(where * n)
    return (at % n for at in range(start, start + n) if at % n != row)


def _swapped(prompts: list[tuple[str, str]], outputs: list[str], row: int, where: float) -> str:
    """Another prompt's answer; if there is one, not an answer that merely says the same in fewer or more words."""
    fallback: str | None = None
    own = set(outputs[row].split())
    for other in _others(len(outputs), row, where):
        if outputs[other] == outputs[row]:
            continue
        words = set(outputs[other].split())
        if prompts[other] != prompts[row] and not (words <= own or own <= words):
            return outputs[other]
        fallback = fallback or outputs[other]
    if fallback is None:
        raise UserError("noise.kind: every response of the pool is the same, so none can be swapped; use other data")
    return fallback


def _contradiction(
    prompts: list[tuple[str, str]], outputs: list[str], misses: list[str | None], row: int, draws: np.ndarray
) -> str:
    """Another answer to the row's prompt."""
    _, where, what = draws.tolist()
    ready = misses[row]
    wrong = ready if ready and ready != outputs[row] else _near_miss(outputs, row, where, what)
    return wrong or _swapped(prompts, outputs, row, where)


def _near_miss(outputs: list[str], row: int, where: float, what: float) -> str | None:
    text = outputs[row]
    for detail in _DETAILS:
        found = list(detail.finditer(text))
        if not found:
            continue
        match = found[int(what * len(found))]
        for other in islice(_others(len(outputs), row, where), _DONORS):
            for candidate in detail.findall(outputs[other]):
                if candidate.lower() != match[0].lower():
                    return text[: match.start()] + candidate + text[match.end() :]
    return None


def _truncated(text: str, where: float) -> str | None:
    """The first 30-70 % of the words, always without the last one that is more than punctuation."""
    share = 0.3 + 0.4 * where
    words = list(re.finditer(r"\S+", text))
    last = max((at for at, word in enumerate(words) if re.search(r"\w", word[0])), default=0)
    if last > 0:
        return text[: words[min(last, max(1, int(share * len(words)))) - 1].end()]
    letters = re.search(r"\w{2,}", text)  # a single word: cut inside it
    return text[: letters.start() + max(1, int(share * len(letters[0])))] if letters else None


def _off_format(text: str) -> str:
    """The words on one line, without opening marker and sentence punctuation; said twice if that changes nothing."""
    words = (word.strip(".,;:!?\"'()*#") for word in _MARKER.sub("", text, count=1).split())
    bare = " ".join(word for word in words if word)
    return bare if bare and bare != text else f"{text} {text}"
