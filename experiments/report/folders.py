"""What the folders of runs say beyond their records: what each selection did, some rows and answers, flipped questions.

Older runs, and those that came from an export, have none of it; then there is nothing to show and the page says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet

from curate import microworld
from experiments import account, store, store_index
from experiments import table as tables
from experiments.report.content import LONGEST_LABEL, Arm, headline_first, missing, name_of, shown
from experiments.table import REFERENCE

ITEMS = "items.parquet"
CONTRASTS, UNITS, EXAMPLES = 6, 24, 5  # compared question by question; pairs of each; questions shown of each
RIGHT = "em"  # of a question: 1 where the answer is the gold one


@dataclass(frozen=True)
class Selection:
    """What the selections of one arm did, means over the runs that recorded it."""

    label: str
    runs: int
    pool_rows: float
    rows: float
    pool_words: float
    words: float
    kinds: Mapping[str, tuple[float, float]]  # kind of noise, `clean` too -> rows in the pool, rows trained on


@dataclass(frozen=True)
class Sample:
    """Rows that the selection of one arm kept and dropped, and answers of its model, of its first run that has any."""

    label: str
    run_id: str
    kept: Sequence[Mapping[str, Any]]
    dropped: Sequence[Mapping[str, Any]]
    answers: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Flip:
    """A question that one arm answers and another does not: in how many of the pairs each is right."""

    suite: str
    item: int
    question: str  # nothing where the text is not at hand
    gold: str
    right: int
    other_right: int


@dataclass(frozen=True)
class Flips:
    """Two arms question by question, at the best validation point of each, over `pairs` pairs."""

    one: str
    other: str
    pairs: int
    both: int
    only_one: int
    only_other: int
    neither: int
    gained: Sequence[Flip]  # `one` is right more often
    lost: Sequence[Flip]


@dataclass(frozen=True)
class Folders:
    """All of it."""

    selections: Sequence[Selection] = ()
    samples: Sequence[Sample] = ()
    flips: Sequence[Flips] = ()


def look(
    root: Path | None,
    table: pd.DataFrame,
    arms: Sequence[Arm],
    claims: Sequence[Mapping[str, Any]],
    records: Mapping[str, Mapping[str, Any]],
    ood: Sequence[str],
) -> Folders:
    """What the folders of the store `root` say of these runs; nothing without a store."""
    if root is None:
        return Folders()
    plan = tables.planned(table)
    selections, samples = [], []
    for arm in arms:
        runs = [run for run in _runs(plan, {"arm": arm.name, **arm.levels}) if run in records]
        found = [(run, account.read(store.run_folder(root, run) / account.SELECTION)) for run in runs]
        known = [(run, one) for run, one in found if one is not None]
        if known:
            selections.append(_selection(arm.label, [one for _, one in known]))
            run_id, first = known[0]
            said = account.read(store.run_folder(root, run_id) / account.ANSWERS) or []
            samples.append(Sample(arm.label, run_id, first["kept"], first["dropped"], said))
    flips = [
        one
        for treatment, control in contrasts(arms, claims)
        if (one := _flips(root, plan, treatment, control, records, ood)) is not None
    ]
    return Folders(selections, samples, flips)


def _runs(plan: pd.DataFrame, selector: Mapping[str, Any]) -> list[str]:
    given = {key: None if missing(value) else value for key, value in selector.items()}
    return list(dict.fromkeys(tables.matching(plan, given)["run_id"]))


def _selection(label: str, found: Sequence[Mapping[str, Any]]) -> Selection:
    def mean(side: str, name: str) -> float:
        values = [one[side][name] for one in found if one[side][name] is not None]
        return float(np.mean(values)) if values else float("nan")

    def counted(side: str, kind: str) -> float:
        return float(np.mean([one[side]["kinds"].get(kind, 0) for one in found]))

    kinds = dict.fromkeys(kind for one in found for side in ("pool", "subset") for kind in one[side]["kinds"])
    ordered = sorted(kinds, key=lambda kind: (kind != account.CLEAN, kind))
    return Selection(
        label,
        len(found),
        mean("pool", "rows"),
        mean("subset", "rows"),
        mean("pool", "response_words"),
        mean("subset", "response_words"),
        {kind: (counted("pool", kind), counted("subset", kind)) for kind in ordered},
    )


# --- questions that flipped -----------------------------------------------------------------------------------------


def contrasts(
    arms: Sequence[Arm], claims: Sequence[Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The pairs of arms that claims compare, the headline's first; without claims, each arm beside `full`."""
    found = [
        (claim["treatment"], claim["control"])
        for claim in headline_first(claims)
        if claim["control"] and "best_of" not in claim["control"] and not claim["statistic"]
    ]
    found = [(one, other) for one, other in found if one != other]
    full = next((arm for arm in arms if arm.name == REFERENCE), None)
    if not claims and full is not None:
        selectors = [{"arm": arm.name, **arm.levels} for arm in arms if arm.label != full.label]
        found = [(selector, {"arm": full.name, **full.levels}) for selector in selectors]
    distinct = {str(pair): pair for pair in found}
    return list(distinct.values())[:CONTRASTS]


