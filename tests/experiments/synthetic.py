"""Records of runs that were never made, exactly as runs write them, with effects that are planted."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.table import Best, Cell

BEST = Best(suite="validation", metric="em", mode="max")
STEPS = (48, 96, 192, 384)
NONE = {"duplication": "none", "duplication.rate": 0.0, "duplication.k": None}
QUICK: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        name: (name, NONE)
        for name in ("full", "filtered", "filtered_bt", "oracle", "random", "random_length_matched", "longest")
    },
    "duplicated 25": ("duplicated", {"duplication": "random", "duplication.rate": 0.25, "duplication.k": None}),
    "duplicated 100": ("duplicated", {"duplication": "concentrated", "duplication.rate": 1.0, "duplication.k": 16}),
}
SCORES = {  # where each arm's curve ends
    "full": 0.66, "filtered": 0.82, "filtered_bt": 0.57, "oracle": 0.84, "random": 0.46, "random_length_matched": 0.52,
    "longest": 0.40, "duplicated 25": 0.65, "duplicated 100": 0.03,
}  # fmt: skip


def cell(
    arm: str, pair: int, levels: Mapping[str, Any] | None = None, bases: int = 3, select: int | None = None
) -> Cell:
    """A planned run; `select` sets a draw of its own."""
    seeds = {"pair": pair, "world": 0, "base": pair % bases, "data": pair, "train": pair}
    seeds["select"] = pair if select is None else select
    text = f"{arm} {seeds} {sorted((levels or {}).items(), key=str)}"
    return Cell(hashlib.sha256(text.encode()).hexdigest()[:16], arm, seeds, dict(levels or {}))


def record(
    cell: Cell, curve: Sequence[float], validation: Sequence[float] | None = None, **changes: Any
) -> dict[str, Any]:
    """A finished run whose OOD exact match goes along `curve` at `STEPS` (validation likewise, the same by default)."""
    validation = curve if validation is None else validation

    def at(ood: float, valid: float) -> dict[str, Any]:
        def suite(value: float, n: int) -> dict[str, Any]:
            return {"em": {"value": value, "n": n}, "nll": {"value": 3.0 * (1 - value), "n": n}}

        suites = ("entity", "wording", "composition", "id")
        return {"validation": suite(valid, 200), "ood": suite(ood, 600)} | {name: suite(ood, 200) for name in suites}

    metrics = {f"step:{s}": at(o, v) for s, o, v in zip(STEPS, curve, validation, strict=True)}
    metrics["step:0"] = at(0.0, 0.0)
    best = STEPS[int(np.argmax(validation))]
    seconds = {step: step / 40 for step in STEPS}
    made = {
        "run_id": cell.run_id,
        "arm": cell.arm,
        "seeds": dict(cell.seeds),
        "config_hash": cell.run_id[::-1],
        "code_version": {"version": "0.1.0", "curate": 1, "train": 1, "experiments": 1},
        "status": "done",
        "error": None,
        "data": {
            "pool_rows": 4096, "rows": 4096 if cell.arm in ("full", "duplicated") else 725,
            "unique_rows": 725,
            "tokens": 50_000, "noise_rate": 0.5, "subset_noise_rate": 0.1, "kept_clean": 0.3, "duplicate_share": 0.0,
            "response_words": 6.5, "subset_hash": cell.run_id, "set_aside": 0, "scorer_auroc": None,
            "reward_model": None,
        },
        "points": {f"step:{s}": {"step": s, "epoch": s / 128, "tokens": 500 * s} for s in STEPS},
        "best_val_step": best,
        "metrics": metrics | {"best_val": metrics[f"step:{best}"], "end": metrics[f"step:{STEPS[-1]}"]},
        "cost": {
            "score_s": 3.0 if "filtered" in cell.arm else 0.0, "select_s": 0.1, "train_s": seconds[384], "eval_s": 2.0,
            "tokens_seen": 500 * 384, "peak_memory_mb": 900.0, "scorer_train_s": 11.0,
            "train_s_at": {str(s): t for s, t in seconds.items()},
        },
        "environment": {"python": "3.11", "torch": "2.13.0", "device": "cpu"},
    }  # fmt: skip
    if cell.arm.startswith("filtered"):
        aurocs = {"near_miss": 0.95, "swapped_response": 0.99, "truncated": 1.0, "off_format": 1.0, "all": 0.98}
        if cell.arm == "filtered_bt":
            aurocs |= {"near_miss": 0.52, "swapped_response": 0.62, "all": 0.78}
        made["data"] |= {"scorer_auroc": aurocs, "reward_model": {"head": 0.8, "joint": 0.97, "longer_wins": 0.5}}
    return made | changes


def quickstart(
    pairs: int = 6, seed: int = 0, noise: float = 0.02, missing: Callable[[Cell], bool] = lambda cell: False
) -> tuple[list[Cell], dict[str, dict[str, Any]]]:
    """The cells and records of an experiment like quickstart, with differences between bases and pairs."""
    rng = np.random.default_rng(seed)
    base, pair_effect = 0.04 * rng.standard_normal(3), noise * rng.standard_normal(pairs)
    cells, records = [], {}
    for pair in range(pairs):
        for name, (arm, levels) in QUICK.items():
            made = cell(arm, pair, levels)
            cells.append(made)
            top = SCORES[name] + (base[pair % 3] + pair_effect[pair]) * SCORES[name] + noise * rng.standard_normal()
            top = float(np.clip(np.round(top * 600) / 600, 0, 1))
            if not missing(made):
                records[made.run_id] = record(made, [0.1 * top, 0.7 * top, 0.98 * top, top])
    return cells, records
