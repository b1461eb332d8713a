"""Controlled duplication, with every reading of the literature spelt out."""

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from curate.errors import UserError
from curate.example import column, make_pool


def duplicate(
    pool: Dataset,
    *,
    mode: str,
    rate: float,
    source: str,
    k: int | None,
    kind: str,
    stratum: str | None,
    seed: int,
    templates: Sequence[str] = (),
) -> Dataset:
    """A pool in which round(rate * n) rows are copies, marked by `duplicate_of`; originals first, in pool order.

    mode replace: n rows stay n: n - m of them unique (random ones), m copies. append: all n rows and m copies.
    source random: copies spread evenly over all unique rows; concentrated: over k of them; important: over those of
    the category `stratum`. At rate 1.0 in replace mode, k unique rows fill the n slots evenly.
    kind exact, or near: the i-th copy of a row has its instruction rewritten by the i-th of `templates` (which hold
    `{instruction}`), again from the first after the last.
    """
    n, copies = len(pool), round(rate * len(pool))
    if mode not in ("replace", "append") or source not in ("random", "concentrated", "important"):
        raise UserError(f"duplication.mode={mode} duplication.source={source}: no such mode or source")
    if not 0 <= rate <= 1:
        raise UserError(f"duplication.rate={rate}: choose a rate in [0, 1]")
    if copies == 0:
        return pool
    if kind == "near" and not templates:
        raise UserError("duplication.kind=near: needs data.paraphrases; name some, or use duplication.kind=exact")
    if any(column(pool, "duplicate_of")):
        raise UserError("duplication.mode: the pool holds copies already; start from one without")
    order = np.random.default_rng([seed, zlib.crc32(b"duplicate")]).permutation(n)
    if source == "important":
        inside = np.array([name == stratum for name in column(pool, "category")])
        if not inside.any():
            found = ", ".join(sorted({str(name) for name in column(pool, "category")})[:10])
            raise UserError(f"duplication.stratum={stratum}: no row of this category; there are {found}")
    else:
        inside = np.ones(n, dtype=bool)
    if mode == "replace" and copies == n:
        if k is None:
            raise UserError("duplication.k=null: at rate 1.0, copies of how many rows? set duplication.k=16")
        unique = order[inside[order]][:k]
        copies, originals = n - len(unique), unique
    else:
        unique = order[: n - copies] if mode == "replace" else order
        originals = unique[inside[unique]][: None if source == "random" else k]
        if len(originals) == 0:
            raise UserError(f"duplication.stratum={stratum}: no row of it is left at rate {rate}; lower the rate")
    if k is not None and source != "random" and len(originals) < k:
        raise UserError(f"duplication.k={k}: only {len(originals)} rows can be copied at rate {rate}; choose fewer")
    rows: list[dict[str, Any]] = pool.to_list()
    made: Counter[str] = Counter()
    extra = [
        _copy(rows[originals[slot % len(originals)]], made, templates if kind == "near" else ())
        for slot in range(copies)
    ]
    return make_pool([rows[at] for at in np.sort(unique)] + extra, source="")


def _copy(row: dict[str, Any], made: Counter[str], templates: Sequence[str]) -> dict[str, Any]:
    made[row["id"]] += 1
    number = made[row["id"]]
    text = row["instruction"]
    if templates:
        text = templates[(number - 1) % len(templates)].replace("{instruction}", text)
    return {**row, "instruction": text, "id": f"{row['id']}~{number}", "duplicate_of": row["id"]}
