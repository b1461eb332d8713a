"""Raw rows of any source: a JSON, JSONL, CSV or Parquet file, gzipped or not, or a data set of the hub.

Nothing here knows what a row means. A row that cannot be parsed is handed on as the ValueError that says why, with its
line, so that whoever counts rows can count it; only a source that cannot be read on at all is an error.
"""

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow
import pyarrow.parquet

from curate.errors import UserError

HUB = "hub:"  # a source that starts so names a data set of the hub
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")

Numbered = Iterator[tuple[int, Any]]  # (line, raw row or ValueError); the row's number where there are no lines, or one


def records(source: str | Path, key: str = "data.path") -> Numbered:
    """All rows of a file, or of `hub:NAME[@REVISION][:CONFIG][:SPLIT]` (by default the split `train`).

    Raises UserError, which names the config key `key`, when the source cannot be opened or is broken beyond a row.
    """
    if str(source).startswith(HUB):
        yield from _hub(str(source), key)
        return
    path = Path(source)
    try:
        yield from _file(path, key)
    except OSError as error:
        raise UserError(f"{key}={path}: {why(error)}; name a readable file") from None
    except (EOFError, zlib.error):
        raise UserError(f"{key}={path}: the compressed file ends too early or is damaged; write it anew") from None


def why(error: OSError) -> str:
    """The reason of a failed file operation, as part of a sentence."""
    return (error.strerror or str(error)).lower()


def kind_of(path: Path, key: str) -> str:
    """The suffix that says how a file is written, less .gz; raises UserError for an unknown one."""
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix not in SUFFIXES or (suffix == ".parquet" and path.suffix == ".gz"):
        raise UserError(f"{key}={path}: unknown kind of file {path.suffix!r}; use {', '.join(SUFFIXES)}, text also .gz")
    return suffix


def _file(path: Path, key: str) -> Numbered:
    kind = kind_of(path, key)
    if kind == ".parquet":
        yield from _parquet(path, key)
        return
    with _text(path, key, newline="" if kind == ".csv" else None) as file:
        if kind == ".csv":
            yield from _csv(file)
        elif kind == ".jsonl":
            yield from _json_lines(file)
        else:
            text = file.read()
            # Files of JSON lines are often called .json
            lines = text.lstrip().startswith("{")
            yield from _json_lines(text.split("\n")) if lines else _json_array(text, path, key)


def _text(path: Path, key: str, newline: str | None) -> IO[str]:
    """Bytes that are no UTF-8 come out as lone surrogates, which the checks of a field find again."""
    with path.open("rb") as raw:
        magic = raw.read(2)
    if magic in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{key}={path}: is UTF-16; write it as UTF-8")
    opened: Any = gzip.open(path) if magic == b"\x1f\x8b" else path.open("rb")  # noqa: SIM115, closed with what wraps it
    return io.TextIOWrapper(opened, encoding="utf-8-sig", errors="surrogateescape", newline=newline)


class Repeated(dict[str, Any]):
    """An object in which a key stood twice: which of the two was meant, nobody knows."""

    key = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    names = [name for name, _ in pairs]
    twice = Repeated(made)
    twice.key = next(name for name in names if names.count(name) > 1)
    return twice


_decode = json.JSONDecoder(object_pairs_hook=_object)


def _checked(row: Any) -> Any:
    return ValueError(f"the key {row.key!r} stands twice") if isinstance(row, Repeated) else row


def _json_lines(lines: Iterable[str]) -> Numbered:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = _checked(_decode.decode(line))
        except json.JSONDecodeError as error:
            row = ValueError(f"malformed JSON: {error.msg} at column {error.colno}")
        except (ValueError, RecursionError) as error:  # numbers too long, nesting too deep
            row = ValueError(f"malformed JSON: {error}")
        yield number, row


def _json_array(text: str, path: Path, key: str) -> Numbered:
    """The elements of a JSON list one by one, each with its line number; with its own number if all is one line."""
    one_line = "\n" not in text.strip()
    space = re.compile(r"\s*")

    def skip(at: int) -> int:
        found = space.match(text, at)
        return found.end() if found else at

    def broken(at: int, reason: str) -> UserError:
        where = f"line {text.count(chr(10), 0, at) + 1}"
        return UserError(f"{key}={path}: malformed JSON at {where} ({reason}); mend the file, or use JSONL")

    at = skip(0)
    if at == len(text):
        return
    if text[at] != "[":
        raise broken(at, "expected a list of objects")
    at, counted, line, number = skip(at + 1), 0, 1, 0
    if text[at : at + 1] == "]":
        return
    while True:
        line, counted, number = line + text.count("\n", counted, at), at, number + 1
        try:
            row, at = _decode.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise broken(error.pos, error.msg.lower()) from None
        except (ValueError, RecursionError) as error:
            raise broken(at, str(error)) from None
        yield number if one_line else line, _checked(row)
        at = skip(at)
        mark, at = text[at : at + 1], skip(at + 1)
        if mark == "]":
            if at < len(text):
                raise broken(at, "something follows the list")
            return
        if mark != ",":
            raise broken(at, "expected a comma or the end of the list")


def _csv(file: Iterable[str]) -> Numbered:
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
            more = f" (lines {line} to {reader.line_num} are taken as one row)" if reader.line_num > line else ""
            yield line, ValueError(f"malformed CSV: {error}{more}")
            continue
        if header is None:
            header = values
        elif len(values) == len(header):
            yield line, _checked(_object(list(zip(header, values, strict=True))))
        elif values:
            yield line, ValueError(f"malformed CSV: {len(values)} values for {len(header)} columns")


def _parquet(path: Path, key: str) -> Numbered:
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=8192):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:  # also text and times that Python cannot hold
        reason = " ".join(str(error).split())
        raise UserError(f"{key}={path}: malformed Parquet after row {number} ({reason}); write it anew") from None


def _hub(source: str, key: str) -> Numbered:
    from datasets import load_dataset

    name, *rest = source.removeprefix(HUB).split(":")
    name, _, revision = name.partition("@")
    if not name or len(rest) > 2:
        raise UserError(f"{key}={source}: write {HUB}NAME, {HUB}NAME:SPLIT or {HUB}NAME:CONFIG:SPLIT")
    config, split = rest[0] if len(rest) == 2 else None, rest[-1] if rest else "train"
    try:
        rows = load_dataset(name, config, split=split, revision=revision or None)
    except Exception as error:  # the hub's libraries raise two dozen kinds, all of them mean that it is not to be had
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{key}={source}: not to be had from the hub ({reason}); correct it or give a file") from None
    yield from enumerate(rows, 1)
