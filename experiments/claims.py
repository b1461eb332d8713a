"""Claims of the literature, judged on the runs of an experiment.

python -m experiments.claims list                what is claimed, by whom, and by what it is judged
python -m experiments.claims check results       recompute every claims.json from the runs.csv beside it
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments import command_line, statistics, store
from experiments import table as tables
from experiments.claim_files import FOLDER, Claim, check, expand, load, quoted_series
from experiments.contrasts import Measured, measure
from experiments.shape_files import Form, Needed, Parameter, axes

__all__ = ["Claim", "check", "expand", "judge", "load", "measure", "quoted_series", "recompute"]

FITTED = 4  # digits of a fitted figure that any machine finds again
DECISIVE = (
    "kind", "metric", "point", "scale", "treatment", "control", "control_metric", "control_point", "statistic",
    "reference", "margin", "scope", "items", "settled", "not_comparable",
)  # fmt: skip


def judge(
    claims: Sequence[Claim], table: pd.DataFrame, *, best: tables.Best, experiment: str, alpha: float = statistics.ALPHA
) -> list[dict[str, Any]]:
    """The content of `claims.json`: every claim with its estimate, interval and verdict, at a common risk `alpha`.

    Args:
        table: all runs, as `table.read` gives them.
        best: how the best of several controls is chosen.
    """
    plan = tables.planned(table)
    parts = [(claim, part) for claim in claims for part in _expand(claim, plan)]
    metrics = [metric for claim in claims for metric in (claim.metric, claim.control_at[0])]
    suites = {"run", "cost", tables.ITEMS, best.suite, *(metric.partition("/")[0] for metric in metrics)}
    table = table[table["suite"].isin(suites)]  # a part of all rows, that many claims on many runs take a moment
    found = [measure(part, table, best) for _, part in parts]
    p_values = [m.p(part) for m, (_, part) in zip(found, parts, strict=True)]
    counted = [i for i, (_, part) in enumerate(parts) if part.not_comparable is None]
    shares = dict(zip(counted, statistics.levels([p_values[i] for i in counted], alpha), strict=True))
    return [
        _entry(claim, part, m, p, shares.get(i), best, experiment)
        for i, ((claim, part), m, p) in enumerate(zip(parts, found, p_values, strict=True))
    ]


def _expand(claim: Claim, plan: pd.DataFrame) -> list[Claim]:
    """`expand`, but a claim that does not fit the runs stays, to be reported as undecided."""
    if set(chain(claim.treatment, axes(claim.statistic), *claim.controls)) - set(plan.columns):
        return [claim]
    return expand(claim, plan) or [claim]


def _entry(
    claim: Claim, part: Claim, m: Measured, p: float | None, level: float | None, best: tables.Best, experiment: str
) -> dict[str, Any]:
    low = high = needed = None
    digits = FITTED if isinstance(part.statistic, (Parameter, Form, Needed)) else 6
    verdict, notes = "inconclusive", [*([m.reason] if m.reason else []), *m.notes]
    if part.not_comparable:
        verdict = "not_comparable"
    elif m.estimate is not None and level is not None:
        low, high = (_short(float(end), digits) for end in m.estimate.interval(level))
        low, high = None if m.open_below else low, None if m.open_above else high
        bounds = -np.inf if low is None else low - part.reference, np.inf if high is None else high - part.reference
        verdict = statistics.decide(part.kind, *bounds, part.margin)
        if verdict == "inconclusive" and not (m.open_above or m.open_below):
            needed = m.pairs_needed(part, level)
            if needed is None and isinstance(m.estimate, statistics.Crossed):
                notes.append(
                    "these items leave too much open for any number of pairs to decide it: it takes more of them"
                )
    return {
        "id": part.id,
        "title": part.title,
        "source": part.source,
        "quoted": f"{part.quoted.figure} ({part.quoted.at})",
        "reading": part.reading,
        "experiment": experiment,
        "kind": part.kind,
        "metric": part.metric,
        "point": part.point,
        "scale": part.scale,
        "treatment": part.treatment,
        "control": m.control,
        "pairs": m.pairs,
        "statistic": part.statistic and part.statistic.model_dump(mode="json"),
        "reference": part.reference,
        "estimate": _short(m.mean, digits),
        "ci_low": low,
        "ci_high": high,
        "level": None if low is None and high is None else _short(level),
        "margin": part.margin,
        "p": _short(p, digits),
        "verdict": verdict,
        "size": _size(part.quoted.effect, low, high),
        "scope": _scope(part, m),
        "seeds_needed": needed,
        "note": "; ".join(notes),
        "definition": {**claim.model_dump(mode="json"), "best": asdict(best)},
    }


def _short(value: float | None, digits: int = 6) -> float | None:
    """Six digits, of fits fewer: more are noise, and differ between machines."""
    return None if value is None else float(f"{value:.{digits}g}")


def _size(effect: float | None, low: float | None, high: float | None) -> str | None:
    if effect is None:
        return "none quoted"
    if low is None and high is None:
        return None
    inside = (low is None or low <= effect) and (high is None or effect <= high)
    return "covers" if inside else "excludes"


def _scope(claim: Claim, m: Measured) -> str:
    if claim.scope == "across":
        return "across base models"
    if claim.items == "crossed":
        return "this model, items and draws like these"
    if m.bases == 1:
        return "this model, these items and seeds"
    scope = f"these {m.bases} base models" if m.bases else "these base models"
    return scope + " (one pair each: t over pairs)" * (m.bases == m.pairs > 1)


# --- published evidence ---------------------------------------------------------------------------------------------


def recompute(folder: Path) -> bool:
    """Whether `folder/claims.json` is, byte for byte, what `folder/runs.csv` and the definitions in it give."""
    text = (folder / "claims.json").read_text(encoding="utf-8")
    return text == store.canonical(rejudge(json.loads(text), tables.read(folder / "runs.csv")))


def rejudge(entries: Sequence[Mapping[str, Any]], table: pd.DataFrame) -> list[dict[str, Any]]:
    """Judge again the claims that `entries` of a claims.json define."""
    if not entries:
        return []
    definitions = {entry["definition"]["id"]: dict(entry["definition"]) for entry in entries}
    best = tables.Best(**[definition.pop("best") for definition in definitions.values()][0])  # noqa: RUF015 (pops all)
    return judge([Claim(**d) for d in definitions.values()], table, best=best, experiment=entries[0]["experiment"])


def changed(entries: Iterable[Mapping[str, Any]], folder: Path = FOLDER) -> list[str]:
    """Claims that were judged by another definition than conf/claim/ now has under the same id."""
    found = []
    for definition in {e["definition"]["id"]: e["definition"] for e in entries}.values():
        if (folder / f"{definition['id']}.yaml").exists():
            now = load([definition["id"]], folder)[0].model_dump(mode="json")
            defaults = {key: Claim.model_fields[key].default for key in DECISIVE}
            now, then = defaults | now, defaults | definition
            found += [f"{definition['id']}.{key}" for key in DECISIVE if now[key] != then[key]]
    return found


def main(arguments: Sequence[str]) -> int:
    """The command line above; returns the exit code."""
    match arguments:
        case ["list"]:
            for claim in load(sorted(path.stem for path in FOLDER.glob("*.yaml"))):
                judged = f"{claim.metric} at {claim.point}, margin {claim.margin:g}"
                print(f"{claim.id}: {claim.title} ({claim.source}); {judged}")
            return 0
        case ["check", root]:
            wrong = 0
            for path in sorted(Path(root).rglob("claims.json")):
                moved = changed(json.loads(path.read_text(encoding="utf-8")))
                same = recompute(path.parent)
                said = [] if same else ["differs from what runs.csv gives; build the report again"]
                said += [f"{key} was another when it was judged; a change is a new id" for key in moved]
                print(f"{path}: {'; '.join(said) or 'as runs.csv gives it'}")
                wrong += bool(said)
            return int(wrong > 0)
        case _:
            print(__doc__)
            return 2


if __name__ == "__main__":
    command_line(main)
