"""What a plan will take: runs, minutes, memory and room on the disk, from what the store knows of such runs."""

import heapq
import shutil
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from experiments import store
from experiments.config import Config

from .plan import Plan

RUN_S = 11.0  # one run of the embedded world at its default size, where PROBE_S was measured
BASE_S = 120.0  # one base model and its reward model
PROBE_S = 0.025
NEWEST = 20  # runs that the forecast looks back on


@dataclass(frozen=True)
class History:
    """Of the newest finished runs of a kind: how many, their mean seconds and bytes on the disk, their peak memory."""

    runs: int
    seconds: float
    memory_mb: float | None  # None: an earlier version did not write it down
    disk: float


def describe(plan: Plan, missing: list[str], jobs: int, name: str | None, here: bool = True) -> str:
    """The plan in two to four lines; `here`: on this machine, whose memory and disk are then compared with."""
    arms = len({(cell.arm, *sorted((k, str(v)) for k, v in cell.levels.items())) for cell in plan.cells})
    pairs = len({cell.seeds["pair"] for cell in plan.cells})
    bases = _bases_to_build(plan.configs[run_id] for run_id in missing)
    size = f"{_count(arms, 'cell')} x {_count(pairs, 'pair')}"
    head = f"{name or 'no experiment'}: {_count(len(plan.configs), 'run')} ({size})"
    lines = [
        f"{head}, {len(plan.configs) - len(missing)} done, {len(missing)} to do, {_count(bases, 'base model')} to build"
    ]
    if missing:
        jobs = min(jobs, len(missing))
        known = history(plan.root, plan.configs[missing[0]])
        lines.append(_minutes(plan, missing, jobs, bases, known))
        if known and here:
            lines += _room(plan.root, len(missing), jobs, known)
    return "\n".join(lines)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + "s" * (n != 1)


def work(configs: Collection[Config]) -> float:
    """What it takes to do these runs and to build the base models that they lack, in runs of the embedded world."""
    return len(configs) + _bases_to_build(configs) * BASE_S / RUN_S


def _bases_to_build(configs: Iterable[Config]) -> int:
    """How many embedded base models are still to be pre-trained."""
    from experiments.prepare import base_folder

    return len({folder for c in configs if c.model.kind == "micro" and not (folder := base_folder(c)).is_dir()})


def _minutes(plan: Plan, missing: list[str], jobs: int, bases: int, known: History | None) -> str:
    if known:
        seconds = known.seconds * len(missing) + BASE_S * _probe() / PROBE_S * bases
        source = f"mean of the last {_count(known.runs, 'run')} here"
    elif plan.configs[missing[0]].model.kind == "micro":
        seconds = (RUN_S * len(missing) + BASE_S * bases) * _probe() / PROBE_S
        source = f"{RUN_S:.0f} s a run and {BASE_S:.0f} s a base model, scaled by this machine's speed"
    else:
        return "no run of this kind is in the store yet: the first ones will tell how long the others take"
    return f"about {max(1, round(seconds / jobs / 60))} min on {jobs} process{'es' * (jobs > 1)} ({source})"


def _room(root: Path, runs: int, jobs: int, known: History) -> list[str]:
    """Memory and disk, of those runs at their worst, beside what this machine has; a warning where that is less."""
    lines, disk, free = [], known.disk * runs / 1e6, shutil.disk_usage(root).free / 1e6
    said = f"about {max(1, round(disk)):,} MB on the disk of {free:,.0f} free"
    if known.memory_mb is not None:
        memory, there = known.memory_mb * jobs, psutil.virtual_memory().available / 2**20
        said = f"up to {memory:,.0f} MB of memory of {there:,.0f} available, {said}"
        if memory > there:
            lines.append("that is more memory than there is; take fewer processes: hydra.launcher.n_jobs=1")
    if disk > free:
        lines.append("that is more than the disk has room for; choose another one with store.root=FOLDER")
    return [said, *lines]


def history(root: Path, config: Config) -> History | None:
    """What the newest finished runs with the same model, training and evaluation took; None where there are none."""
    like = {key: config.model_dump(mode="json")[key] for key in ("model", "training", "evaluation")}
    newest = heapq.nlargest(NEWEST, store.finished(root), key=lambda i: (root / i / store.RECORD).stat().st_mtime)
    seconds, memory, disk = [], [], []
    for name in newest:
        record = store.read(root / name)
        try:
            earlier = yaml.load((root / name / "config.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader)
        except (OSError, ValueError, yaml.YAMLError):
            continue  # of no use here; `store verify` names it
        if not (record and isinstance(earlier, dict)):
            continue
        if all(_given(earlier.get(key)) == _given(store.redact(value)) for key, value in like.items()):
            cost = record["cost"]
            seconds.append(sum(cost.get(key) or 0 for key in ("score_s", "select_s", "train_s", "eval_s")))
            memory += [cost["peak_memory_mb"]] if cost.get("peak_memory_mb") else []
            disk.append(sum(path.stat().st_size for path in (root / name).rglob("*") if path.is_file()))
    if not seconds:
        return None
    return History(len(seconds), float(np.mean(seconds)), max(memory, default=None), float(np.mean(disk)))


def _given(tree: Any) -> Any:
    """A config without what is not set: keys that came later do not make earlier runs of another kind."""
    return {key: _given(value) for key, value in tree.items() if value is not None} if isinstance(tree, dict) else tree


def _probe() -> float:
    """Seconds for a fixed piece of arithmetic of about the embedded model's shapes, on one thread; the best of five."""
    a, b = np.ones((512, 96), np.float32), np.ones((96, 512), np.float32)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(20):
            np.exp(a @ b * 1e-3)
        times.append(time.perf_counter() - began)
    return min(times)
