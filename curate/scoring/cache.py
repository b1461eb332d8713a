"""A score once paid for is never paid for again.

One SQLite file per scorer identity, one row per content key, committed batch by batch: a killed run keeps what it has
finished. Several processes may score one pool into one cache: each claims a portion of the rows before it computes
them, so that no row is scored twice, and the claims of a process that died are taken over.
"""

import os
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from filelock import FileLock

from curate.errors import UserError
from curate.progress import Progress

_SILENCE = 900.0  # seconds without a sign of life after which another machine's claim is taken over
_PORTION = 256  # rows that are claimed at once
DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


@dataclass(frozen=True)
class Batch:
    """Scores of some rows, NaN where `reasons` (by row) says why there is none; what all of them cost together.

    A row that has a score may have a text in `reasons` too: that of curate/teacher.py. What failed only for now is not
    to be kept: a later run asks again.
    """

    rows: list[int]
    values: list[float]
    seconds: float
    reasons: Mapping[int, str] = field(default_factory=dict)
    tokens: int = 0
    dollars: float = 0.0
    keep: bool = True


@dataclass(frozen=True)
class Scores:
    """`values` (rows,) float64, NaN for a row that has no score and then a reason; how many were `computed` now.

    `seconds`, `tokens` and `dollars` are what all of them cost, now or earlier.
    """

    values: np.ndarray
    seconds: float
    computed: int
    reasons: Mapping[int, str] = field(default_factory=dict)
    tokens: int = 0
    dollars: float = 0.0


Portions = Iterator[list[int]]
Found = dict[str, tuple[float | None, str | None, float, int, float]]  # key -> score, reason, seconds, tokens, dollars


Listed = dict[str, list[int]]  # scorer key -> rows that have no score yet, in the order in which they are computed
_restricted: ContextVar[tuple[str | None, Listed] | None] = ContextVar("restricted", default=None)


@contextmanager
def restricted(scorer_key: str | None = None) -> Iterator[Listed]:
    """While entered, only what is kept under `scorer_key` is computed; the rows that others miss are listed."""
    listed: Listed = {}
    token = _restricted.set((scorer_key, listed))
    try:
        yield listed
    finally:
        _restricted.reset(token)


def is_restricted() -> bool:
    """Whether only one scorer's rows are asked for, so that what is measured between rows would be for nothing."""
    return _restricted.get() is not None


def shares(rows: Sequence[int], shards: int) -> list[list[int]]:
    """Rows in the order in which they are computed, dealt to at most `shards` processes portion by portion.

    Each process makes the same portions of its share as one process would of all rows, and hence the same batches: not
    even rounding tells how many there were.
    """
    portions = [rows[start : start + _PORTION] for start in range(0, len(rows), _PORTION)]
    return [[row for portion in portions[at::shards] for row in portion] for at in range(min(shards, len(portions)))]


