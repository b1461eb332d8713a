"""The published claims of all experiments in one table: what `results/README.md` shows, made from every claims.json.

python -m experiments.evidence results           write the table anew
python -m experiments.evidence check results     fail if it is not what the files say, or runs lack their record
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import UserError, command_line, exchange, store
from experiments import table as tables
from experiments.report import content

BEGIN, END = "<!-- claims: made by python -m experiments.evidence -->", "<!-- end of claims -->"
HEAD = "| claim | source, scale | here | verdict | estimate (interval) | pairs |\n|---|---|---|---|---|---:|"


def table(folder: Path) -> str:
    """The claims of every experiment below `folder` as Markdown, experiments in alphabetical order."""
    lines = [HEAD]
    for path in sorted(folder.glob("*/claims.json")):
        for claim in json.loads(path.read_text(encoding="utf-8")):
            lines.append(_row(path.parent.name, claim))
    return "\n".join(lines)


def _row(name: str, claim: dict[str, Any]) -> str:
    estimate = "–" if claim["estimate"] is None else content.effect(claim, claim["estimate"])
    interval = content.interval_of(claim)
    verdict = content.VERDICTS[claim["verdict"]]
    if claim["seeds_needed"]:
        verdict += f", {claim['seeds_needed']} pairs needed"
    cells = (
        f"{claim['title']} (`{claim['id']}`)",
        f"{claim['source']}: {claim['quoted']}",
        f"[{name}]({name}/REPORT.md), {claim['scope']}",
        f"**{verdict}**",
        estimate if interval == "–" else f"{estimate} ({interval})",
        str(claim["pairs"]),
    )
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


def write(folder: Path) -> None:
    """Put the table between the marks in `folder`/README.md; raises UserError where the marks are not there."""
    path = folder / "README.md"
    store.write_atomic(path, _with_table(path, table(folder)))


def _with_table(path: Path, text: str) -> str:
    page = path.read_text(encoding="utf-8")
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise UserError(f"{path}: the table has no place; put the lines {BEGIN} and {END} where it is to stand")
    return f"{page[: page.index(BEGIN)]}{BEGIN}\n\n{text}\n\n{page[page.index(END) :]}"


def faults(folder: Path) -> list[str]:
    """What is wrong with the published evidence below `folder`, a line each.

    The table of README.md must be what the claims.json files give, and every number of a runs.csv must be that of
    its run's record.
    """
    found = []
    path = folder / "README.md"
    if path.exists() and _with_table(path, table(folder)) != path.read_text(encoding="utf-8"):
        found.append(
            f"{path}: its table is not what the claims.json files give; python -m experiments.evidence {folder}"
        )
    for records in sorted(folder.glob(f"*/{exchange.RECORDS}")):
        found += _unlike(records)
    return found


def _unlike(path: Path) -> list[str]:
    """Runs of the table beside an export that have no record there, or numbers that the record does not have."""
    records = {entry["record"]["run_id"]: entry["record"] for entry in exchange.read_records(path)}
    rows = tables.read(path.with_name("runs.csv"))
    done = set(rows.loc[(rows["suite"] == "run") & (rows["value"] > 0), "run_id"])
    if lost := sorted(done - records.keys()):
        return [f"{path}: {len(lost)} runs of runs.csv have no record, as {lost[0]}; export them again"]
    measured = rows[["run_id", "point", "suite", "metric", "value"]].drop_duplicates()
    for run_id, point, suite, metric, value in measured.itertuples(index=False, name=None):
        cell = records.get(run_id, {}).get("metrics", {}).get(point, {}).get(suite, {}).get(metric)
        if cell is not None and cell["value"] is not None and cell["value"] != value:
            return [f"{path}: run {run_id} has {suite}/{metric} = {cell['value']} at {point}, runs.csv {value}"]
    return []


def main(arguments: Sequence[str]) -> int:
    """The command line above; returns the exit code."""
    match arguments:
        case ["check", folder]:
            for fault in (found := faults(Path(folder))):
                print(fault)
            return int(bool(found))
        case [folder] if not folder.startswith("-"):
            write(Path(folder))
            return 0
        case _:
            print(__doc__)
            return 2


if __name__ == "__main__":
    command_line(main)
