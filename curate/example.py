"""The schema of a pool, and loading any source into it.

A pool is a `datasets.Dataset` with the columns of `FEATURES`. Ids are content hashes fixed at load: the same row has
the same id everywhere, and keeps it whatever is done to it later.
"""

import csv
import errno
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from datasets import Dataset, Features, Value, load_dataset
from datasets.exceptions import DatasetNotFoundError

from curate.errors import UserError

__all__ = [
    "FEATURES", "BadRow", "LoadedPool", "UserError", "atomic", "check_output", "column", "digest", "load_pool",
    "make_pool", "pool_hash", "render", "replace", "write_rows",
]  # fmt: skip

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
    }
)
HUB = "hub:"  # a path that starts so names a data set on the hub
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
# What a field may be called in a file when `fields` does not say.
_ALIASES = {
    "instruction": ("instruction", "prompt"),
    "input": ("input",),
    "output": ("output", "completion", "response"),
    "category": ("category",),
    "near_miss": ("near_miss",),
}


@dataclass(frozen=True)
class BadRow:
    """A row that was set aside: its line in the file (from 1; the row's number in Parquet) and why."""

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
    columns: dict[str, list[Any]] = {name: [] for name in FEATURES}
    for row in rows:
        full = {**row, "input": row.get("input") or "", "source": row.get("source") or source}
        full["id"] = row.get("id") or digest(full["instruction"], full["input"], full["output"])
        for name, values in columns.items():
            values.append(full.get(name))
    return Dataset.from_dict(columns, features=FEATURES)


def column(pool: Dataset, name: str) -> list[Any]:
    """One column as a plain list."""
    return pool[name][:]


def replace(pool: Dataset, **columns: list[Any]) -> Dataset:
    """The pool with these columns exchanged."""
    return Dataset.from_dict({name: columns.get(name) or column(pool, name) for name in FEATURES}, features=FEATURES)


def render(template: Mapping[str, str], instruction: str, input: str) -> str:
    """The prompt of a row. One pass, so that braces in the data are data."""
    values = {"instruction": instruction, "input": input}
    text = template["with_input" if input else "without_input"]
    return re.sub(r"\{(instruction|input)\}", lambda match: values[match[1]], text)


def pool_hash(pool: Dataset) -> str:
    """BLAKE2b-64 in hex of everything in the pool, in order."""
    hashed = blake2b(digest_size=8)
    for name in FEATURES:
        hashed.update(json.dumps([name, column(pool, name)]).encode())
    return hashed.hexdigest()


def load_pool(
    path: str | Path,
    *,
    rows: int | None = None,
    max_bad_share: float = 0.05,
    set_aside: Path | None = None,
    fields: Mapping[str, str | None] | None = None,
) -> LoadedPool:
    """Load a JSON, JSONL, CSV or Parquet file, or `hub:NAME`, with Alpaca's fields or prompt and completion.

    Rows with a missing or wrong-typed field, an empty response, invalid UTF-8 or a malformed line are set aside, with
    line and reason, into the JSONL file `set_aside` if one is named. `rows` takes the first so many good ones. `fields`
    says what our fields are called in the file; null leaves an optional field out.

    Raises UserError if the file cannot be read, holds no good row or fewer than `rows`, or if the share of bad rows
    exceeds `max_bad_share`.
    """
    names = {**_ALIASES, **{field: (name,) if name else () for field, name in (fields or {}).items()}}
    good: list[dict[str, str | None]] = []
    bad: list[BadRow] = []
    try:
        for line, row in _hub(str(path)[len(HUB) :]) if str(path).startswith(HUB) else _records(Path(path)):
            try:
                good.append(_example(row, names))
            except ValueError as error:
                bad.append(BadRow(line, str(error)))
            if len(good) == rows:
                break
    except OSError as error:
        raise UserError(f"data.path={path}: {_reason(error)}; name a readable file") from None
    if set_aside is not None:
        _write_bad(set_aside, bad)
    read = len(good) + len(bad)
    example = f"; the first: line {bad[0].line}: {bad[0].reason}" if bad else ""
    if not good:
        raise UserError(f"data.path={path}: no usable row among {read}{example or '; is the file empty?'}")
    if len(bad) > max_bad_share * read:
        raise UserError(
            f"data.max_bad_share={max_bad_share}: {len(bad)} of {read} rows of {path} are bad; mend them or raise it"
            + example
        )
    if rows is not None and len(good) < rows:
        raise UserError(f"data.rows={rows}: {path} holds {len(good)} good rows; ask for at most these, or null for all")
    return LoadedPool(make_pool(good, source=Path(path).stem), read, bad)


def write_rows(path: str | Path, pool: Dataset, *, key: str = "out.path") -> None:
    """Write a pool as JSON, JSONL, CSV or Parquet, by suffix and atomically. Columns that are all null are left out.

    `key` is the config key to name in an error.
    """
    path = Path(path)
    _check_suffix(path, key)
    columns = {name: column(pool, name) for name in FEATURES}
    columns = {name: values for name, values in columns.items() if any(value is not None for value in values)}
    rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    with atomic(path, key=key) as scratch:
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(pyarrow.table(columns), scratch)
            return
        with scratch.open("w", encoding="utf-8", newline="") as file:
            if path.suffix == ".csv":
                writer = csv.writer(file)
                writer.writerow(columns)
                writer.writerows(zip(*columns.values(), strict=True))
                return
            lines = (json.dumps(row, ensure_ascii=False) for row in rows)
            if path.suffix == ".jsonl":
                file.writelines(line + "\n" for line in lines)
            else:
                file.write("[\n" + ",\n".join(lines) + "\n]\n")


