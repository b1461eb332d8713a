"""The tables that the terminal shows."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from experiments.report import content
from experiments.table import Cell, runs_table

STYLES = {"reproduced": "green", "contradicted": "red", "no_effect": "blue"}


def claim_table(claims: Sequence[Mapping[str, Any]]) -> Table:
    """The claims with their verdicts, the headline first."""
    table = Table("claim", "verdict", "estimate", "interval", "pairs", "scope", box=None, pad_edge=False)
    for claim in content.headline_first(claims):
        row = dict(zip(content.CLAIM_COLUMNS, content.claim_rows([claim])[0], strict=True))
        verdict = row["verdict"] + (f", {claim['seeds_needed']} pairs needed" if claim["seeds_needed"] else "")
        table.add_row(
            Text(f"{claim['title']}\n{claim['source']}, {claim['metric']}"),
            Text(verdict, style=STYLES.get(claim["verdict"], "")),
            Text(row["estimate"]),
            Text(row["interval"]),
            row["pairs"],
            Text(claim["scope"]),
        )
    return table


def arm_table(cells: Sequence[Cell], records: Mapping[str, Mapping[str, Any]], evaluation: content.Evaluation) -> Table:
    """The arms with what they are made of, what they reach and what they cost."""
    columns = [
        evaluation.primary if name == "score" else name for name in (*content.ARM_COLUMNS, *content.TIME_COLUMNS)
    ]
    found = content.arms(runs_table(cells, records, content.best_of(evaluation)), evaluation)
    rows = [[*content.arm_cells(arm), *content.time_cells(arm)] for arm in found]
    shown = [i for i in range(len(columns)) if i == 0 or any(row[i] != "–" for row in rows)]
    table = Table(box=None, pad_edge=False)
    for i in shown:
        table.add_column(columns[i], justify="left" if i == 0 else "right", no_wrap=i != 0)
    for row in rows:
        table.add_row(*(Text(row[i]) for i in shown))
    return table
