"""What a listing needs of every run, in one SQLite file beside the runs: the folders are the truth.

An entry is made again when the files that it was made from have another size or time; an index that is missing, of
another layout or damaged is made anew. Where it cannot be written, nothing is lost but speed: ten thousand records
and configs take a minute to read, ten thousand entries less than a second.
"""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from experiments import store

NAME, LAYOUT = "index.sqlite", 1
FILES = (store.RECORD, "failed.json", "config.yaml")  # that an entry depends on
COSTS = ("score_s", "select_s", "train_s", "eval_s")


@dataclass(frozen=True)
class Run:
    """One run as a listing shows it; `config` maps dotted keys to plain values (lists as JSON text)."""

    id: str
    status: str  # done, damaged, failed, unfinished
    changed: float  # seconds since 1970
    primary: str | None  # the metric that leads, as suite/metric
    best: float | None  # its value at the best validation point
    end: float | None
    minutes: float | None
    config: dict[str, Any]

    @property
    def arm(self) -> str:
        return str(self.config.get("arm", "?"))

    @property
    def pair(self) -> int | None:
        return self.config.get("seed.pair")


def runs(root: Path) -> list[Run]:
    """All runs of a store, by id."""
    there = dict(_stamps(root))
    kept = _kept(root)
    entries = {name: entry for name, (stamp, entry) in kept.items() if there.get(name) == stamp}
    fresh = {name: _entry(root / name) for name in there if name not in entries}
    if fresh or len(kept) != len(there):
        _keep(root, {name: (there[name], entry) for name, entry in fresh.items()}, kept.keys() - there.keys())
    entries |= fresh
    keys = lru_cache(maxsize=None)(json.loads)  # few different lists of keys, many runs
    found = []
    for name in sorted(entries):
        names, values, status, changed, primary, best, end, minutes = json.loads(entries[name])
        config = dict(zip(keys(names), values, strict=True))
        found.append(Run(name, status, changed, primary, best, end, minutes, config))
    return found


def _stamps(root: Path) -> Iterator[tuple[str, str]]:
    """(run id, sizes and times of the files that its entry depends on)."""
    if not root.is_dir():
        return
    with os.scandir(root) as folders:
        for folder in folders:
            if folder.name in store.RESERVED or folder.name.startswith(".") or not folder.is_dir():
                continue
            stamp = []
            for name in FILES:
                try:
                    found = os.stat(os.path.join(folder.path, name))
                    stamp.append(f"{found.st_mtime_ns}:{found.st_size}")
                except OSError:
                    stamp.append("")
            if any(stamp):
                yield folder.name, "/".join(stamp)


def _entry(folder: Path) -> str:
    """JSON of [keys as JSON, values, the fields of `Run` between `id` and `config`]."""
    config, record = read_config(folder), store.read(folder)
    status = "done" if record else "damaged" if (folder / store.RECORD).exists() else "failed"
    if status == "failed" and not (folder / "failed.json").exists():
        status = "unfinished"
    primary = config.get("evaluation.primary")
    best, end, minutes = None, None, None
    if record:
        best, end = (figure(record, point, str(primary)) for point in ("best_val", "end"))
        minutes = minutes_of(record)
    changed = max((path.stat().st_mtime for name in FILES if (path := folder / name).exists()), default=0.0)
    return json.dumps([json.dumps(list(config)), list(config.values()), status, changed, primary, best, end, minutes])


def figure(record: dict[str, Any], point: str, metric: str) -> float | None:
    """The value of `suite/metric` at a point of a record."""
    suite, _, name = metric.partition("/")
    return record.get("metrics", {}).get(point, {}).get(suite, {}).get(name, {}).get("value")


def minutes_of(record: dict[str, Any]) -> float:
    return sum(record.get("cost", {}).get(key) or 0 for key in COSTS) / 60


# --- configs --------------------------------------------------------------------------------------------------------


def read_config(folder: Path) -> dict[str, Any]:
    """A run's config as dotted keys; empty where it is not readable."""
    try:
        return flat_text((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def flat_text(text: str) -> dict[str, Any]:
    """The dotted keys of a config.yaml. Its sections are read one by one: most runs share most of them."""
    sections: list[str] = []
    for line in text.splitlines(keepends=True):
        if line[:1] not in (" ", "-", "\n", "") or not sections:
            sections.append(line)
        else:
            sections[-1] += line
    return {key: value for section in sections for key, value in _section(section)}


@lru_cache(maxsize=4096)
def _section(text: str) -> tuple[tuple[str, Any], ...]:
    tree = yaml.load(text, yaml.CSafeLoader)
    if not isinstance(tree, dict):
        raise ValueError("not a config")
    return tuple(flat(tree))


def flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of a nested config; lists as JSON text."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value) if isinstance(value, (list, dict)) else value


# --- the file -------------------------------------------------------------------------------------------------------


def _open(root: Path) -> sqlite3.Connection:
    db = sqlite3.connect(root / NAME, timeout=10, isolation_level=None)
    if db.execute("PRAGMA user_version").fetchone()[0] != LAYOUT:
        db.executescript(f"DROP TABLE IF EXISTS runs; PRAGMA user_version = {LAYOUT};")
    db.execute("CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, stamp TEXT, entry TEXT)")
    return db


def _kept(root: Path) -> dict[str, tuple[str, str]]:
    """run id -> (stamp, entry) of the index as it is; nothing of one that is missing or cannot be read."""
    if not (root / NAME).exists():
        return {}
    try:
        with closing(_open(root)) as db:
            return {name: (stamp, entry) for name, stamp, entry in db.execute("SELECT id, stamp, entry FROM runs")}
    except sqlite3.OperationalError:  # locked, or read-only
        return {}
    except sqlite3.DatabaseError:
        (root / NAME).unlink(missing_ok=True)
        return {}


def _keep(root: Path, fresh: dict[str, tuple[str, str]], gone: set[str]) -> None:
    try:
        with closing(_open(root)) as db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("DELETE FROM runs WHERE id = ?", [(name,) for name in gone])
            db.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", [(n, s, e) for n, (s, e) in fresh.items()])
            db.execute("COMMIT")
    except sqlite3.Error:
        pass  # the next listing reads the folders again
