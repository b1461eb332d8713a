"""The schema of a pool, and loading any source into it.

A pool is a `datasets.Dataset` with the columns of `FEATURES`. Ids are content hashes fixed at load: the same row has
the same id everywhere, and keeps it whatever is done to it later.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from datasets import Dataset, DatasetInfo, Features, Value
from datasets.fingerprint import generate_random_fingerprint
from datasets.table import InMemoryTable

from curate.errors import UserError
from curate.layouts import ALIASES, fields_of
from curate.reading import HUB, records

FEATURES = Features(
    {
        "id": Value("string"),
        "instruction": Value("string"),
        "input": Value("string"),
        "output": Value("string"),
        "source": Value("string"),
        "category": Value("string"),  # name of the stratum
        "near_miss": Value("string"),  # a wrong but plausible output, ready made
        "noise_kind": Value("string"),  # null = clean
        "clean_output": Value("string"),  # null = clean
        "score": Value("float64"),
        "duplicate_of": Value("string"),  # id of the original; a copy's own id is "<that>~<number>"
        "turns": Value("string"),  # what came before in a conversation: JSON list of [role, content]; null = nothing
    }
)
_CHUNK = 10_000  # rows that are held as Python objects at a time
_REASON = 300  # characters


@dataclass(frozen=True)
class BadRow:
    """A row that was set aside: its line in the file, from 1 (its number in Parquet and one-line JSON), and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class LoadedPool:
    """`read` rows were read: `len(pool)` of them are good and the rest are in `bad`."""

    pool: Dataset
    read: int
    bad: list[BadRow]


def digest(*texts: str) -> str:
    """BLAKE2b-64 of the texts joined by the unit separator, in hex."""
    return blake2b("\x1f".join(texts).encode(), digest_size=8).hexdigest()


def make_pool(rows: Iterable[Mapping[str, Any]], source: str) -> Dataset:
    """A pool from rows that hold at least instruction and output; missing columns and ids are filled in."""
    schema, tables, stream = FEATURES.arrow_schema, [], iter(rows)
    while chunk := list(islice(stream, _CHUNK)):
        columns: dict[str, list[Any]] = {name: [row.get(name) for row in chunk] for name in FEATURES}
        columns["input"] = [text or "" for text in columns["input"]]
        columns["source"] = [name or source for name in columns["source"]]
        said = zip(columns["instruction"], columns["input"], columns["output"], strict=True)
        columns["id"] = [known or digest(*texts) for known, texts in zip(columns["id"], said, strict=True)]
        tables.append(pyarrow.Table.from_pydict(columns, schema=schema))
    return pool_of(pyarrow.concat_tables(tables) if tables else schema.empty_table())


def pool_of(table: pyarrow.Table) -> Dataset:
    """The pool that holds a table of the columns of `FEATURES`."""
    # without a fingerprint, one is made from all of the table
    info, fingerprint = DatasetInfo(features=FEATURES), generate_random_fingerprint()
    return Dataset(InMemoryTable(table), info=info, fingerprint=fingerprint)


def row_keys(row: Any) -> list[str]:
    """The ids by which a raw row of some file may be known in a pool: its own, and the digest of what it says."""
    keys = [row["id"]] if isinstance(row, dict) and isinstance(row.get("id"), str) else []
    try:
        found = fields_of(row, ALIASES)
    except ValueError:
        return keys
    return [*keys, digest(found["instruction"] or "", found["input"] or "", found["output"] or "")]


def column(pool: Dataset, name: str) -> list[Any]:
    """One column as a plain list."""
    return pool[name][:]


def take(pool: Dataset, rows: np.ndarray) -> Dataset:
    """A pool of these rows, ascending. After `Dataset.select` every access looks up row by row, far more slowly."""
    if np.any(np.diff(rows) <= 0):
        raise ValueError("rows must ascend")
    table: pyarrow.Table = pool.with_format("arrow")[:]
    start, parts = 0, []
    for batch in table.to_batches():
        inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + len(batch))]
        parts.append(batch.take(pyarrow.array(inside - start, pyarrow.int64())))
        start += len(batch)
    return pool_of(pyarrow.Table.from_batches(parts, FEATURES.arrow_schema))


