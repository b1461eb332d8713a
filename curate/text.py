"""Running text as a pool: one row a story, nothing is asked and all of it is learnt; some stories are held out.

A story belongs to the pool or to a held-out part by a hash of what it says, so that the parts are the same for every
seed and size, and a story that stands in the file twice is on one side only. Of stories that resemble each other (see
`curate.neardup`) one is kept wherever a held-out part is concerned: none is tested that was nearly trained on.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from curate.errors import UserError
from curate.example import BadRow, column, digest, make_pool, take
from curate.neardup import near_duplicates
from curate.reading import HUB, SUFFIXES, records, why

SEPARATOR = "<|endoftext|>"  # TinyStories' own; files without it are split at blank lines
HELD_OUT = {"validation": 0.05, "test": 0.10}  # shares of the stories
NEAR = 0.8  # Jaccard similarity of word 3-grams


@dataclass(frozen=True)
class Stories:
    """`read` stories were read: those of `pool`, of the two `held_out` parts, `near` doubles, and the `bad` ones."""

    pool: Dataset
    held_out: dict[str, list[str]]
    near: int
    bad: list[BadRow]

    @property
    def read(self) -> int:
        """All stories of the source."""
        return len(self.pool) + sum(map(len, self.held_out.values())) + self.near + len(self.bad)


@lru_cache(maxsize=2)
def load_stories(path: str, max_bad_share: float = 0.05) -> Stories:
    """Read a text file, or the column `text` of a JSON, JSONL, CSV or Parquet file or of a data set of the hub.

    Empty stories and those that are no UTF-8 are set aside with their number in the file. Raises UserError if nothing
    can be read, nothing is left for one of the parts, or more than `max_bad_share` of the stories are bad.
    """
    parts: dict[str, list[str]] = {"pool": [], **{name: [] for name in HELD_OUT}}
    bad: list[BadRow] = []
    for number, text in _stories(path):
        if isinstance(text, ValueError):
            bad.append(BadRow(number, str(text)))
        else:
            parts[_part(text)].append(text)
    read = len(bad) + sum(map(len, parts.values()))
    if len(bad) > max_bad_share * read:
        raise UserError(
            f"data.max_bad_share={max_bad_share}: {len(bad)} of {read} stories of {path} are bad; mend them or raise"
            f" it; the first: story {bad[0].line}: {bad[0].reason}"
        )
    for name, texts in parts.items():
        if not texts:
            raise UserError(f"data.path={path}: none of {read} stories falls to the {name}; give a file with more")
    kept, near = _without_doubles(parts, Path(path).stem)
    return Stories(kept["pool"], {name: column(kept[name], "output") for name in HELD_OUT}, near, bad)


def _stories(path: str) -> Iterator[tuple[int, str | ValueError]]:
    """(number from 1, the story or why it is bad) of every document."""
    if path.startswith(HUB) or Path(path).suffix in SUFFIXES or path.endswith(".gz"):
        for number, row in records(path):
            yield number, row if isinstance(row, ValueError) else _checked(row.get("text") if row else None)
        return
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"data.path={path}: {why(error)}; name a readable file") from None
    documents = text.split(SEPARATOR) if SEPARATOR in text else re.split(r"\n\s*\n", text)
    if not documents[-1].strip():
        documents.pop()  # what follows the last separator is the end of the file and no story
    for number, document in enumerate(documents, 1):
        yield number, _checked(document)


def _checked(text: Any) -> str | ValueError:
    if not isinstance(text, str):
        return ValueError("text is missing")
    if not text.strip():
        return ValueError("text is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        return ValueError("text is not valid UTF-8")
    return text.strip()


def _part(text: str) -> str:
    place = int(digest(" ".join(text.casefold().split())), 16) / 2**64
    for name, share in HELD_OUT.items():
        if place < share:
            return name
        place -= share
    return "pool"


def _without_doubles(parts: dict[str, list[str]], source: str) -> tuple[dict[str, Dataset], int]:
    """The parts less what resembles a story of another part, held-out ones having the first right; how many went.

    What resembles each other inside the pool stays: how often a source says something is a property of it.
    """
    order = [*HELD_OUT, "pool"]
    pools = {name: make_pool(({"instruction": "", "output": t} for t in parts[name]), source) for name in order}
    held = sum(len(pools[name]) for name in HELD_OUT)
    everything = make_pool(({"instruction": "", "output": t} for name in order for t in parts[name]), source)
    gone = {one.row for one in near_duplicates(everything, threshold=NEAR) if one.of is not None and one.of < held}
    kept, start = {}, 0
    for name in order:
        n = len(pools[name])
        kept[name] = take(pools[name], np.array([i for i in range(n) if start + i not in gone], np.int64))
        start += n
    return kept, len(gone)
