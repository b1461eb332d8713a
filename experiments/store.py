"""The store: plain files, each run in a folder named after what determines its result.

<root>/<run id>/config.yaml      what was asked for (secrets left out), written first
                metrics.jsonl    the curve, a line a measurement, flushed as it is made
                items.parquet    per-item results
                losses.csv       the training loss of every step
                subset.csv       ids and hashes of the rows that were trained on, in order
                selection.json   what the selection did, with some rows; answers.json: some answers; see account.py
                outputs.jsonl    what the tuned model says by itself; pairwise.jsonl: and how a judge compares it
                SHA256SUMS       of all these files and the record, as `sha256sum -c` reads it
                record.json      written last and atomically: its presence means done
                failed.json      why there is no record
                checkpoint.safetensors   where a long run goes on from, gone when it is done
                record.json.corrupt    a record that was not what had been written; the run was done again
<root>/cache/                    what runs share (base models, reward models, scores), by content

`python -m experiments.store --help` says what can be done with it; see store_cli.py.
"""

import gc
import hashlib
import json
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import yaml
from filelock import FileLock, Timeout
from pydantic_core import from_json

from experiments import UserError, command_line

SECRET = re.compile(r"(?<![a-z])(api)?key(?![a-z])|token(?!s|i)|secret|passw(or)?d|credential", re.IGNORECASE)
CHECKPOINT = "checkpoint.safetensors"
SUBSET = "subset.csv"
RESERVED = {"cache", "reports", "wandb"}  # folders of the store that are no runs
RECORD, SUMS, CORRUPT = "record.json", "SHA256SUMS", "record.json.corrupt"
SUMMED = (
    "answers.json", "config.yaml", "items.parquet", "losses.csv", "metrics.jsonl", "outputs.jsonl", "pairwise.jsonl",
    "selection.json", "subset.csv",
)  # fmt: skip


# --- text and files -------------------------------------------------------------------------------------------------


def canonical(value: Any, indent: int | None = 1) -> str:
    """JSON text that depends on the values alone: sorted keys, floats by `repr`, no NaN (null stands for it)."""
    return json.dumps(_plain(value), sort_keys=True, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):  # numpy and torch scalars
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_atomic(path: Path, text: str) -> None:
    """Write `text` so that a reader, or a crash at any moment, sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp's files are private; a record is meant to be shared
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def redact(value: Any, key: str = "") -> Any:
    """The same nested value with every secret (`api_key`, `token`, `password`, ...) replaced by "***"."""
    if isinstance(value, dict):
        return {name: redact(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item, key) for item in value]
    return "***" if isinstance(value, str) and value and SECRET.search(key) else value


def check_writable(root: Path) -> None:
    """Raise `UserError` unless files can be made under `root`."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root) as probe:
            probe.write(b"\0" * 4096)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(
            f"store.root={root}: {reason}; free or choose a writable folder with store.root=FOLDER"
        ) from None


# --- runs -----------------------------------------------------------------------------------------------------------


def run_folder(root: Path | str, run_id: str) -> Path:
    """Where a run lives."""
    return Path(root) / run_id


def lock(folder: Path) -> FileLock:
    """One process at a time works in `folder`; a killed process leaves no lock behind (the system drops it)."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".lock")


def open_run(folder: Path, config: dict[str, Any]) -> Path:
    """Make `folder` ready for a run: of an earlier attempt its checkpoint is left, `config.yaml` says what is asked.

    A record that was set aside stays, as evidence.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in (".lock", CHECKPOINT, CORRUPT):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_atomic(folder / "config.yaml", yaml.safe_dump(redact(config), sort_keys=False, allow_unicode=True))
    return folder


