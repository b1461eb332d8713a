"""Scores that were paid for elsewhere."""

import math
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset

from curate.errors import UserError
from curate.example import column, digest, row_keys
from curate.reading import records

_KEY = "score.import"


def known_scores(path: str | Path, pool: Dataset) -> dict[str, float]:
    """Row id -> score from a JSON, JSONL, CSV or Parquet file whose rows have a `score`.

    A row is told by its instruction, input and output, which must be those that the pool has now; a row of the file
    that does not hold them, by its `id`. Rows whose score is null or empty are passed over; of several scores for a
    row the first counts. How many rows have one is printed.

    Raises UserError for a row that cannot be read, a score that is no number, or if no row of the pool has a score.
    """
    found: dict[str, float] = {}
    for line, row in records(path, _KEY):
        if isinstance(row, ValueError):
            raise UserError(f"{_KEY}={path}: line {line}: {row}; mend the file")
        if not isinstance(row, dict):
            raise UserError(f"{_KEY}={path}: line {line}: expected an object with a score; mend the file")
        keys, value = row_keys(row), _number(row.get("score"), path, line)
        if keys and value is not None:
            found.setdefault(keys[-1], value)  # what a row says comes last, and beats its id
    texts = zip(*(column(pool, name) for name in ("instruction", "input", "output")), strict=True)
    known: dict[str, float] = {}
    for id, noise, text in zip(column(pool, "id"), column(pool, "noise_kind"), texts, strict=True):
        # the id of a corrupted row is that of the text it once had
        names = [digest(*text), *([id] if noise is None else [])]
        value = next((found[name] for name in names if name in found), None)
        if value is not None:
            known[id] = value
    if not known:
        raise UserError(
            f"{_KEY}={path}: scores none of {len(pool)} rows; its rows need a score, and an id or instruction, input "
            "and output as here"
        )
    print(f"{_KEY}={path}: scores of {len(known)} of {len(pool)} rows", file=sys.stderr)
    return known


def _number(value: Any, path: str | Path, line: int) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{_KEY}={path}: line {line}: score={value!r} is no number; mend the file")
    return number
