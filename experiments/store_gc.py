"""What a store can do without: failed and unfinished runs, what crashes left, and cache entries that no run refers to.

Nothing that the report of an experiment was made from is ever among it, and nothing that was paid for: scores stay,
but those of a model that goes.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from experiments import UserError, store

BUILT = re.compile(r"(base|reward|scratch)-[0-9a-f]{16}")  # folders of cache/models that can be built again
LOCK = "a lock that nobody holds"
TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")  # what `store.write_atomic` writes into before it renames


@dataclass(frozen=True)
class Waste:
    """A file or folder that can go, why, and its size in bytes."""

    path: Path
    why: str
    size: int


def check_unused(root: Path) -> None:
    """Raise `UserError` where a process holds a lock anywhere in the store."""
    for path in _locks(root):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            raise UserError(f"{root}: in use ({path} is held); wait until the sweep there is over") from None


def waste(root: Path) -> list[Waste]:
    """All that can go, in the order of its kinds."""
    used = _reported(root)
    done = store.finished(root)
    found, kept = [], []
    for folder in _runs(root):
        if folder.name in done or folder.name in used:
            kept.append(folder)
            found += [_waste(path, "what a crash left") for path in _left(folder.iterdir())]
            found += [_waste(path, "a damaged record, done again") for path in [folder / store.CORRUPT]
                      if path.exists() and folder.name in done]  # fmt: skip
        else:
            failed = (folder / "failed.json").exists()
            found.append(_waste(folder, "a failed run" if failed else "an unfinished run"))
    cache = root / "cache"
    if cache.is_dir():
        half = list(cache.glob("*/*.part"))
        found += [_waste(path, "half built") for path in sorted(half)]
        found += [_waste(path, "what a crash left") for path in _left(cache.glob("*/*"))]
        models = _unreferenced(cache / "models", kept)
        found += [_waste(path, "no run refers to it") for path in models]
        found += [_waste(path, "made with a model that goes") for path in _made_with(cache, models)]
    going = [one.path for one in found]
    locks = [path for path in _locks(root) if not any(path.is_relative_to(other) for other in going)]
    return found + [_waste(path, LOCK) for path in sorted(locks)]


def remove(found: Iterable[Waste]) -> int:
    """Remove it all; returns how many bytes that freed. A run that was begun meanwhile is left alone."""
    freed = 0
    for one in found:
        with _held(one.path) as ours:
            if not ours:
                continue
            if one.path.is_dir():
                shutil.rmtree(one.path)
            else:
                one.path.unlink(missing_ok=True)
            freed += one.size
    return freed


@contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Whether this process has the lock that goes with a path, for as long as it is entered."""
    if path.name.endswith(".lock"):
        lock = path
    elif path.is_dir() and (path / ".lock").exists():
        lock = path / ".lock"
    else:
        lock = path.with_name(f"{path.name.removesuffix('.part')}.lock")
        if not lock.exists():
            yield True
            return
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        held.release()


def _reported(root: Path) -> set[str]:
    """Ids of the runs that reports were made from; raises UserError for a report that does not say which."""
    used: set[str] = set()
    for path in (root / "reports").glob("*/manifest.json"):
        try:
            used |= set(json.loads(path.read_text(encoding="utf-8"))["runs"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: does not say which runs it uses; build that report again first") from None
    return used


def _runs(root: Path) -> list[Path]:
    """Folders of runs: those that hold what a run writes first, and empty ones under a run's name."""
    if not root.is_dir():
        return []
    folders = [path for path in root.iterdir() if path.is_dir() and path.name not in store.RESERVED]
    begun = ("config.yaml", "failed.json", store.RECORD)
    return sorted(
        path
        for path in folders
        if re.fullmatch(r"[0-9a-f]{16}", path.name) and (any((path / n).exists() for n in begun) or _bare(path))
    )


def _bare(folder: Path) -> bool:
    return all(path.name == ".lock" for path in folder.iterdir())


def _left(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if TEMPORARY.fullmatch(path.name) and path.is_file())


def _locks(root: Path) -> list[Path]:
    return [*(path / ".lock" for path in _runs(root) if (path / ".lock").exists()), *(root / "cache").rglob("*.lock")]


def _unreferenced(models: Path, runs: Sequence[Path]) -> list[Path]:
    """Models that can be built again and that none of the runs started from or was scored with."""
    there = sorted(path for path in models.glob("*") if BUILT.fullmatch(path.name) and path.is_dir())
    if not there:
        return []
    needed: set[str] = set()
    for folder in runs:
        try:
            needed |= _needed((folder / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, yaml.YAMLError):
            return []  # what such a run refers to cannot be told: nothing goes
    return [path for path in there if path.name not in needed]


def _needed(text: str) -> set[str]:
    from experiments import prepare
    from experiments.config import Config, trains_reward_model

    config = Config(**yaml.load(text, yaml.CSafeLoader))
    found = {prepare.base_folder(config).name}
    return found | ({prepare.reward_folder(config).name} if trains_reward_model(config) else set())


def _made_with(cache: Path, models: Sequence[Path]) -> list[Path]:
    """Scores and embeddings that only models which go could be asked for."""
    from curate.scoring.loading import model_identity

    folders = [folder for path in models for folder in (path, *(p for p in path.iterdir() if p.is_dir()))]
    found: set[Path] = set()
    for folder in folders:
        identity = model_identity(str(folder))
        found |= {*(cache / "scores").glob(f"*-{identity}.sqlite"), *(cache / "embeddings").glob(f"{identity}-*.npy")}
    return sorted(found)


def _waste(path: Path, why: str) -> Waste:
    if not path.is_dir():
        return Waste(path, why, path.stat().st_size)
    files = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    return Waste(path, why, sum(os.lstat(file).st_size for file in files))
