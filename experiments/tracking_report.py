"""What an experiment came to, mirrored to wandb as one run of the job type `report`: its tables and its page.

The run's id is `report-<experiment>`, so that a later report takes the place of an earlier one.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import store
from experiments import table as tables
from experiments.config import TrackingConfig
from experiments.report import content
from experiments.report.content import Arm, Difference, Evaluation
from experiments.report.differences import with_differences
from experiments.tracking import opened, warned

CLAIM = (
    "id", "title", "source", "quoted", "verdict", "estimate", "ci_low", "ci_high", "level", "margin", "kind", "metric",
    "point", "scale", "treatment", "control", "pairs", "seeds_needed", "size", "scope", "note",
)  # fmt: skip
OF_A_RUN = ("data/rows", "cost/tokens_seen", "cost/train_s", "cost/score_s", "cost/eval_s")
Table = tuple[list[str], list[list[Any]]]  # columns, rows


def mirror(
    tracking: TrackingConfig,
    root: Path,
    name: str,
    judged: Sequence[Mapping[str, Any]],
    out: Path,
    evaluation: Evaluation,
) -> None:
    """Write the report in `out` to wandb as `tracking` says. Never raises; of what fails, the rest is written.

    A report whose numbers wandb already has from here is not written again.

    Args:
        root: the store.
        name: the experiment; the group of the run.
        judged: the content of its `claims.json`.
        evaluation: says which metric leads and what a run's best point is chosen by.
    """
    if tracking.mode == "none":
        return
    whole = f"the report in {out} is complete without it"
    with warned("wandb: report", whole):
        said = store.sha256(b"".join((out / file).read_bytes() for file in ("runs.csv", "claims.json")))
        sent = root / "wandb" / "private" / f"report-{name}.sha256"
        if sent.exists() and sent.read_text(encoding="utf-8") == said:
            return
        about = {
            "id": f"report-{name}",
            "name": f"{name} report",
            "group": name,
            "job_type": "report",
            "tags": ["report"],
            "config": {"experiment": name, "primary": evaluation.primary},
        }
        with opened(tracking, root, about) as run:
            _log(run, judged, out, evaluation, whole, tracking.page)
        store.write_atomic(sent, said)


def _log(
    run: Any, judged: Sequence[Mapping[str, Any]], out: Path, evaluation: Evaluation, whole: str, with_page: bool
) -> None:
    import wandb

    table = tables.read(out / "runs.csv")
    made = {
        "claims": lambda: claims_table(judged),
        "arms": lambda: arms_table(with_differences(content.arms(table, evaluation), evaluation.best.mode)),
        "runs": lambda: runs_table(table, evaluation),
    }
    for key, make in made.items():
        with warned(f"wandb: table of {key}", whole):
            columns, rows = make()
            run.log({key: wandb.Table(columns=columns, data=rows, allow_mixed_types=True)})
    if with_page:
        with warned("wandb: page", whole):
            run.log({"report": wandb.Html(str(out / "index.html"), inject=False)})
    with warned("wandb: verdicts", whole):
        for claim in judged:
            found = {"verdict": claim["verdict"], "estimate": claim["estimate"]}
            run.summary.update({f"{key}/{claim['id']}": value for key, value in found.items() if value is not None})


def claims_table(judged: Sequence[Mapping[str, Any]]) -> Table:
    """A row a claim, the headline first; `treatment` and `control` as JSON."""
    rows = [[_cell(claim[key]) for key in CLAIM] for claim in content.headline_first(judged)]
    return list(CLAIM), rows


def arms_table(arms: Sequence[Arm]) -> Table:
    """A row an arm at its levels: the leading metric with its 95 % interval, what it is of, and what it cost."""
    levels = list(dict.fromkeys(key for arm in arms for key in arm.levels))
    means = list(dict.fromkeys(key for arm in arms for key in arm.means))
    columns = ["arm", *levels, "pairs", "planned", "score", "low", "high"]
    for other in ("full", "control"):
        columns += [f"less {other}", f"less {other}, low", f"less {other}, high"]
    rows = [
        [
            arm.name,
            *(_cell(arm.levels.get(key)) for key in levels),
            *(arm.done, arm.planned, arm.score, arm.low, arm.high),
            *_difference(arm.to_full),
            *_difference(arm.to_control),
            *(arm.means.get(key) for key in means),
        ]
        for arm in arms
    ]
    return [*columns, *means], [[_cell(value) for value in row] for row in rows]


def _difference(found: Difference | None) -> tuple[float | None, float | None, float | None]:
    return (found.mean, found.low, found.high) if found else (None, None, None)


def runs_table(table: pd.DataFrame, evaluation: Evaluation) -> Table:
    """A row a planned run under each of its names: whether it is done, the leading metric at its best point, costs."""
    keys = [*tables.IDENTITY, *tables.levels_of(table)]
    plan = tables.planned(table)[keys]
    wanted = [("run/done", "done", "end"), (evaluation.primary, evaluation.primary, "best_val")]
    wanted += [(name, name, "end") for name in OF_A_RUN]
    columns = [*keys]
    for name, label, point in wanted:
        suite, _, metric = name.partition("/")
        is_it = (table["suite"] == suite) & (table["metric"] == metric) & (table["point"] == point)
        values = table[is_it].drop_duplicates("run_id").set_index("run_id")["value"]
        plan = plan.assign(**{label: plan["run_id"].map(values)})
        columns.append(label)
    return columns, [[_cell(value) for value in row] for row in plan[columns].itertuples(index=False, name=None)]


def _cell(value: Any) -> Any:
    """As wandb takes it: a plain number, text or nothing; anything nested as JSON."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return None if isinstance(value, float) and pd.isna(value) else value