def _flips(
    root: Path,
    plan: pd.DataFrame,
    treatment: Mapping[str, Any],
    control: Mapping[str, Any],
    records: Mapping[str, Mapping[str, Any]],
    ood: Sequence[str],
) -> Flips | None:
    sides = [_by_unit(plan, selector) for selector in (treatment, control)]
    names = [shown(name_of(selector), LONGEST_LABEL) for selector in (treatment, control)]
    totals = pd.DataFrame()
    runs: list[str] = []
    counts = dict.fromkeys([(1, 1), (1, 0), (0, 1), (0, 0)], 0)
    for unit in sorted(set(sides[0]) & set(sides[1]))[:UNITS]:
        pair = [_right(root, side[unit], records, ood) for side in sides]
        if pair[0] is None or pair[1] is None:
            continue
        both = pd.concat(pair, axis=1, join="inner", keys=["one", "other"])
        for key in counts:
            counts[key] += int(((both["one"] == key[0]) & (both["other"] == key[1])).sum())
        totals = both if totals.empty else totals.add(both, fill_value=0)
        runs.append(sides[0][unit])
    if totals.empty:
        return None
    worth = (totals["one"] - totals["other"]).sort_values(kind="stable")
    texts = _questions(root, runs[0])
    gained, lost = list(worth.index[worth > 0][::-1]), list(worth.index[worth < 0])
    return Flips(
        names[0], names[1], len(runs), both=counts[1, 1], only_one=counts[1, 0], only_other=counts[0, 1],
        neither=counts[0, 0], gained=[_flip(totals, key, texts) for key in gained[:EXAMPLES]],
        lost=[_flip(totals, key, texts) for key in lost[:EXAMPLES]],
    )  # fmt: skip


def _by_unit(plan: pd.DataFrame, selector: Mapping[str, Any]) -> dict[tuple, str]:
    """The first run of each pair."""
    rows = tables.matching(plan, selector)
    units = rows[tables.UNIT].itertuples(index=False, name=None)
    found: dict[tuple, str] = {}
    for unit, run in zip(units, rows["run_id"], strict=True):
        found.setdefault(unit, run)
    return found


def _right(root: Path, run: str, records: Mapping[str, Mapping[str, Any]], ood: Sequence[str]) -> pd.Series | None:
    """(suite, item) -> 1 or 0 at the run's best point; None without per-item results that say right or wrong."""
    path = store.run_folder(root, run) / ITEMS
    if run not in records or not path.exists():
        return None
    try:
        file = pyarrow.parquet.ParquetFile(path)
        if RIGHT not in file.schema_arrow.names:
            return None
        items = file.read(["point", "suite", "item", RIGHT]).to_pandas()
    except (OSError, pyarrow.ArrowException):
        return None  # a broken file has nothing to say
    at = items[(items["point"] == f"step:{records[run]['best_val_step']}") & items["suite"].isin(ood)]
    at = at[at[RIGHT].notna()]
    return (at.set_index(["suite", "item"])[RIGHT] > 0.5).astype(int) if len(at) else None


def _flip(totals: pd.DataFrame, key: tuple[str, int], texts: Mapping[tuple[str, int], tuple[str, str]]) -> Flip:
    question, gold = texts.get(key, ("", ""))
    return Flip(str(key[0]), int(key[1]), question, gold, int(totals.at[key, "one"]), int(totals.at[key, "other"]))


def _questions(root: Path, run: str) -> dict[tuple[str, int], tuple[str, str]]:
    """(suite, item) -> question and gold answer, of the suites of the embedded world."""
    config = store_index.read_config(store.run_folder(root, run))
    world = microworld.build_world(int(config.get("seed.world") or 0))
    found = {}
    for key, part in config.items():
        if key.startswith("evaluation.suites.") and key.endswith(".world") and part in microworld.SUITES:
            suite = key.removeprefix("evaluation.suites.").removesuffix(".world")
            for i, item in enumerate(microworld.build_suite(world, part, int(config.get("evaluation.items") or 0))):
                found[suite, i] = (item.instruction, item.answer)
    return found
