"""Every number of the finished runs as one table in long form, a file that pandas reads as it is.

run_id, arm, seed_*, point, suite, metric, value, n, tokens as in `runs.csv`, then the keys by which runs of one arm
differ. Rows are written run by run: a store of any size passes through little memory.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from experiments import UserError, store
from experiments import table as tables
from experiments.store_index import Run
from experiments.store_list import levels

SUFFIXES = (".csv", ".parquet")
TYPES = {name: pa.string() for name in ("run_id", "arm", "point", "suite", "metric")}
TYPES |= {f"seed_{name}": pa.int64() for name in tables.SEEDS} | {name: pa.float64() for name in ("value",)}
TYPES |= {name: pa.int64() for name in ("n", "tokens")}
BATCH = 200  # runs


def write(root: Path, runs: Sequence[Run], path: Path) -> tuple[int, int]:
    """Write the finished ones of `runs`; returns (runs, rows). Raises UserError if there are none."""
    done = [run for run in runs if run.status == "done"]
    if not done:
        raise UserError(
            f"{path}: none of the runs that were asked for is finished; see python -m experiments.store list"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        rows = _write(root, done, part, path.suffix.lower())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return len(done), rows


def _write(root: Path, runs: Sequence[Run], part: Path, suffix: str) -> int:
    varied = levels(runs)
    keys = sorted({key for some in varied.values() for key in some})
    kinds = {key: _kind(run.config.get(key) for run in runs) for key in keys}
    schema = pa.schema([(name, TYPES[name]) for name in (*tables.IDENTITY, *tables.MEASURE)] + list(kinds.items()))
    rows = 0
    writer: Any = pa.parquet.ParquetWriter(part, schema) if suffix == ".parquet" else None
    writer = writer or pa.csv.CSVWriter(part, schema, write_options=pa.csv.WriteOptions(quoting_style="needed"))
    with writer:
        for start in range(0, len(runs), BATCH):
            table = _batch(root, runs[start : start + BATCH], schema, keys)
            writer.write_table(table)
            rows += len(table)
    return rows


def _batch(root: Path, runs: Sequence[Run], schema: pa.Schema, keys: Sequence[str]) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for run in runs:
        record = store.read(store.run_folder(root, run.id))
        if record is None:
            continue  # gone since it was listed
        numbers = list(tables.numbers(record))
        for name, values in zip(tables.MEASURE, zip(*numbers, strict=True), strict=True):
            columns[name] += values
        seeds = {f"seed_{name}": record["seeds"].get(name) for name in tables.SEEDS}
        same = {"run_id": run.id, "arm": record["arm"], **seeds, **{key: run.config.get(key) for key in keys}}
        for name, value in same.items():
            columns[name] += [_as(value, schema.field(name).type)] * len(numbers)
    return pa.table(columns, schema)


def _kind(values: Iterable[Any]) -> pa.DataType:
    """The narrowest type that holds all values of a key."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.bool_()
    if kinds <= {int}:
        return pa.int64()
    return pa.float64() if kinds <= {int, float} else pa.string()


def _as(value: Any, kind: pa.DataType) -> Any:
    return str(value) if value is not None and kind == pa.string() else value


def is_file(name: str) -> bool:
    """Whether `export NAME` asks for a table and not for a folder."""
    return Path(name).suffix.lower() in SUFFIXES