def replace(pool: Dataset, **columns: list[Any] | pyarrow.Array) -> Dataset:
    """The pool with these columns exchanged."""
    table = pool.with_format("arrow")[:]
    for name, values in columns.items():
        at = table.column_names.index(name)
        table = table.set_column(at, table.schema.field(at), _array(values, table.schema.field(at).type))
    return pool_of(table)


def _array(values: list[Any] | pyarrow.Array, kind: pyarrow.DataType) -> pyarrow.Array:
    return values if isinstance(values, pyarrow.Array) else pyarrow.array(values, kind)


def render(template: Mapping[str, str], instruction: str, input: str) -> str:
    """The prompt of a row. One pass, so that braces in the data are data."""
    values = {"instruction": instruction, "input": input}
    text = template["with_input" if input else "without_input"]
    return re.sub(r"\{(instruction|input)\}", lambda match: values[match[1]], text)


def pool_hash(pool: Dataset) -> str:
    """BLAKE2b-64 in hex of everything in the pool, in order."""
    hashed = blake2b(digest_size=8)
    for name in FEATURES:
        values = column(pool, name)
        if name == "turns" and not any(values):
            continue  # this column came later: pools without conversations keep their hash
        hashed.update(json.dumps([name, values]).encode())
    return hashed.hexdigest()


def _one_line(reason: str) -> str:
    """A reason that quotes data, fit for any terminal and log."""
    printable = "".join(character if character.isprintable() else " " for character in reason[:_REASON])
    return " ".join(printable.split()) + ("..." if len(reason) > _REASON else "")


def load_pool(
    path: str | Path,
    *,
    rows: int | None = None,
    max_bad_share: float = 0.05,
    set_aside: Path | None = None,
    fields: Mapping[str, str | None] | None = None,
) -> LoadedPool:
    """Load a JSON, JSONL, CSV or Parquet file, or a data set of the hub (`curate.reading.records`).

    Rows are Alpaca's fields, prompt and completion, chat `messages` or ShareGPT's `conversations`. Rows with a missing
    or wrong-typed field, an empty response, invalid UTF-8 or a malformed line are set aside, with line and reason, into
    the JSONL file `set_aside` if one is named. `rows` takes the first so many good ones. `fields` says what our fields
    are called in the file; null leaves an optional field out.

    Raises UserError if the file cannot be read, holds no good row or fewer than `rows`, or if the share of bad rows
    exceeds `max_bad_share`.
    """
    names = {**ALIASES, **{field: (name,) if name else () for field, name in (fields or {}).items()}}
    bad: list[BadRow] = []

    def good() -> Iterator[dict[str, str | None]]:
        for line, row in records(path):
            try:
                yield fields_of(row, names)
            except ValueError as error:
                bad.append(BadRow(line, _one_line(str(error))))

    source = str(path) if str(path).startswith(HUB) else Path(path).stem
    pool = make_pool(islice(good(), rows), source)
    if set_aside is not None:
        from curate.writing import write_set_aside

        write_set_aside(set_aside, bad)
    read = len(pool) + len(bad)
    example = f"; the first: line {bad[0].line}: {bad[0].reason}" if bad else ""
    if not len(pool):
        raise UserError(f"data.path={path}: no usable row among {read}{example or '; is the file empty?'}")
    if len(bad) > max_bad_share * read:
        raise UserError(
            f"data.max_bad_share={max_bad_share}: {len(bad)} of {read} rows of {path} are bad; mend them or raise it"
            + example
        )
    if rows is not None and len(pool) < rows:
        raise UserError(f"data.rows={rows}: {path} holds {len(pool)} good rows; ask for at most these, or null for all")
    return LoadedPool(pool, read, bad)
