"""Finished runs and reports out of a store and into another, so that a long experiment can be done in pieces.

<folder>/<experiment>/REPORT.md claims.json manifest.json figures/              the report as it stands
                      runs.csv.xz records.jsonl.xz                             its numbers, and the records behind them
                      (without PNGs, which say what the SVGs do, and without the page: it shows rows of the data, holds
                      every figure again, and `import` and `experiments.report` make it anew)
<folder>/others.jsonl.xz                                                       finished runs that no report has yet

A record travels with the config of its run (secrets left out): metrics, seeds, versions, ids and hashes, but no data
row. Files depend on their content alone: two exports of one store are equal byte for byte.
"""

import hashlib
import json
import lzma
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from experiments import UserError, store

RECORDS, OTHERS = "records.jsonl.xz", "others.jsonl.xz"
COPIED = ("REPORT.md", "claims.json", "manifest.json")


def export(root: Path, folder: Path, names: Sequence[str] = ()) -> dict[str, int]:
    """Write the reports `names` of the store `root` (none named: all, and every other finished run) into `folder`.

    Returns how many runs each file got. Raises UserError for a report that is not there.
    """
    there = sorted(path.parent.name for path in (root / "reports").glob("*/manifest.json"))
    for name in names:
        if name not in there:
            known = ", ".join(there) or "none"
            raise UserError(f"{name}: no such report in {root / 'reports'} (there are: {known}); run experiment={name}")
    counts: dict[str, int] = {}
    reported: set[str] = set()
    for name in names or there:
        report, out = root / "reports" / name, folder / name
        run_ids = json.loads((report / "manifest.json").read_text(encoding="utf-8"))["runs"]
        out.mkdir(parents=True, exist_ok=True)
        for file in COPIED:
            shutil.copyfile(report / file, out / file)
        (out / "index.html").unlink(missing_ok=True)  # of an earlier layout
        shutil.rmtree(out / "figures", ignore_errors=True)
        if (report / "figures").is_dir():
            shutil.copytree(report / "figures", out / "figures", ignore=shutil.ignore_patterns("*.png"))
        (out / "runs.csv").unlink(missing_ok=True)  # of an earlier layout: there is to be one table
        _write(out / "runs.csv.xz", (report / "runs.csv").read_bytes())
        counts[name] = _write_records(root, run_ids, out / RECORDS)
        reported |= set(run_ids)
    if not names:
        others = sorted(store.finished(root) - reported)
        counts["others"] = _write_records(root, others, folder / OTHERS) if others else 0
        if not others:
            (folder / OTHERS).unlink(missing_ok=True)
    return counts


def _write_records(root: Path, run_ids: Iterable[str], path: Path) -> int:
    lines = []
    for run_id in sorted(run_ids):
        place = store.run_folder(root, run_id)
        record = store.read(place)
        if record is None:
            raise UserError(f"{place}: its record is gone or damaged; run the experiment again")
        config = (place / "config.yaml").read_text(encoding="utf-8")
        lines.append(store.canonical({"sha256": digest(record), "config": config, "record": record}, indent=None))
    _write(path, "".join(lines).encode())
    return len(lines)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(lzma.compress(data))
    part.replace(path)


def digest(record: dict[str, Any]) -> str:
    """SHA-256 of a record's canonical text."""
    return hashlib.sha256(store.canonical(record).encode()).hexdigest()


def read_records(path: Path) -> list[dict[str, Any]]:
    """The entries {sha256, config, record} of an exported file; raises UserError for one that is not as it was."""
    try:
        text = lzma.decompress(path.read_bytes()).decode("utf-8")
        if not text:
            raise ValueError("it is empty")
        entries = [json.loads(line) for line in text.splitlines()]
        spoilt = [e["record"]["run_id"] for e in entries if digest(e["record"]) != e["sha256"]]
    except (OSError, EOFError, lzma.LZMAError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a whole export ({' '.join(str(error).split())}); export it again") from None
    if spoilt:
        raise UserError(f"{path}: run {spoilt[0]} is not what was exported; export it again")
    return entries


def take_in(root: Path, folder: Path) -> tuple[int, int]:
    """Put every exported run below `folder` into the store `root`; returns (taken, already there)."""
    files = sorted([*folder.rglob(RECORDS), *folder.rglob(OTHERS)])
    if not files:
        raise UserError(f"{folder}: holds no {RECORDS} and no {OTHERS}; name a folder that `export` wrote")
    store.check_writable(root)
    taken = known = 0
    for path in files:
        for entry in read_records(path):
            place = store.run_folder(root, entry["record"]["run_id"])
            with store.lock(place):
                if store.read(place) is not None:
                    known += 1
                    continue
                store.open_run(place, yaml.load(entry["config"], yaml.CSafeLoader))
                store.finish(place, entry["record"])
                taken += 1
    return taken, known
