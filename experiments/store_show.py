"""One run in full, or two side by side: config, figures, curve, cost, and why there is no record."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from experiments import UserError, store, store_index
from experiments.store_list import number

Figures = dict[str, dict[str, float | None]]  # point -> suite/metric -> value
POINTS = ("best_val", "end")
OF_NO_MATTER = ("store.", "tracking.")  # keys that two equal runs may differ in
FEW = 8  # characters of an id that tell it from others


@dataclass(frozen=True)
class Full:
    """A run as the store has it; `figures` of one without a record are those of its `metrics.jsonl`."""

    id: str
    status: str
    config: dict[str, Any]
    record: dict[str, Any]  # empty where there is none
    failure: dict[str, Any]
    figures: Figures

    @property
    def primary(self) -> str:
        return str(self.config.get("evaluation.primary", ""))

    @property
    def steps(self) -> list[int]:
        return sorted(int(point.removeprefix("step:")) for point in self.figures if point.startswith("step:"))


def find(root: Path, prefix: str) -> str:
    """The one run whose id begins with `prefix`; raises UserError for none or several."""
    ids = sorted(run.id for run in store_index.runs(root) if run.id.startswith(prefix))
    if len(ids) == 1 or prefix in ids:
        return ids[0] if len(ids) == 1 else prefix
    if not ids:
        raise UserError(f"{prefix}: no run of {root} has an id that begins so; python -m experiments.store list")
    more = ", ..." if len(ids) > 4 else ""
    raise UserError(f"{prefix}: {len(ids)} runs have ids that begin so ({', '.join(ids[:4])}{more}); give more of it")


def load(root: Path, run_id: str) -> Full:
    """A run by its id."""
    folder = store.run_folder(root, run_id)
    record, failure = store.read(folder) or {}, store.failure(folder) or {}
    status = "done" if record else "failed" if failure else "unfinished"
    if not record and (folder / store.RECORD).exists():
        status, failure = "damaged", {"error": store.damage(folder, (folder / store.RECORD).read_bytes())}
    figures: Figures = {}
    for point, suites in record.get("metrics", {}).items():
        values = {f"{suite}/{name}": cell["value"] for suite, found in suites.items() for name, cell in found.items()}
        figures[point] = values
    if not record and (folder / "metrics.jsonl").exists():
        for row in store.read_metrics(folder):
            figures.setdefault(f"step:{row['step']}", {})[f"{row['suite']}/{row['metric']}"] = row["value"]
    return Full(run_id, status, store_index.read_config(folder), record, failure, figures)


def show(run: Full, folder: Path) -> RenderableType:
    """Everything about one run."""
    arm, pair = run.config.get("arm", "?"), run.config.get("seed.pair", "?")
    parts: list[RenderableType] = [Text(f"{run.id}  {arm} pair {pair}  {run.status}  {folder}")]
    if run.failure:
        at = f" (step {run.failure['step']})" if run.failure.get("step") is not None else ""
        parts += [Text(f"why: {run.failure.get('error')}{at}", style="red")]
        parts += [Text(str(run.failure["trace"]).rstrip())] if run.failure.get("trace") else []
    parts += [_head("config"), Text("\n".join(f"{key}: {_text(value)}" for key, value in run.config.items()))]
    if run.record:
        parts += [_head("figures"), _figures(run.figures, {point: (run, point) for point in POINTS})]
    if run.steps:
        parts += [_head("curve"), _curve(run)]
    for name in ("data", "cost", "seeds", "code_version", "environment"):
        if run.record.get(name):
            parts += [_head(name), Text("\n".join(f"{k}: {_text(v)}" for k, v in _leaves(run.record[name])))]
    return Group(*parts)


def compare(one: Full, two: Full) -> RenderableType:
    """Two runs: where their configs differ, then figures, curves, and costs side by side."""
    heads = [
        f"{run.id[:FEW]} {run.config.get('arm', '?')} pair {run.config.get('seed.pair', '?')}" for run in (one, two)
    ]
    parts: list[RenderableType] = [_head("config")]
    differ = differences(one.config, two.config)
    rows = [[key, _text(one.config.get(key, "–")), _text(two.config.get(key, "–"))] for key in differ]
    parts.append(_table(["key", *heads], rows) if rows else Text("no difference"))
    for run in (one, two):
        if run.status != "done":
            parts.append(
                Text(f"{run.id}: {run.status}: {run.failure.get('error', 'it has no record yet')}", style="red")
            )
    for point in POINTS:
        if point in one.figures or point in two.figures:
            parts += [
                _head(f"figures at {point}"),
                _side_by_side("", heads, *(r.figures.get(point, {}) for r in (one, two))),
            ]
    for metric in dict.fromkeys([one.primary, two.primary]):
        curves = [{str(s): run.figures[f"step:{s}"].get(metric) for s in run.steps} for run in (one, two)]
        if any(curves):
            parts += [_head(f"curve of {metric}"), _side_by_side("step", heads, *curves)]
    costs = [{k: v for k, v in _leaves(run.record.get("cost", {})) if _is_number(v)} for run in (one, two)]
    if any(costs):
        parts += [_head("cost"), _side_by_side("", heads, *costs)]
    return Group(*parts)


def differences(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    """The keys in which two configs differ, as far as it matters to a run."""
    absent = object()
    keys = [key for key in dict.fromkeys([*one, *two]) if not key.startswith(OF_NO_MATTER)]
    return [key for key in keys if one.get(key, absent) != two.get(key, absent)]


def _side_by_side(
    name: str, heads: Sequence[str], one: Mapping[str, float | None], two: Mapping[str, float | None]
) -> Table:
    keys = list(dict.fromkeys([*one, *two]))
    if keys and all(key.isdigit() for key in keys):
        keys.sort(key=int)
    rows = []
    for key in keys:
        a, b = one.get(key), two.get(key)
        change = "–" if a is None or b is None else f"{b - a:+.4g}".replace("-", "−")
        rows.append([key, _number(a), _number(b), change])
    return _table([name, *heads, "difference"], rows)


def _figures(figures: Figures, columns: Mapping[str, tuple[Full, str]]) -> Table:
    names = dict.fromkeys(name for run, point in columns.values() for name in run.figures.get(point, {}))
    rows = [
        [name, *(_number(run.figures.get(point, {}).get(name)) for run, point in columns.values())] for name in names
    ]
    return _table(["", *columns], rows)


def _curve(run: Full) -> Table:
    """The leading metric, the one that the best point is chosen by, and the loss, over steps."""
    best = f"{run.config.get('evaluation.best.suite')}/{run.config.get('evaluation.best.metric')}"
    names = [n for n in dict.fromkeys([run.primary, best, "train/loss"]) if any(n in f for f in run.figures.values())]
    rows = []
    for step in run.steps:
        point = f"step:{step}"
        tokens = run.record.get("points", {}).get(point, {}).get("tokens", 0 if step == 0 else None)
        chosen = " best" * (step == run.record.get("best_val_step"))
        rows.append(
            [
                f"{step}{chosen}",
                "–" if tokens is None else f"{tokens:,}",
                *(_number(run.figures[point].get(n)) for n in names),
            ]
        )
    return _table(["step", "tokens", *names], rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for i, head in enumerate(heads):
        table.add_column(Text(head), justify="right" if i else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    return list(store_index.flat(tree)) if isinstance(tree, dict) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(value: float | None) -> str:
    """Three decimals, or more of what is small."""
    if value is None or not value or 0.01 <= abs(value) < 1e5:
        return number(value)
    return f"{value:.4g}".replace("-", "−")


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _head(text: str) -> Text:
    return Text(f"\n{text}", style="bold")
