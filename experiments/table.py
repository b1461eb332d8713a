"""One long table of an experiment's runs: what `runs.csv` holds, and all that claims and figures are computed from.

A row is one number: (run, point, suite, metric) -> value. Beside the suites of the evaluation there are

    items/...                    the items of the OOD likelihood suites, for claims that cross them with the pairs
    run/done                     1 or 0 for every run that was planned, so that a missing one leaves a trace
    cost/..., data/..., scorer/...      what the record says of seconds, of rows, and of the scorer: `auroc:KIND`
                                 against the ledger, `pairs:NAME` on preference pairs
    cost/minutes_to_full         at point `to_full`: minutes of training until the validation metric is as good as the
                                 best that the reference arm of the same pair ever reached: the tokens trained on until
                                 then, at the seconds a token of all runs of that model together
    cost/minutes_to_full_scored  the same with the minutes of scoring and selecting
    cost/censored                1 where that was never reached: the minutes are then those of the whole curve
    cost/gain_per_minute         at point `best_val`: what the OOD suites gained since before training, by the metric of
                                 the validation, over the minutes of training so far (as above), scoring and selecting

Tokens are the same in every repetition of a run. Its own seconds are not: equal runs differ by a tenth and more, and a
verdict that hung on them would be another one each time.
"""

import io
import lzma
import weakref
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments import store

SEEDS = ("pair", "base", "data", "select", "train")
IDENTITY = ["run_id", "arm", *(f"seed_{name}" for name in SEEDS)]
MEASURE = ["point", "suite", "metric", "value", "n", "tokens"]
UNIT = ["seed_pair", "seed_base"]  # what arms are paired by; the base model follows from the pair unless it is swept
Unit = tuple[int | None, int | None]
ITEMS = "items"  # the suite of single items: `METRIC:SUITE:NUMBER`, n their answer tokens; of OOD likelihood suites
REFERENCE = "full"  # the arm whose quality the others' time is measured to


@dataclass(frozen=True)
class Best:
    """What a run's best point, and the best of several controls, is chosen by: as `evaluation.best` of the config."""

    suite: str
    metric: str
    mode: str  # max or min


@dataclass(frozen=True)
class Cell:
    """A planned run under one name; cells may share a run. `levels` are the values of all swept keys."""

    run_id: str
    arm: str
    seeds: Mapping[str, int]
    levels: Mapping[str, Any]
    model: str = ""  # whatever tells models apart: the runs of one are timed together


def cells_frame(cells: Iterable[Cell]) -> pd.DataFrame:
    """One row a cell: `IDENTITY` and a column for each swept key that is not a seed."""
    rows = []
    for cell in cells:
        levels = {key: value for key, value in cell.levels.items() if key.removeprefix("seed.") not in SEEDS}
        seeds = {f"seed_{name}": cell.seeds.get(name) for name in SEEDS}
        seeds["seed_base"] = seeds["seed_base"] or 0  # none: there is one base model
        rows.append({"run_id": cell.run_id, "arm": cell.arm, **seeds, **levels})
    return pd.DataFrame(rows, columns=None if rows else IDENTITY)


def runs_table(
    cells: Sequence[Cell],
    records: Mapping[str, Mapping[str, Any]],
    best: Best,
    reference: str = REFERENCE,
    suites: Collection[str] | None = None,
) -> pd.DataFrame:
    """All numbers of an experiment in long form.

    Args:
        cells: everything planned, finished or not.
        records: the records of the finished runs by run id.
        best: the validation metric and its direction, as in `evaluation.best`.
        reference: the arm whose best validation score others are timed to.
        suites: what of the evaluation is wanted; None: all.
    """
    frame = cells_frame(cells)
    levels = [name for name in frame.columns if name not in IDENTITY]
    references: dict[Unit, list[Cell]] = {}
    for cell in cells:
        if cell.arm == reference:
            references.setdefault(_unit(cell), []).append(cell)
    rates = _rates(cells, records)
    found: list[tuple] = []
    ends = []  # of each cell's rows: columns of millions are made at once, not row by row
    with store.no_collection():
        for cell in cells:
            record = records.get(cell.run_id)
            found.append(("end", "run", "done", float(record is not None), None, None))
            if record is not None:
                target = _target(cell, references.get(_unit(cell), []), records, best)
                rate = rates.get(cell.model)
                found += numbers(record, suites)
                if rate is not None:
                    found += chain(_time_to(record, target, rate, best), _gain_rate(record, rate, best))
            ends.append(len(found))
        columns = dict(zip(MEASURE, zip(*found, strict=True), strict=True)) if found else dict.fromkeys(MEASURE, ())
        of_cell = np.repeat(np.arange(len(cells)), np.diff(np.array(ends, int), prepend=0))
        of_cells = {name: frame[name].array.take(of_cell) for name in (*IDENTITY, *levels)}
        data = {name: of_cells[name] if name in of_cells else columns[name] for name in (*IDENTITY, *MEASURE, *levels)}
        return pd.DataFrame(data, copy=False)


def _unit(cell: Cell) -> Unit:
    return cell.seeds.get("pair"), cell.seeds.get("base")


