"""Whether every record of a store is what its run wrote, and belongs to the config beside it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import yaml
from pydantic import ValidationError

from experiments import store
from experiments.config import PATHS, Config, config_hash, run_id, versions

KEYS = {
    "run_id": str, "arm": str, "seeds": dict, "config_hash": str, "code_version": dict, "status": str, "data": dict,
    "points": dict, "best_val_step": int, "metrics": dict, "cost": dict, "environment": dict,
}  # fmt: skip


@dataclass
class Verified:
    """What was found: run id -> reasons, for those that are broken and for those whose id cannot be checked."""

    whole: list[str] = field(default_factory=list)
    broken: dict[str, list[str]] = field(default_factory=dict)
    unhashed: list[str] = field(default_factory=list)  # finished before hashes were kept
    unproved: dict[str, str] = field(default_factory=dict)


def verify(root: Path) -> Verified:
    """Check every finished run of a store; reads only."""
    found = Verified()
    for name in sorted(store.finished(root)):
        folder = store.run_folder(root, name)
        reasons = faults(folder)
        if not reasons:
            fault, why = id_fault(folder)
            reasons = [fault] if fault else []
            if why:
                found.unproved[name] = why
        if reasons:
            found.broken[name] = reasons
            found.unproved.pop(name, None)
            continue
        found.whole.append(name)
        if not store.sums(folder):
            found.unhashed.append(name)
    return found


def faults(folder: Path) -> list[str]:
    """What is wrong with the files of a finished run."""
    data = (folder / store.RECORD).read_bytes()
    if reason := store.damage(folder, data):
        return [reason]
    record = json.loads(data)
    found = [
        f"{store.RECORD} has no {key}" if key not in record else f"{store.RECORD}: its {key} is no {kind.__name__}"
        for key, kind in KEYS.items()
        if not isinstance(record.get(key), kind)
    ]
    if not found and record["run_id"] != folder.name:
        found.append(f"{store.RECORD} is that of run {record['run_id']}")
    sums = store.sums(folder)
    for name in sorted({*sums, *(n for n in store.SUMMED if (folder / n).exists())} - {store.RECORD}):
        if fault := _file_fault(folder / name, sums.get(name)):
            found.append(f"{name} {fault}")
    return found


def _file_fault(path: Path, written: str | None) -> str | None:
    """What is wrong with a file beside the record: it has its hash, or where there is none it can be read."""
    try:
        if written is not None:
            same = store.sha256(path.read_bytes()) == written
            return None if same else "is not what was written (its SHA-256 is another)"
        if path.suffix == ".parquet":
            pa.parquet.read_table(path)
        elif path.suffix == ".jsonl":
            for line in path.read_text(encoding="utf-8").splitlines():
                json.loads(line)
        elif path.suffix == ".yaml":
            yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
    except FileNotFoundError:
        return "is gone"
    except (OSError, ValueError, pa.ArrowException, yaml.YAMLError) as error:
        return f"cannot be read ({' '.join(str(error).split())[:80]})"
    return None


def id_fault(folder: Path) -> tuple[str | None, str | None]:
    """(why the run's id is not that of its config, why it cannot be told); both None if it is.

    An id also stands for the content of the files that a config names and for the version of the code that hashed it:
    where these are others now, a difference proves nothing.
    """
    try:
        tree = yaml.load((folder / "config.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader)
    except FileNotFoundError:
        return "config.yaml is gone", None
    record = store.read(folder) or {}
    made_by = record["code_version"]
    try:
        config = Config(**tree)
        if run_id(config) == folder.name and config_hash(config) == record["config_hash"]:
            return None, None
    except (ValidationError, TypeError, OSError) as error:
        return None, f"its config is none of this version's ({' '.join(str(error).split())[:80]})"
    if others := [key for key, version in versions(config).items() if made_by.get(key, 1) != version]:
        told = ", ".join(f"{key} {made_by.get(key, 1)}" for key in others)
        return None, f"made by another version of the code ({told})"
    if named := sorted(_named(tree)):
        return None, f"it may be the content of {', '.join(named)} that is another here"
    return "config.yaml is that of another run: it gives another id", None


def _named(tree: Any, key: str = "") -> set[str]:
    """The values of a config that may stand for files."""
    if isinstance(tree, dict):
        return set().union(*(_named(value, name) for name, value in tree.items()), set())
    return {tree} if isinstance(tree, str) and tree and key in PATHS else set()