class MetricsLog:
    """`metrics.jsonl`: one measurement a line, on disk as soon as it is made."""

    def __init__(self, folder: Path):
        self._file: TextIO = open(folder / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115 (closed below)

    def write(self, *, tokens: int, step: int, epoch: float, suite: str, metric: str, value: float) -> None:
        """`tokens` are those trained on so far; `epoch` is a fraction of the subset."""
        row = {"tokens": tokens, "step": step, "epoch": epoch, "suite": suite, "metric": metric, "value": value}
        self._file.write(json.dumps(_plain(row), allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The curve's measurements; a line that a crash cut short is left out."""
    rows = []
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def finish(folder: Path, record: dict[str, Any]) -> None:
    """Write `record.json`: from here on the run is done. What it and the files beside it were is kept as hashes."""
    text = canonical(record)
    sums = {name: sha256((folder / name).read_bytes()) for name in SUMMED if (folder / name).exists()}
    sums[RECORD] = sha256(text.encode())
    write_atomic(folder / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    write_atomic(folder / RECORD, text)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sums(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 when the run was finished; nothing for a run from before there were any."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def fail(folder: Path, run_id: str, error: str, step: int | None = None, trace: str | None = None) -> None:
    """Write `failed.json`: why the run has no record. It is tried again when it is asked for again."""
    write_atomic(folder / "failed.json", canonical({"run_id": run_id, "error": error, "step": step, "trace": trace}))


def read(folder: Path) -> dict[str, Any] | None:
    """The record of a finished run, else None. A damaged one is none: see `set_aside`."""
    try:
        data = (folder / RECORD).read_bytes()
    except FileNotFoundError:
        return None
    return None if damage(folder, data) else from_json(data)  # twice as fast as json's


def damage(folder: Path, data: bytes) -> str | None:
    """What is wrong with the bytes of a record: they must be those that were written, or JSON where no hash is kept."""
    if (written := sums(folder).get(RECORD)) is not None:
        return None if sha256(data) == written else f"{RECORD} is not what was written (its SHA-256 is another)"
    try:
        whole = isinstance(json.loads(data), dict)
    except ValueError:
        whole = False
    return None if whole else f"{RECORD} is not whole"


def set_aside(root: Path | str, run_ids: Iterable[str]) -> dict[str, str]:
    """Rename the damaged records among those of `run_ids`, so that these runs count as not done; run id -> damage."""
    found = {}
    for run_id in run_ids:
        folder = run_folder(root, run_id)
        try:
            if not damage(folder, (folder / RECORD).read_bytes()):
                continue
            with lock(folder).acquire(timeout=0):  # and once more: another process may have done the run again
                if reason := damage(folder, (folder / RECORD).read_bytes()):
                    os.replace(folder / RECORD, folder / CORRUPT)
                    found[run_id] = reason
        except (FileNotFoundError, Timeout):
            continue  # not done, or being done
    return found


def failure(folder: Path) -> dict[str, Any] | None:
    """What `fail` wrote, else None."""
    try:
        return json.loads((folder / "failed.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def finished(root: Path | str) -> set[str]:
    """The ids of all finished runs of a store."""
    if not Path(root).is_dir():
        return set()
    with os.scandir(root) as entries:
        return {e.name for e in entries if e.name not in RESERVED and os.path.exists(os.path.join(e.path, RECORD))}


def records(root: Path | str, run_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The records of those of `run_ids` that are finished."""
    found = ((run_id, read(run_folder(root, run_id))) for run_id in run_ids)
    with no_collection():
        return {run_id: record for run_id, record in found if record is not None}


@contextmanager
def no_collection() -> Iterator[None]:
    """Inside, the garbage collector rests: it would look again and again through millions of things that stay."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


# --- what runs share ------------------------------------------------------------------------------------------------


def cached_folder(path: Path, build: Callable[[Path], None]) -> Path:
    """The folder `path`, built by `build(folder)` if it is not there whole.

    `build` fills a folder beside it, `<path>.part`, which is renamed when it is complete: `path` exists only whole. The
    part is kept over a crash and handed to `build` again, so that a long build can go on from its own checkpoints. Of
    several processes one builds and the others wait. A folder that is no longer what was built (SHA256SUMS, looked at
    once a process) is set aside as `<path>.corrupt`, said on stderr, and built again.
    """
    if path.is_dir() and not _damaged(path):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        if path.is_dir() and (name := _damaged(path)):
            aside = path.with_name(f"{path.name}.corrupt")
            print(f"{path}: {name} is not what was built; set aside as {aside.name}, built again", file=sys.stderr)
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(path, aside)
        if not path.is_dir():
            part = path.with_name(f"{path.name}.part")
            part.mkdir(exist_ok=True)
            build(part)
            files = sorted(file for file in part.rglob("*") if file.is_file())
            lines = [f"{_digest(file)}  {file.relative_to(part).as_posix()}\n" for file in files]
            write_atomic(part / SUMS, "".join(lines))
            os.replace(part, path)
    return path


def _damaged(folder: Path) -> str | None:
    """The first file of a cached folder that is gone or is not what was built; None also where nothing tells."""
    if not (folder / SUMS).exists():
        return None  # built before there were hashes
    return _first_damaged(folder, (folder / SUMS).stat().st_mtime_ns)


@cache
def _first_damaged(folder: Path, _built: int) -> str | None:
    for name, digest in sums(folder).items():
        if not (folder / name).exists() or _digest(folder / name) != digest:
            return name
    return None


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


# --- the command line -----------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """`store_cli.main`, under the name that one would look for; returns the exit code."""
    from experiments import store_cli

    return store_cli.main(arguments)


if __name__ == "__main__":
    command_line(main)