def numbers(record: Mapping[str, Any], suites: Collection[str] | None = None) -> Iterable[tuple]:
    """What one record says by itself, as tuples of `MEASURE`; of the evaluation only of `suites`, None for all."""
    return chain(_metrics(record, suites), _facts(record))


def _metrics(record: Mapping[str, Any], wanted: Collection[str] | None) -> Iterable[tuple]:
    points = {"step:0": {"step": 0, "tokens": 0}, **record["points"]}
    points["best_val"] = points.get(f"step:{record['best_val_step']}", {})
    points["end"] = max(record["points"].values(), key=lambda point: point["step"], default={})
    for point, suites in record["metrics"].items():
        tokens = points.get(point, {}).get("tokens")
        for suite, metrics in suites.items():
            if wanted is not None and suite not in wanted:
                continue
            for metric, cell in metrics.items():
                yield point, suite, metric, cell["value"], cell.get("n"), tokens


def _facts(record: Mapping[str, Any]) -> Iterable[tuple]:
    for suite, facts in (("data", record["data"]), ("cost", record["cost"])):
        for name, value in facts.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                yield "end", suite, name, value, None, None
    for kind, value in (record["data"].get("scorer_auroc") or {}).items():
        yield "end", "scorer", f"auroc:{kind}", value, None, None
    for name, value in (record["data"].get("reward_model") or {}).items():
        yield "end", "scorer", f"pairs:{name}", value, None, None


# --- time to quality ------------------------------------------------------------------------------------------------


