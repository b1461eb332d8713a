"""Writing rows: by suffix, in a layout, atomically."""

import csv
import errno
import gzip
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import pyarrow
import pyarrow.parquet
from datasets import Dataset

from curate.errors import UserError
from curate.example import FEATURES, BadRow
from curate.layouts import arranged, llama_factory_entry
from curate.reading import kind_of, why

_CHUNK = 50_000  # rows that are held as Python objects at a time


def write_rows(
    path: str | Path,
    pool: Dataset,
    *,
    layout: str = "rows",
    extra: Mapping[str, Sequence[Any] | pyarrow.ChunkedArray] | None = None,
    key: str = "out.path",
) -> None:
    """Write a pool as JSON, JSONL, CSV or Parquet, by suffix and atomically. Columns that are all null are left out.

    `layout` is one of `curate.layouts.LAYOUTS`; `extra` columns are written beside the pool's. With `llama_factory` the
    file is entered into `dataset_info.json` in its folder. `key` is the config key to name in an error.
    """
    path = Path(path)
    kind = kind_of(path, key)
    table: pyarrow.Table = pool.with_format("arrow")[:]
    for name in FEATURES:
        if table[name].null_count == len(table):
            table = table.drop_columns([name])
    for name, values in (extra or {}).items():
        table = table.append_column(name, values if isinstance(values, pyarrow.ChunkedArray) else pyarrow.array(values))
    with atomic(path, key=key) as scratch:
        if kind == ".parquet":
            with pyarrow.parquet.ParquetWriter(scratch, _schema(table, layout)) as out:
                for chunk in _chunks(table, layout):
                    out.write_table(pyarrow.Table.from_pylist(chunk, schema=_schema(table, layout)))
        else:
            with _open(scratch, path.suffix == ".gz") as file:
                _write_text(file, kind, table, layout)
    if layout == "llama_factory":
        info = path.parent / "dataset_info.json"
        entries = json.loads(info.read_text(encoding="utf-8")) if info.exists() else {}
        with atomic(info, key=key) as scratch:
            entries[path.name.split(".")[0]] = llama_factory_entry(path.name)
            scratch.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _write_text(file: IO[str], kind: str, table: pyarrow.Table, layout: str) -> None:
    if kind == ".csv":
        writer = csv.writer(file)
        writer.writerow(table.column_names)
        for chunk in _chunks(table, layout):
            writer.writerows(row.values() for row in chunk)
        return
    between, end = ("\n", "\n") if kind == ".jsonl" else (",\n", "\n]\n")
    file.write("" if kind == ".jsonl" else "[\n")
    first, encode = True, json.JSONEncoder(ensure_ascii=False).encode
    for chunk in _chunks(table, layout):
        for row in chunk:
            file.write(("" if first else between) + encode(row))
            first = False
    file.write(end if kind == ".json" or not first else "")


def _chunks(table: pyarrow.Table, layout: str) -> Iterator[list[dict[str, Any]]]:
    for batch in table.to_batches(max_chunksize=_CHUNK):
        rows = batch.to_pylist()
        yield rows if layout == "rows" else [arranged(row, layout) for row in rows]


def _schema(table: pyarrow.Table, layout: str) -> pyarrow.Schema:
    """Of the written rows; taken from the first one where a layout changes the fields."""
    if layout == "rows":
        return table.schema
    made = pyarrow.Table.from_pylist([arranged(row, layout) for row in table.slice(0, 1).to_pylist()]).schema
    kept = {field.name: field for field in table.schema}
    return pyarrow.schema([kept.get(field.name, field) for field in made])


def _open(path: Path, zipped: bool) -> IO[str]:
    opened = gzip.open if zipped else open
    return opened(path, "wt", encoding="utf-8", newline="")


def check_output(path: Path, key: str, layout: str = "rows") -> None:
    """Raise UserError now if `write_rows` could not write there later."""
    if kind_of(path, key) == ".csv" and layout != "rows":
        raise UserError(f"out.layout={layout}: a CSV file cannot hold turns; use .json, .jsonl or .parquet")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise UserError(f"{key}={path}: {why(error)}; name a file that can be written") from None


@contextmanager
def atomic(path: Path, *, key: str = "path") -> Iterator[Path]:
    """A scratch file beside `path` that replaces it if the block ends well; a full disk is a UserError naming `key`."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        os.replace(scratch, path)
    except OSError as error:
        raise UserError(f"{key}={path}: cannot write it ({why(error)}); free space or name another place") from None
    finally:
        scratch.unlink(missing_ok=True)


def write_set_aside(path: Path, bad: Sequence[BadRow]) -> None:
    """The list of bad rows as JSONL; an older list is removed, since it would accuse rows that are fine now."""
    if not bad:
        path.unlink(missing_ok=True)
        return
    with atomic(path, key="set-aside rows") as scratch:
        scratch.write_text("".join(json.dumps(asdict(row)) + "\n" for row in bad), encoding="utf-8")
