"""The runs of a store in a table, chosen by experiment, arm, status or any key of their configs."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table
from rich.text import Text

from experiments import UserError, store_index
from experiments.store_index import Run

STATUSES = {"done": "green", "failed": "red", "damaged": "red", "unfinished": "yellow"}
ALIKE = ("arm", "data.name", "model.kind", "evaluation.primary")  # runs that differ in these are not levels of one arm
MOST_LEVELS = 4  # that are shown of a run
NOT_LEVELS = ("seed.", "store.", "tracking.", "evaluation.")  # a run's own, of no matter to it, or how it is measured


def experiments_of(root: Path) -> dict[str, list[str]]:
    """Experiment -> ids of the runs that its report names, missing ones too."""
    found = {}
    for path in sorted((root / "reports").glob("*/manifest.json")):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            found[path.parent.name] = [*manifest["runs"], *manifest.get("missing", [])]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a report that is being written
    return found


def chosen(root: Path, filters: Mapping[str, str]) -> list[Run]:
    """The runs that fit all `filters` (key -> value, or several values between commas), by id.

    Raises UserError for a key, an experiment or a status that no run has.
    """
    found = store_index.runs(root)
    if not found:
        raise UserError(f"store.root={root}: holds no run; name a store with store.root=FOLDER")
    for key, text in filters.items():
        if key == "experiment":
            known = experiments_of(root)
            if text not in known:
                there = ", ".join(known) or "none"
                raise UserError(f"experiment={text}: no report of that name in {root / 'reports'} (there are: {there})")
            ids = set(known[text])
            found = [run for run in found if run.id in ids]
        elif key == "status":
            if text not in STATUSES:
                raise UserError(f"status={text}: no such status; use one of {', '.join(STATUSES)}")
            found = [run for run in found if run.status == text]
        else:
            wanted = _values(key, text)
            _check_key(key, text, found)
            found = [run for run in found if key in run.config and run.config[key] in wanted]
    return found


def _values(key: str, text: str) -> list[Any]:
    """What a value may be: the whole, and where that is text with commas each of its parts."""
    try:
        several = "," in text and isinstance(yaml.safe_load(text), str)
        return [_value(text), *(_value(part) for part in text.split(",") if several)]
    except yaml.YAMLError:
        raise UserError(f"{key}={text}: not a value; give text, a number, null or several between commas") from None


def _value(text: str) -> Any:
    """A value as YAML has it, and 2e-5 as the number that it is meant to be; lists as JSON text."""
    value = yaml.safe_load(text)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _check_key(key: str, text: str, found: Sequence[Run]) -> None:
    keys = {name for run in found for name in run.config}
    if not found or key in keys:
        return
    below = sorted(name for name in keys if name.startswith(f"{key}."))
    near = below or difflib.get_close_matches(key, keys, n=4) or sorted({name.partition(".")[0] for name in keys})
    raise UserError(f"{key}={text}: no run has such a key; use one of {', '.join(near[:12])}")


def levels(found: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """run id -> the keys, and their values there, that differ among the runs of its arm on the same kind of data.

    Seeds and what does not matter to a run are left out.
    """
    first: dict[tuple, Mapping[str, Any]] = {}
    varied: dict[tuple, set[str]] = {}
    groups = {run.id: tuple(run.config.get(key) for key in ALIKE) for run in found}
    for run in found:
        items = first.setdefault(groups[run.id], run.config).items()
        if items != run.config.items():
            varied.setdefault(groups[run.id], set()).update(key for key, _ in items ^ run.config.items())
    keys = {group: sorted(key for key in some if not key.startswith(NOT_LEVELS)) for group, some in varied.items()}
    return {
        run.id: {key: run.config[key] for key in keys.get(groups[run.id], ()) if run.config.get(key) is not None}
        for run in found
    }


def _level(values: Mapping[str, Any]) -> str:
    """The levels of a run in a few words, numbers first."""
    order = sorted(values, key=lambda key: isinstance(values[key], (str, bool)))
    said = [f"{key}={values[key]}" for key in order]
    return " ".join(said[:MOST_LEVELS]) + f" (+{len(said) - MOST_LEVELS})" * (len(said) > MOST_LEVELS)


def table(root: Path, found: Sequence[Run], limit: int | None) -> Table:
    """The newest `limit` of the runs (None: all), newest first."""
    shown = sorted(found, key=lambda run: (-run.changed, run.id))[:limit]
    told = levels(found)
    names: dict[str, list[str]] = {}
    for name, ids in experiments_of(root).items():
        for run_id in ids:
            names.setdefault(run_id, []).append(name)
    primaries = {run.primary for run in shown if run.primary}
    single = primaries.pop() if len(primaries) == 1 else None
    heads = ["run", "experiment", "arm", "pair", "levels", "status"] + ["measure"] * (single is None)
    out = Table(*heads, box=None, pad_edge=False)
    for head in (f"{single or ''} best".strip(), "end", "min"):
        out.add_column(head, justify="right")
    for run in shown:
        cells = [run.id, ", ".join(names.get(run.id, [])), run.arm, _shown(run.pair), _level(told[run.id])]
        measure = [] if single else [Text(run.primary or "")]
        figures = [number(run.best), number(run.end), number(run.minutes, 1)]
        out.add_row(*map(Text, cells), Text(run.status, style=STATUSES[run.status]), *measure, *map(Text, figures))
    return out


def summary(found: Sequence[Run], shown: int) -> str:
    """How many there are of each status, and how many of them the table shows."""
    counts = {status: sum(run.status == status for run in found) for status in STATUSES}
    text = f"{len(found)} runs: " + (", ".join(f"{n} {status}" for status, n in counts.items() if n) or "none")
    return text + f"; the newest {shown} are shown (limit=all shows all)" * (shown < len(found))


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table, a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _shown(value: Any) -> str:
    return "–" if value is None else str(value)