def cached_scores(
    cache: Path | None,
    scorer_key: str,
    keys: Sequence[str],
    compute: Callable[[Portions], Iterator[Batch]],
    *,
    sizes: Sequence[int] | None = None,
    known: Mapping[str, float] | None = None,
    before: Callable[[Sequence[int], float], None] | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Scores of the rows with these content keys, from `<cache>/scores/<scorer_key>.sqlite` or else from `compute`.

    `compute(portions)` gets an iterator of lists of rows, the first row of each key that has no score yet, and yields
    `Batch`es; a portion is claimed when it is asked for, so a portion is to be finished before the next. Larger rows
    by `sizes` come first. `compute` is not called if nothing is missing. Rows with equal keys are scored once. `known`
    scores by key are taken as they are, at no cost, and not kept. `before` is called ahead of `compute` with the rows
    that are missing and the dollars that the others have cost, `progress` with (rows done, rows missing) after each
    batch. Without `cache`, nothing is kept.

    A file of scores that is damaged is set aside as `<file>.corrupt`, which is said on stderr, and begun again.
    Raises UserError if the cache cannot be written.
    """
    place = ":memory:" if cache is None else str(cache / "scores" / f"{scorer_key}.sqlite")
    try:
        with closing(_open(place)) as db:
            first = {key: row for row, key in reversed(list(enumerate(keys)))}
            found = _read(db, list(first))
            found |= {key: (value, None, 0.0, 0, 0.0) for key, value in (known or {}).items() if key in first}
            missing = sorted(row for key, row in first.items() if key not in found)
            computed = 0
            if sizes is not None:
                missing.sort(key=lambda row: -sizes[row])
            only = _restricted.get()
            if missing and only is not None and only[0] != scorer_key:
                only[1][scorer_key] = missing
                found |= {keys[row]: (None, None, 0.0, 0, 0.0) for row in missing}
            elif missing:
                if before is not None:
                    before(missing, sum(entry[4] for entry in found.values()))
                with (
                    closing(_portions(db, missing, keys)) as portions,
                    closing(_batches(compute, portions)) as batches,
                ):
                    for batch in batches:
                        entries = _entries(batch, keys)
                        if not batch.keep:
                            found |= {entry[0]: entry[1:] for entry in entries}
                        _write(db, entries if batch.keep else [], owner=_owner(), done=[entry[0] for entry in entries])
                        computed += len(batch.rows)
                        if progress is not None:
                            progress(computed, len(missing))
                # What another process stored first is what every later reader gets, so it is what we return.
                found.update(_read(db, [keys[row] for row in missing]))
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", None) in DAMAGED and _set_aside(Path(place)):
            return cached_scores(
                cache, scorer_key, keys, compute, sizes=sizes, known=known, before=before, progress=progress
            )
        raise UserError(f"score cache {place}: {error}; free space, delete the file, or name another place") from None
    # SQLite stores NaN as NULL; None becomes NaN again here.
    values = np.array([found[key][0] for key in keys], dtype=np.float64)
    return Scores(
        values,
        seconds=sum(entry[2] for entry in found.values()),
        computed=computed,
        reasons={row: reason for row, key in enumerate(keys) if (reason := found[key][1])},
        tokens=sum(entry[3] for entry in found.values()),
        dollars=sum(entry[4] for entry in found.values()),
    )


def _portions(db: sqlite3.Connection, missing: Sequence[int], keys: Sequence[str]) -> Generator[list[int], None, None]:
    """Rows that are this process's to score; those of others are waited for, or taken over when their owner is gone."""
    waiting = list(missing)
    try:
        while waiting:
            others: list[int] = []
            for start in range(0, len(waiting), _PORTION):
                mine, taken = _claim(db, waiting[start : start + _PORTION], keys)
                others += taken
                if mine:
                    yield mine
            if len(others) == len(waiting):
                time.sleep(0.2)
            waiting = others
    finally:
        db.execute("DELETE FROM claims WHERE owner = ?", (_owner(),))


def _batches(compute: Callable[[Portions], Iterator[Batch]], portions: Portions) -> Generator[Batch, None, None]:
    """Closed with everything that `compute` holds open, whatever happens here."""
    yield from compute(portions)


def _claim(db: sqlite3.Connection, rows: Sequence[int], keys: Sequence[str]) -> tuple[list[int], list[int]]:
    """(rows that are now ours, rows that another living process is at work on); those that have a score are neither."""
    db.execute("BEGIN IMMEDIATE")
    wanted = {keys[row]: row for row in rows}
    done = _read(db, list(wanted))
    marks = ",".join("?" * len(wanted))
    claims = db.execute(f"SELECT key, owner, at FROM claims WHERE key IN ({marks})", list(wanted)).fetchall()
    alive = {owner: _alive(owner, at) for _, owner, at in claims}
    taken = {wanted[key] for key, owner, _ in claims if alive[owner] and owner != _owner() and key not in done}
    mine = [row for key, row in wanted.items() if key not in done and row not in taken]
    db.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", [(keys[r], _owner(), time.time()) for r in mine])
    db.execute("COMMIT")
    return mine, sorted(taken, key=list(rows).index)


def _owner() -> str:
    process = psutil.Process()
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"


def _alive(owner: str, at: float) -> bool:
    host, pid, born = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return time.time() - at < _SILENCE
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == born
    except psutil.Error:
        return False


def _entries(batch: Batch, keys: Sequence[str]) -> list[tuple[str, float, str | None, float, int, float]]:
    n = max(1, len(batch.rows))
    return [
        (keys[row], value, batch.reasons.get(row), batch.seconds / n, batch.tokens // n, batch.dollars / n)
        for row, value in zip(batch.rows, batch.values, strict=True)
    ]


def _write(db: sqlite3.Connection, entries: Sequence[tuple], owner: str, done: Sequence[str]) -> None:
    """Store the entries, give back the claims on what is done, renew the others."""
    db.execute("BEGIN IMMEDIATE")
    db.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?, ?, ?, ?, ?)", entries)
    db.executemany("DELETE FROM claims WHERE key = ?", [(key,) for key in done])
    db.execute("UPDATE claims SET at = ? WHERE owner = ?", (time.time(), owner))
    db.execute("COMMIT")


def _open(place: str) -> sqlite3.Connection:
    if place != ":memory:":
        try:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise sqlite3.OperationalError(os.strerror(error.errno or 0).lower()) from None
    db = sqlite3.connect(place, timeout=60, isolation_level=None)
    db.execute(
        "CREATE TABLE IF NOT EXISTS scores"
        " (key TEXT PRIMARY KEY, score REAL, reason TEXT, seconds REAL, tokens INTEGER, dollars REAL)"
    )
    db.execute("CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT, at REAL)")
    return db


def _set_aside(file: Path) -> bool:
    """Rename a database that is damaged; False if it is not, as when another process has done so already."""
    try:
        with FileLock(f"{file}.lock"):
            reason = _damage(file)
            if reason:
                os.replace(file, f"{file}.corrupt")
                Path(f"{file}-journal").unlink(missing_ok=True)
                aside = f"set aside as {file.name}.corrupt, its rows are scored again"
                print(f"score cache {file}: {reason}; {aside}", file=sys.stderr)
    except OSError:
        return False
    return reason is not None


def _damage(file: Path) -> str | None:
    try:
        with closing(sqlite3.connect(file, timeout=60)) as db:
            found: str = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if found == "ok" else found


def _read(db: sqlite3.Connection, keys: Sequence[str]) -> Found:
    found: Found = {}
    for start in range(0, len(keys), 500):
        some = keys[start : start + 500]
        marks = ",".join("?" * len(some))
        for key, *entry in db.execute(f"SELECT * FROM scores WHERE key IN ({marks})", some):
            found[key] = tuple(entry)
    return found
