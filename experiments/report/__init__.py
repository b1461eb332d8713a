"""The report of an experiment: a page, its Markdown twin, and the files that its numbers can be had from.

index.html REPORT.md figures/      to read
simulator.html                     of runs over sizes, noise and copies: to ask
runs.csv claims.json manifest.json to compute with: every verdict follows from the first two
paper/                             if asked for: figures as PDF, claims as LaTeX and Markdown tables
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import claims as judging
from experiments import slices, store
from experiments import table as tables
from experiments.claim_files import Claim
from experiments.report import content as contents
from experiments.report import curves, dose, entropy, folders, forest, iso, pareto, suite_curves
from experiments.report import paper as papers
from experiments.report.content import Content, Evaluation, Failure
from experiments.report.differences import with_differences
from experiments.report.figures import Plan, draw_all
from experiments.report.markdown import markdown
from experiments.report.page import Section, alone, page
from experiments.report.terminal import arm_table, claim_table
from experiments.table import Cell

__all__ = ["arm_table", "build", "claim_table"]


def build(
    name: str,
    title: str,
    cells: Sequence[Cell],
    records: Mapping[str, Mapping[str, Any]],
    claims: Sequence[Claim],
    out: Path,
    command: str,
    config_yaml: str,
    *,
    evaluation: Evaluation,
    failures: Mapping[str, str] | None = None,
    ood: Sequence[str] = (),
    root: Path | None = None,
    paper: bool = False,
) -> list[dict[str, Any]]:
    """Judge the claims and write the report into the folder `out`; what is there of an earlier one is replaced.

    Args:
        cells: all that was planned, finished or not.
        records: the records of the finished runs by run id.
        claims: what to judge.
        evaluation: says which metric leads, in which direction, and what a run's best point is chosen by.
        failures: run id -> why there is no record.
        ood: the suites out of distribution.
        root: the store, in which the folders of runs have rows, answers and results by question; None: there is none.
        paper: also write figures as PDF, and claims as LaTeX and Markdown tables, into the folder `paper`.

    Returns:
        The content of `claims.json`.
    """
    best = contents.best_of(evaluation)
    table = tables.write(out / "runs.csv", tables.runs_table(cells, records, best))
    judged = judging.judge(claims, table, best=best, experiment=name)
    store.write_atomic(out / "claims.json", store.canonical(judged))
    done = sorted({cell.run_id for cell in cells if cell.run_id in records})
    missing = sorted({cell.run_id for cell in cells} - set(done))
    store.write_atomic(
        out / "manifest.json",
        store.canonical(
            {"experiment": name, "command": command, "runs": done, "missing": missing, "evaluation": _lead(evaluation)}
        ),
    )
    content = _content(name, title, table, records, judged, command, config_yaml, evaluation, failures or {})
    drawings = draw_all(_plans(content, table, evaluation, ood), out / "figures", out / "paper" if paper else None)
    if paper:
        papers.write(out / "paper", judged)
    store.write_atomic(out / "REPORT.md", markdown(content, drawings))
    found = folders.look(root, table, content.arms, judged, records, ood)
    sections = _simulator(table, content.title or name, out / "simulator.html")
    store.write_atomic(out / "index.html", page(content, drawings, sections, folders=found))
    return judged


def _lead(evaluation: Evaluation) -> dict[str, Any]:
    """What the report leads with, for whoever reads its table alone."""
    best = contents.best_of(evaluation)
    return {"primary": evaluation.primary, "mode": evaluation.mode, "best": asdict(best)}


def _plans(content: Content, table: pd.DataFrame, evaluation: Evaluation, ood: Sequence[str]) -> list[Plan]:
    """The figures that there is data for, in the order of the page."""
    return [
        *curves.together(content),
        *pareto.plans(content),
        *dose.plans(table, evaluation),
        *entropy.plans(table),
        *iso.plans(table),
        *curves.apart(content),
        *suite_curves.plans(content, table, ood),
        *forest.plans(content),
    ]


def _simulator(table: Any, title: str, out: Path) -> list[Section]:
    """Write the simulator's own page, and return its section of the report, if the runs span its axes."""
    found = slices.found_in(table)
    if found is None:
        out.unlink(missing_ok=True)
        return []
    from experiments.report import simulator  # Bokeh takes a second to import

    section = simulator.section(found)
    store.write_atomic(out, alone(title, section, back="index.html"))
    return [section]


def _content(
    name: str,
    title: str,
    table: Any,
    records: Mapping[str, Mapping[str, Any]],
    judged: Sequence[Mapping[str, Any]],
    command: str,
    config_yaml: str,
    evaluation: Evaluation,
    failures: Mapping[str, str],
) -> Content:
    arms = with_differences(contents.arms(table, evaluation), evaluation.best.mode)
    done = table.loc[(table["suite"] == "run") & (table["metric"] == "done")]
    lost = done[done["value"] == 0].drop_duplicates("run_id")
    baselines = {"before training": contents.interval(tables.measured(table, evaluation.primary, "step:0"))[0]}
    guess = f"{evaluation.primary.partition('/')[0]}/majority"
    baselines["majority answer"] = contents.interval(tables.measured(table, guess, "step:0"))[0]
    used = [records[run_id] for run_id in sorted(set(done["run_id"]) & set(records))]
    return Content(
        name=name,
        title=title,
        primary=evaluation.primary,
        mode=evaluation.mode,
        best=f"{evaluation.best.suite}/{evaluation.best.metric}",
        claims=judged,
        arms=arms,
        baselines={label: value for label, value in baselines.items() if value is not None},
        failures=[
            Failure(str(run), str(arm), int(pair), failures.get(str(run), "was not run"))
            for run, arm, pair in lost[["run_id", "arm", "seed_pair"]].itertuples(index=False, name=None)
        ],
        facts=_facts(done, used),
        command=command,
        config_yaml=config_yaml,
        scorers={arm.label: arm.scorer for arm in arms if arm.scorer},
        devices=Counter(str(record["environment"]["device"]) for record in used),
    )


def _facts(done: Any, records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Seeds, code and environment in words; where runs differ, each variant with the number of its runs."""
    seeds = [f"{seed} {_range(done[f'seed_{seed}'])}" for seed in tables.SEEDS if done[f"seed_{seed}"].notna().any()]
    found = [("seeds", "; ".join(seeds))]
    for key in ("code_version", "environment"):
        variants: dict[str, int] = {}
        for record in records:
            text = ", ".join(f"{k} {v}" for k, v in sorted((record.get(key) or {}).items()))
            variants[text] = variants.get(text, 0) + 1
        words = [text if len(variants) == 1 else f"{text} ({n} runs)" for text, n in sorted(variants.items()) if text]
        found.append((key.replace("_", " "), "; ".join(words)))
    return [(key, value) for key, value in found if value]


def _range(values: Any) -> str:
    numbers = sorted({int(v) for v in values.dropna()})
    whole = len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]} to {numbers[-1]}" if whole else ", ".join(map(str, numbers))
