"""What moves a scorer that should not: edits of a response that leave its correctness alone.

Each edit is made to the same rows, and the effect is the mean change of the score, in standard deviations of the
scores: a paired comparison in which the row is its own control. A harmful edit stands beside them, for a scorer that
nothing moves is not to be trusted either.
"""

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed

import numpy as np
from datasets import Dataset

from curate.example import column, digest, replace
from curate.intervals import holm, paired

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_LISTED = re.compile(r"(?m)^\s*(?:[-*•]|\d+[.)])\s|```|^\s*\|")


@dataclass(frozen=True)
class Edit:
    """A change of a response. `harmless`: what was correct still is. A text that it returns as it was is left out."""

    name: str
    apply: Callable[[str], str]
    harmless: bool = True


@dataclass(frozen=True)
class Effect:
    """What an edit does to the scores of `rows` rows; `effect` and its t interval of 95 % in standard deviations of the
    unedited scores. All NaN where fewer than two rows could be edited and scored, or the scores are constant."""

    edit: str
    harmless: bool
    rows: int
    effect: float
    low: float
    high: float
    rises: float  # share of rows whose score goes up
    p: float
    p_holm: float  # corrected for the number of edits


def _listed(text: str) -> str:
    """One item a sentence; lists, code and tables stay as they are."""
    if _LISTED.search(text):
        return text
    return "\n".join(f"- {part}" for part in _SENTENCE.split(text.strip()) if part)


def _restated(text: str) -> str:
    return f"{text}\n\nTo say it once more: {_SENTENCE.split(text.strip())[0]}"


def _half(text: str) -> str:
    """The first half of the words, at least one gone; a single word stays."""
    words = list(re.finditer(r"\S+", text))
    return text[: words[len(words) // 2 - 1].end()] if len(words) > 1 else text


ENGLISH = (
    Edit("fluff: preface", lambda text: f"Thank you for this great question! I am happy to help with it.\n\n{text}"),
    Edit("fluff: closing offer", lambda text: f"{text}\n\nI hope this helps! Let me know if there is anything else."),
    Edit("list formatting", _listed),
    Edit("hedges", lambda text: f"I think that this is probably right, though I may be mistaken. {text}"),
    Edit("confident tone", lambda text: f"There is no doubt about it, this is the definitive answer. {text}"),
    Edit("padding: restated", _restated),
    Edit("second half dropped", _half, harmless=False),
)
# The same in the closed vocabulary of curate/microworld: everything but the list, for which it has no word.
WORLD = (
    Edit("fluff: closing", lambda text: f"{text} ok , thank you ."),
    Edit("hedges", lambda text: f"{text} i wonder ."),
    Edit("confident tone", lambda text: f"{text} yes , it is known ."),
    Edit("padding: restated", lambda text: f"{text} {text}"),
    Edit("second half dropped", _half, harmless=False),
)


def probe(
    pool: Dataset,
    score: Callable[[Dataset], np.ndarray],
    *,
    edits: Sequence[Edit] = ENGLISH,
    rows: int = 200,
    seed: int = 0,
) -> list[Effect]:
    """The effect of each edit on the scores of `rows` random rows, or of all if there are fewer.

    `score` gives (rows,) numbers, NaN for none, and each must depend on its row alone. Edited rows have ids of their
    own, so that a scorer that keeps scores by id does not take them for the old ones.
    """
    rng = np.random.default_rng([seed, zlib.crc32(b"bias.probe")])
    some = pool.select(np.sort(rng.permutation(len(pool))[:rows]))
    texts: list[str] = column(some, "output")
    before = np.asarray(score(some), dtype=np.float64)
    known = before[np.isfinite(before)]
    unit = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    found: list[Effect] = []
    for edit in edits:
        edited = [edit.apply(text) for text in texts]
        at = np.flatnonzero([old != new for old, new in zip(texts, edited, strict=True)])
        effect = Effect(edit.name, edit.harmless, 0, *[float("nan")] * 6)
        if len(at) > 1 and unit > 0:
            after = score(_with_outputs(some.select(at), [edited[row] for row in at]))
            differences = np.asarray(after, dtype=np.float64) - before[at]
            differences = differences[np.isfinite(differences)] / unit
            if len(differences) > 1:
                mean, (low, high), p = paired(differences)
                rises = float((differences > 0).mean())
                effect = Effect(edit.name, edit.harmless, len(differences), mean, low, high, rises, p, p)
        found.append(effect)
    tested = [at for at, effect in enumerate(found) if effect.rows]
    for one, p in zip(tested, holm([found[one].p for one in tested]), strict=True):
        found[one] = changed(found[one], p_holm=p)
    return found


def _with_outputs(pool: Dataset, outputs: list[str]) -> Dataset:
    requests = zip(column(pool, "instruction"), column(pool, "input"), outputs, strict=True)
    return replace(pool, output=outputs, id=[digest(*row) for row in requests])
