"""A score once paid for is never paid for again.

One SQLite file per scorer identity, one row per content key, committed batch by batch: a killed run keeps what it has
finished, and several processes may write at once (the first score of a key stays).
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.errors import UserError

Batch = tuple[list[int], list[float], float]


@dataclass(frozen=True)
class Scores:
    """`values` (rows,) float64; `seconds` it took to compute them, now or earlier; how many were `computed` now."""

    values: np.ndarray
    seconds: float
    computed: int


def cached_scores(
    cache: Path | None,
    scorer_key: str,
    keys: list[str],
    compute: Callable[[list[int]], Iterator[Batch]],
) -> Scores:
    """Scores of the rows with these content keys, from `<cache>/scores/<scorer_key>.sqlite` or else from `compute`.

    `compute(rows)` gets the first row of each key that has no score yet and yields batches of (rows, scores, seconds).
    It is not called if there are none. Rows with equal keys are scored once. Without `cache`, nothing is kept.

    Raises UserError if the cache cannot be written.
    """
    place = ":memory:" if cache is None else str(cache / "scores" / f"{scorer_key}.sqlite")
    try:
        with closing(_open(place)) as db:
            first = {key: row for row, key in reversed(list(enumerate(keys)))}
            found = _read(db, list(first))
            missing = sorted(row for key, row in first.items() if key not in found)
            for rows, scores, seconds in compute(missing) if missing else ():
                each = seconds / max(1, len(rows))
                entries = [(keys[row], score, each) for row, score in zip(rows, scores, strict=True)]
                db.execute("BEGIN IMMEDIATE")
                db.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?, ?)", entries)
                db.execute("COMMIT")
            if missing:
                # What another process stored first is what every later reader gets, so it is what we return.
                found.update(_read(db, [keys[row] for row in missing]))
    except sqlite3.DatabaseError as error:
        raise UserError(f"score cache {place}: {error}; free space, delete the file, or name another place") from None
    # SQLite stores NaN as NULL; None becomes NaN again here.
    values = np.array([found[key][0] for key in keys], dtype=np.float64)
    return Scores(values, sum(seconds for _, seconds in found.values()), len(missing))


def _open(place: str) -> sqlite3.Connection:
    if place != ":memory:":
        try:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise sqlite3.OperationalError(error.strerror) from None
    db = sqlite3.connect(place, timeout=60, isolation_level=None)
    db.execute("CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, score REAL, seconds REAL)")
    return db


def _read(db: sqlite3.Connection, keys: list[str]) -> dict[str, tuple[float | None, float]]:
    found = {}
    for start in range(0, len(keys), 500):
        some = keys[start : start + 500]
        marks = ",".join("?" * len(some))
        for key, score, seconds in db.execute(f"SELECT * FROM scores WHERE key IN ({marks})", some):
            found[key] = (score, seconds)
    return found