def check_output(path: Path, key: str) -> None:
    """Raise UserError now if `write_rows` could not write there later."""
    _check_suffix(path, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise UserError(f"{key}={path}: {_reason(error)}; name a file that can be written") from None


@contextmanager
def atomic(path: Path, *, key: str = "path") -> Iterator[Path]:
    """A scratch file beside `path` that replaces it if the block ends well; a full disk is a UserError naming `key`."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        os.replace(scratch, path)
    except OSError as error:
        raise UserError(f"{key}={path}: cannot write it ({_reason(error)}); free space or name another place") from None
    finally:
        scratch.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _check_suffix(path: Path, key: str) -> None:
    if path.suffix not in SUFFIXES:
        raise UserError(f"{key}={path}: unknown kind of file {path.suffix!r}; use {', '.join(SUFFIXES)}")


def _write_bad(path: Path, bad: list[BadRow]) -> None:
    if not bad:
        path.unlink(missing_ok=True)  # an older list would accuse rows that are fine now
        return
    with atomic(path, key="set-aside rows") as scratch:
        scratch.write_text("".join(json.dumps(asdict(row)) + "\n" for row in bad), encoding="utf-8")


def _example(row: Any, names: Mapping[str, tuple[str, ...]]) -> dict[str, str | None]:
    """Our fields of one raw row; raises ValueError with the reason if it is bad."""
    if isinstance(row, ValueError):
        raise row
    if not isinstance(row, dict):
        raise ValueError(f"expected an object, got {type(row).__name__}")
    values = {field: _text(row, field, aliases) for field, aliases in names.items()}
    for field in ("instruction", "output"):
        if values[field] is None:
            raise ValueError(f"{field} is missing (fields here: {', '.join(map(str, row)) or 'none'})")
    if not (values["output"] or "").strip():
        raise ValueError("output is empty")
    if not (values["instruction"] or values["input"] or "").strip():
        raise ValueError("instruction is empty")
    return values


def _text(row: dict[str, Any], field: str, aliases: tuple[str, ...]) -> str | None:
    value = next((row[name] for name in aliases if row.get(name) is not None), None)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{field} should be text, not {type(value).__name__}")
    try:
        value.encode()  # bytes that are no UTF-8 were read as lone surrogates, which JSON escapes can also hold
    except UnicodeEncodeError:
        raise ValueError(f"{field} is not valid UTF-8") from None
    return value if value or field in ("instruction", "input", "output") else None


def _hub(name: str) -> Iterator[tuple[int, Any]]:
    """(number, row) of a data set's split `train` on the hub."""
    try:
        rows = load_dataset(name, split="train")
    except (OSError, ValueError, DatasetNotFoundError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"data.path={HUB}{name}: not to be had from the hub ({reason}); give a file") from None
    yield from enumerate(rows, 1)


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, raw row) for each row; a row that cannot be parsed is the ValueError that says why."""
    _check_suffix(path, "data.path")
    if path.suffix == ".parquet":
        yield from _parquet(path)
        return
    newline = "" if path.suffix == ".csv" else None
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline) as file:
        if path.suffix == ".csv":
            yield from _csv(file)
        elif path.suffix == ".jsonl":
            yield from _json_lines(file)
        else:
            text = file.read()
            # Files of JSON lines are often called .json
            yield from _json_lines(text.split("\n")) if text.lstrip().startswith("{") else _json_array(text, path)


def _json_lines(lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            row = ValueError(f"malformed JSON: {error.msg} at column {error.colno}")
        except (ValueError, RecursionError) as error:  # numbers too long, nesting too deep
            row = ValueError(f"malformed JSON: {error}")
        yield number, row


def _json_array(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """The elements of a JSON list one by one, so that each has its line number."""
    decode, space = json.JSONDecoder().raw_decode, re.compile(r"\s*")

    def skip(at: int) -> int:
        found = space.match(text, at)
        return found.end() if found else at

    def broken(at: int, why: str) -> UserError:
        where = f"line {text.count(chr(10), 0, at) + 1}"
        return UserError(f"data.path={path}: malformed JSON at {where} ({why}); mend the file, or use JSONL")

    at = skip(0)
    if at == len(text):
        return
    if text[at] != "[":
        raise broken(at, "expected a list of objects")
    at, counted, line = skip(at + 1), 0, 1
    if text[at : at + 1] == "]":
        return
    while True:
        line, counted = line + text.count("\n", counted, at), at
        try:
            row, at = decode(text, at)
        except json.JSONDecodeError as error:
            raise broken(error.pos, error.msg.lower()) from None
        except (ValueError, RecursionError) as error:
            raise broken(at, str(error)) from None
        yield line, row
        at = skip(at)
        mark, at = text[at : at + 1], skip(at + 1)
        if mark == "]":
            if at < len(text):
                raise broken(at, "something follows the list")
            return
        if mark != ",":
            raise broken(at, "expected a comma or the end of the list")


def _csv(file: Iterable[str]) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(file, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, ValueError(f"malformed CSV: {error}")
            continue
        if header is None:
            header = values
        elif len(values) == len(header):
            yield line, dict(zip(header, values, strict=True))
        elif values:
            yield line, ValueError(f"malformed CSV: {len(values)} values for {len(header)} columns")


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"data.path={path}: malformed Parquet after row {number} ({reason}); write it anew") from None