def _rates(cells: Iterable[Cell], records: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Seconds a token trained on, by model: of all its finished runs together."""
    seconds, tokens = Counter[str](), Counter[str]()
    for run_id, model in {cell.run_id: cell.model for cell in cells}.items():
        if (record := records.get(run_id)) is not None:
            seconds[model] += record["cost"].get("train_s") or 0
            tokens[model] += record["cost"].get("tokens_seen") or 0
    return {model: seconds[model] / tokens[model] for model in tokens if tokens[model]}


def _target(
    cell: Cell, references: Sequence[Cell], records: Mapping[str, Mapping[str, Any]], best: Best
) -> float | None:
    """The best validation score of the reference run that `cell` is compared with, or None if there is no such run.

    Where the reference arm was itself run at several levels, it is the run at the cell's own.
    """
    varied = {key for c in references for key in c.levels if c.levels[key] != references[0].levels.get(key)}
    runs = {c.run_id for c in references if all(c.levels.get(key) == cell.levels.get(key) for key in varied)}
    if len(runs) != 1 or (record := records.get(runs.pop())) is None:
        return None
    scores = [score for _, score in _curve(record, best)]
    return (max if best.mode == "max" else min)(scores, default=None)


def _curve(record: Mapping[str, Any], best: Best) -> list[tuple[float, float]]:
    """(tokens trained on, validation score) in order, from before training on."""
    tokens = {0: 0, **{point["step"]: point["tokens"] for point in record["points"].values()}}
    curve = []
    for step in sorted(tokens):
        value = record["metrics"].get(f"step:{step}", {}).get(best.suite, {}).get(best.metric, {}).get("value")
        if value is not None:
            curve.append((tokens[step], value))
    return curve


def _time_to(record: Mapping[str, Any], target: float | None, rate: float, best: Best) -> Iterable[tuple]:
    curve = _curve(record, best)
    if target is None or not curve:
        return
    tokens = first_crossing(curve, target, best.mode)
    censored = tokens is None
    training = (curve[-1][0] if tokens is None else tokens) * rate / 60
    extra = ((record["cost"].get("score_s") or 0) + (record["cost"].get("select_s") or 0)) / 60
    yield "to_full", "cost", "minutes_to_full", training, None, None
    yield "to_full", "cost", "minutes_to_full_scored", training + extra, None, None
    yield "to_full", "cost", "censored", float(censored), None, None


def _gain_rate(record: Mapping[str, Any], rate: float, best: Best) -> Iterable[tuple]:
    before, after = (
        record["metrics"].get(point, {}).get("ood", {}).get(best.metric, {}).get("value")
        for point in ("step:0", "best_val")
    )
    cost = record["cost"]
    tokens = record["points"].get(f"step:{record['best_val_step']}", {}).get("tokens")
    if before is None or after is None or tokens is None:
        return
    gain = (after - before) * (1 if best.mode == "max" else -1)
    seconds = tokens * rate + (cost.get("score_s") or 0) + (cost.get("select_s") or 0)
    yield "best_val", "cost", "gain_per_minute", gain / (seconds / 60), None, None


def first_crossing(curve: Sequence[tuple[float, float]], target: float, mode: str) -> float | None:
    """When a curve of (time, score) is first as good as `target`, linear between its points; None if it never is."""
    sign = 1 if mode == "max" else -1
    before: tuple[float, float] | None = None
    for time, score in curve:
        gap = sign * (target - score)
        if gap <= 0:
            if before is None:
                return time
            earlier, earlier_gap = before
            return earlier + (time - earlier) * earlier_gap / (earlier_gap - gap)
        before = (time, gap)
    return None


# --- selecting, reading and writing ---------------------------------------------------------------------------------


def levels_of(table: pd.DataFrame) -> list[str]:
    """The columns that hold swept keys."""
    return [name for name in table.columns if name not in IDENTITY and name not in MEASURE]


def planned(table: pd.DataFrame) -> pd.DataFrame:
    """One row for every cell of the table: `IDENTITY` and levels, finished or not."""
    return measured(table, "run/done", "end")[[*IDENTITY, *levels_of(table)]]


def measured(table: pd.DataFrame, metric: str, point: str) -> pd.DataFrame:
    """The rows of one `suite/metric` at one point that hold a number."""
    suite, _, name = metric.partition("/")
    if len(table) < MANY:
        rows = table[(table["suite"] == suite) & (table["metric"] == name) & (table["point"] == point)]
        return rows[rows["value"].notna()]
    places = _places(table)
    if not isinstance(found := places.get((suite, name, point), NOWHERE), pd.DataFrame):
        rows = table.take(found)
        found = places[suite, name, point] = rows[rows["value"].notna()]
    return found.copy(deep=False)


def curve_points(table: pd.DataFrame, metric: str) -> set[str]:
    """The points of training (`step:N`, N above 0) at which a `suite/metric` was measured in any run."""
    suite, _, name = metric.partition("/")
    if len(table) < MANY:
        found = set(table.loc[(table["suite"] == suite) & (table["metric"] == name), "point"])
    else:
        found = {at for of, what, at in _places(table) if (of, what) == (suite, name)}
    return {at for at in found if at.startswith("step:") and at != "step:0"}


MANY = 100_000  # rows, from which on it pays to look only once where each measure has its own
NOWHERE = np.empty(0, int)
Places = dict[tuple[str, str, str], np.ndarray | pd.DataFrame]
_last: tuple[weakref.ref[pd.DataFrame], Places] | None = None


def _places(table: pd.DataFrame) -> Places:
    """(suite, metric, point) -> where its rows are, in order, or the rows once they were asked for.

    Kept for the table that was asked for last: a claim asks for a dozen measures, an experiment has dozens of claims,
    and a table is never changed in place.
    """
    global _last
    if _last is not None and _last[0]() is table:
        return _last[1]
    code = np.zeros(len(table), np.int64)
    names = []
    for column in ("suite", "metric", "point"):
        codes, values = pd.factorize(table[column])
        names.append(values)
        code = code * len(values) + codes
    order = np.argsort(code, kind="stable")
    found: Places = {}
    for group in np.split(order, np.flatnonzero(np.diff(code[order])) + 1):
        suite, metric, point = np.unravel_index(code[group[0]], [len(values) for values in names])
        found[str(names[0][suite]), str(names[1][metric]), str(names[2][point])] = group
    _last = weakref.ref(table), found
    return found


def matching(frame: pd.DataFrame, selector: Mapping[str, Any]) -> pd.DataFrame:
    """The rows whose columns have the values of `selector` (numbers by value, None for an empty cell)."""
    for key, value in selector.items():
        column = frame[key]
        if value is None:
            chosen = column.isna()
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            chosen = pd.to_numeric(column, errors="coerce") == value
        else:
            chosen = (column if column.dtype == "str" else column.astype(str)) == str(value)
        frame = frame[chosen]
    return frame


def write(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Write `runs.csv` and return it as anyone will read it; what is judged is what was written."""
    store.write_atomic(path, csv_of(table))
    return read(path)


def csv_of(table: pd.DataFrame) -> str:
    """What DataFrame.to_csv(index=False, lineterminator="\n") gives, in a third of the time.

    A column's texts are made once for each of its values, of which most columns have few.
    """
    columns = []
    for name in table.columns:
        column = table[name]
        if column.dtype == "float64":  # by their bits: 0.0 and -0.0 are equal, and are written apart
            codes, values = pd.factorize(column.to_numpy().view(np.int64))
            texts = [repr(value) if value == value else "" for value in values.view(np.float64).tolist()]
        elif column.dtype in ("int64", "str"):
            codes, values = pd.factorize(column)
            texts = [*map(_cell, values.tolist()), ""]  # -1, the code of what is missing, is the last
        else:  # values that are equal and not the same, as 1 and True
            codes = np.arange(len(column))
            texts = ["" if gone else _cell(value) for value, gone in zip(column, column.isna(), strict=True)]
        columns.append(np.array(texts, object)[codes])
    head = ",".join(_cell(name) for name in table.columns)
    return "\n".join([head, *map(",".join, zip(*columns, strict=True)), ""])


def _cell(value: Any) -> str:
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def read(path: Path) -> pd.DataFrame:
    """A table that `write` wrote, every float as it was; of `runs.csv` also the packed form that is published."""
    packed = Path(f"{path}.xz")
    data = lzma.decompress(packed.read_bytes()) if packed.exists() and not path.exists() else path.read_bytes()
    return pd.read_csv(
        io.BytesIO(data), keep_default_na=False, na_values=[""], float_precision="round_trip", dtype={"run_id": str}
    )
