"""Claims of the literature, judged on the runs of an experiment.

python -m experiments.claims list                what is claimed, by whom, and by what it is judged
python -m experiments.claims check results       recompute every claims.json from the runs.csv beside it
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments import UserError, statistics, store
from experiments import table as tables
from experiments.claim_files import FOLDER, MINUTES, Claim, Selector, check, expand, load, quoted_series

__all__ = ["Claim", "check", "expand", "judge", "load", "measure", "quoted_series", "recompute"]

BOUNDED = ("em", "em_format_free", "accuracy", "consistent")  # metrics between 0 and 1
EDGE = 0.02  # where both arms are this near to 0, or to 1, a bounded metric cannot tell them apart
FEWEST_BASES = 6  # fewer base models than this say nothing about others
PROBE = "cost/tokens_to_probe"
# metrics that end with the curve where something never happened, and what says so: a metric and its point
CENSORED = {**dict.fromkeys(MINUTES, ("cost/censored", "to_full")), PROBE: ("cost/probe_censored", "end")}
DECISIVE = ("kind", "metric", "point", "scale", "treatment", "control", "margin", "scope", "not_comparable", "settled")


# --- measuring ------------------------------------------------------------------------------------------------------


@dataclass
class Measured:
    """What the runs say about one claim before several claims are weighed against each other."""

    control: Selector
    estimate: statistics.Estimate | None = None
    pairs: int = 0
    bases: int = 0
    mean: float | None = None
    reason: str | None = None  # why there is no interval
    open_above: bool = False  # the treatment's numbers are lower bounds
    open_below: bool = False  # the control's are
    notes: list[str] = field(default_factory=list)

    def p(self, claim: Claim) -> float | None:
        """See `statistics.p_value`; None without an interval."""
        if self.estimate is None:
            return None
        return float(statistics.p_value(claim.kind, self.estimate, claim.margin, self.open_above, self.open_below))


def measure(claim: Claim, table: pd.DataFrame, best: tables.Best) -> Measured:
    """The paired differences of one claim and their estimate, or the reason why there is none."""
    plan = tables.planned(table)
    if why := claim.not_comparable:
        return Measured(claim.control, reason=why.reason, notes=[f"to decide it: {why.command}"])
    for selector in (claim.treatment, *claim.controls):
        if set(selector) - set(plan.columns) or tables.matching(plan, selector).empty:
            return Measured(claim.control, reason=f"no run was planned for {_name(selector)}")
    control, notes = _best_control(claim, table, best)
    if control is None:
        return Measured(claim.control, reason=notes[0])
    treated = _by_unit(table, claim.treatment, claim.metric, claim.point)
    controlled = _by_unit(table, control, claim.metric, claim.point)
    both = treated.add_suffix("_t").join(controlled.add_suffix("_c"), how="inner").sort_index()
    wanted = _units(tables.matching(plan, claim.treatment)) & _units(tables.matching(plan, control))
    found = Measured(control, pairs=len(both), bases=len({base for _, base in both.index}), notes=notes)
    if lost := sorted({pair for pair, _ in wanted - set(both.index)}):
        which = ", ".join(map(str, lost))
        found.notes.append(f"without pair {which} (a run is missing, failed or has no such figure)")
    if both["runs_t"].nunique() + both["runs_c"].nunique() > 2:
        found.notes.append("some pairs average fewer draws than others")
    if both.empty:
        found.reason = f"no pair has {claim.metric} at {claim.point} for both arms"
        return found
    _differences(claim, found, both)
    if claim.settled and (plateau := _unsettled(claim, table, both.index, control)):
        found.estimate, found.reason = None, plateau
    if claim.metric in CENSORED:
        _censor(claim, found, table, both.index)
    if claim.point == "best_val":
        _short_curves(claim, found, table)
    return found


def _differences(claim: Claim, found: Measured, both: pd.DataFrame) -> None:
    """Set the mean, and the estimate unless something speaks against it."""
    t, c = both["value_t"].to_numpy(float), both["value_c"].to_numpy(float)
    if claim.scale == "log_ratio" and min(t.min(), c.min()) <= 0:
        found.reason = "a ratio needs values above 0 in every pair"
        return
    d = np.log(t) - np.log(c) if claim.scale == "log_ratio" else t - c
    bases = both.index.get_level_values("seed_base").to_numpy()
    across = claim.scope == "across"
    found.mean = float(np.mean([d[bases == base].mean() for base in np.unique(bases)]) if across else d.mean())
    if across and found.bases < FEWEST_BASES:
        found.reason = f"{found.bases} base models say nothing about others; run at least {FEWEST_BASES}"
    elif len(d) < 2:
        found.reason = "one pair has no spread; run at least two"
    elif (both["ids_t"] == both["ids_c"]).all():
        found.reason = "treatment and control are the same runs"
    elif edge := _edge(claim.metric, t.mean(), c.mean()):
        found.reason = f"both arms are within {EDGE} of {edge}: there is no room to differ in"
    else:
        e = statistics.estimate(d, bases, across)
        if e.se <= 1e-9 * np.abs(d).max():
            found.reason = "the pairs do not differ at all, so their spread is unknown; run more"
        else:
            found.estimate = e


def _edge(metric: str, t: float, c: float) -> str | None:
    if metric.partition("/")[2] not in BOUNDED:
        return None
    return "0" if max(t, c) <= EDGE else "1" if min(t, c) >= 1 - EDGE else None


def _censor(claim: Claim, found: Measured, table: pd.DataFrame, units: pd.Index) -> None:
    """Open the end of the interval about which runs that never got there say nothing."""
    unit = "minutes" if claim.point == "to_full" else "tokens"
    for side, selector in (("treatment", claim.treatment), ("control", found.control)):
        values = _by_unit(table, selector, *CENSORED[claim.metric])
        never = int((values.loc[values.index.intersection(units), "value"] > 0).sum())
        if never:
            bound = "above" if side == "treatment" else "below"
            setattr(found, f"open_{bound}", True)
            found.notes.append(
                f"censored: in {never} of {len(units)} pairs the {side} was never as good, so that its {unit} are at"
                f" least those of its whole curve and the interval is open {bound}"
            )


def _unsettled(claim: Claim, table: pd.DataFrame, units: pd.Index, control: Selector) -> str | None:
    """Why a claim that needs both arms to have learnt their text cannot be judged; None if they have."""
    for side, selector in (("treatment", claim.treatment), ("control", control)):
        values = _by_unit(table, selector, *CENSORED[PROBE])["value"].reindex(units)
        if never := int((values.isna() | (values > 0)).sum()):
            return (
                f"in {never} of {len(units)} pairs the {side} had not passed its probe by the end: what it still has to"
                " learn is a matter of training time, and says nothing about sizes"
            )
    return None


def _short_curves(claim: Claim, found: Measured, table: pd.DataFrame) -> None:
    """Say where a best point is the last of its curve: a longer curve might have had a better one."""
    for side, selector in (("treatment", claim.treatment), ("control", found.control)):
        best, end = (
            tables.matching(tables.measured(table, claim.metric, point), selector)
            .drop_duplicates("run_id")
            .set_index("run_id")["tokens"]
            for point in ("best_val", "end")
        )
        last = int((best == end.reindex(best.index)).sum())
        if last:
            found.notes.append(f"the {side} was best at the end of its curve in {last} of {len(best)} runs")


def _units(frame: pd.DataFrame) -> set[tuple]:
    return set(frame[tables.UNIT].itertuples(index=False, name=None))


def _by_unit(table: pd.DataFrame, selector: Selector, metric: str, point: str) -> pd.DataFrame:
    """One row a pair: the mean over its draws, how many runs that is, and which."""
    rows = tables.matching(tables.measured(table, metric, point), selector)
    rows = rows.drop_duplicates([*tables.UNIT, "run_id"])
    grouped = rows.groupby(tables.UNIT)
    ids = grouped["run_id"].agg(lambda ids: " ".join(sorted(ids))) if len(rows) else grouped["run_id"].first()
    return pd.DataFrame({"value": grouped["value"].mean(), "runs": grouped["run_id"].nunique(), "ids": ids})


def _best_control(claim: Claim, table: pd.DataFrame, best: tables.Best) -> tuple[Selector | None, list[str]]:
    """The one control, or the best of several by the mean validation score: the test metric has no say in it.

    None, and why, where no pair has all of them: the strongest could be the one that is missing.
    """
    if "best_of" not in claim.control:
        return claim.control, []
    metric = f"{best.suite}/{best.metric}"
    scores = [_by_unit(table, control, metric, "best_val")["value"] for control in claim.controls]
    common = pd.concat(scores, axis=1, join="inner")
    names = ", ".join(map(_name, claim.controls))
    if common.empty:
        return None, [f"no pair has all of {names}: which is best cannot be told"]
    means = common.mean().to_numpy() * (1 if best.mode == "max" else -1)
    return claim.controls[int(np.argmax(means))], [f"the best of {names} by {metric}"]


def _name(selector: Selector) -> str:
    return " ".join(str(value) if key == "arm" else f"{key}={value}" for key, value in selector.items())


# --- judging --------------------------------------------------------------------------------------------------------


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
    if set(chain(claim.treatment, *claim.controls)) - set(plan.columns):
        return [claim]
    return expand(claim, plan) or [claim]


def _entry(
    claim: Claim, part: Claim, m: Measured, p: float | None, level: float | None, best: tables.Best, experiment: str
) -> dict[str, Any]:
    low = high = needed = None
    verdict, notes = "inconclusive", [*([m.reason] if m.reason else []), *m.notes]
    if part.not_comparable:
        verdict = "not_comparable"
    elif m.estimate is not None and level is not None:
        low, high = (_short(float(end)) for end in m.estimate.interval(level))
        low, high = None if m.open_below else low, None if m.open_above else high
        bounds = -np.inf if low is None else low, np.inf if high is None else high
        verdict = statistics.decide(part.kind, *bounds, part.margin)
        if verdict == "inconclusive" and not (m.open_above or m.open_below):
            e = m.estimate
            needed = statistics.pairs_needed(part.kind, float(e.mean), float(e.sd), e.blocks, part.margin, level)
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
        "estimate": _short(m.mean),
        "ci_low": low,
        "ci_high": high,
        "level": None if low is None and high is None else _short(level),
        "margin": part.margin,
        "p": _short(p),
        "verdict": verdict,
        "size": _size(part.quoted.effect, low, high),
        "scope": _scope(part, m),
        "seeds_needed": needed,
        "note": "; ".join(notes),
        "definition": {**_definition(claim), "best": asdict(best)},
    }


def _definition(claim: Claim) -> dict[str, Any]:
    """The claim's keys; those that came later only where they are set, so that earlier evidence stays what it is."""
    return {key: value for key, value in claim.model_dump(mode="json").items() if key != "settled" or value}


def _short(value: float | None) -> float | None:
    """Six digits: more are noise, and differ between machines."""
    return None if value is None else float(f"{value:.6g}")


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
            found += [f"{definition['id']}.{key}" for key in DECISIVE if now[key] != definition.get(key, False)]
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
    try:
        sys.exit(main(sys.argv[1:]))
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
