"""Runs of experiment=simulator that were never made: its cells, and losses from a surface that is known."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from experiments import slices
from experiments import table as tables
from tests.experiments.synthetic import BEST, cell, record

SIZES, NOISES, COPIES = (256, 512, 1024, 2048, 4096), (0.0, 0.2, 0.4, 0.6, 0.8), (0.25, 0.5, 0.75)
KAPPA, DELTA, CONCENTRATED = 0.5, 0.8, 1.6


def levels(n, eta, d, kind="near_miss", source="random") -> dict[str, Any]:
    k = 16 if source == "concentrated" else None
    return {"duplication": source, "duplication.rate": d, "noise": kind, "noise.rate": eta, "data.rows": n,
            "duplication.k": k}  # fmt: skip


DESIGN = [
    *(levels(n, eta, 0.0) for eta in NOISES for n in SIZES),
    *(levels(n, eta, d) for d in COPIES for eta in NOISES[:4] for n in (256, 1024, 4096)),
    *(levels(n, eta, 0.0, kind="swapped_response") for eta in (0.2, 0.4, 0.6) for n in (1024, 4096)),
    *(levels(n, 0.0, d, source="concentrated") for d in COPIES for n in (1024, 4096)),
]


def loss(at: Mapping[str, Any]) -> float:
    """A product of powers with a floor; swapped rows do half the harm, concentrated copies count for less."""
    bad = at["noise.rate"] * (KAPPA if at["noise"] == "swapped_response" else 1.0)
    delta = CONCENTRATED if at["duplication"] == "concentrated" else DELTA
    rows = at["data.rows"] * (1 - at["duplication.rate"]) ** delta
    return 0.2 + 40 * rows**-0.6 * (bad + 0.1) ** 0.8


def runs(
    design=DESIGN, pairs: int = 2, bases: int = 2, spread: float = 0.1, noise: float = 0.01,
    missing: Callable[[int, Mapping[str, Any]], bool] = lambda pair, at: False, arm: str = "duplicated",
):  # fmt: skip
    """Cells and records: `spread` and `noise` are standard deviations of the logarithm, between bases and of runs."""
    rng = np.random.default_rng(0)
    shifts = spread * rng.standard_normal(bases)
    cells, records = [], {}
    for pair in range(pairs):
        for at in design:
            one = cell(arm, pair, at, bases=bases)
            cells.append(one)
            value = loss(at) * float(np.exp(shifts[pair % bases] + noise * rng.standard_normal()))
            if not missing(pair, at):
                made = record(one, [0.1, 0.2, 0.3, 0.4])
                for point in ("best_val", "end"):
                    made["metrics"][point]["ood"] = {"em": {"value": 0.4, "n": 600}, "nll": {"value": value, "n": 600}}
                records[one.run_id] = made
    return cells, records


def table(**options) -> pd.DataFrame:
    return tables.runs_table(*runs(**options), BEST)


@cache
def found() -> slices.Slices:
    """The surfaces of the whole design, fitted once for all tests of a process."""
    return slices.measured(table(), "ood/nll", "best_val", slices.Axes())
