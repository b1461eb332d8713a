"""Two reports side by side, aligned by arm and by claim: two experiments, or one on two models.

    python -m experiments.report report.compare=[quickstart,results/alpaca_smoke]

Each is the name of a report of the store or a folder that holds a report; what they say is read from their `runs.csv`
and `claims.json`, so that either may come from another machine.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from experiments import UserError, store
from experiments import table as tables
from experiments.report import content as contents
from experiments.report.content import VERDICTS, Arm, effect, interval_of, number
from experiments.report.differences import with_differences
from experiments.report.page import Section, alone, environment
from experiments.report.texts import difference

FALLBACK: dict[str, Any] = {
    "primary": "ood/em",
    "mode": "max",
    "best": {"suite": "validation", "metric": "em", "mode": "max"},
}


@dataclass(frozen=True)
class Lead:
    """What a report leads with; see `content.Evaluation`."""

    primary: str
    mode: str
    best: tables.Best


@dataclass(frozen=True)
class Side:
    """One of the two reports."""

    name: str
    lead: Lead
    arms: Sequence[Arm]
    claims: Sequence[Mapping[str, Any]]


def read(root: Path, name: str) -> Side:
    """A report of the store `root`, or of the folder `name`; raises UserError where there is none."""
    folder = next((p for p in (root / "reports" / name, Path(name)) if (p / "claims.json").exists()), None)
    if folder is None:
        there = ", ".join(sorted(path.parent.name for path in (root / "reports").glob("*/claims.json"))) or "none"
        raise UserError(
            f"report.compare={name}: no such report in {root / 'reports'} (there are: {there}), and no folder that"
            " holds one; build it with python -m experiments.report experiment=NAME"
        )
    try:
        claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
        table = tables.read(folder / "runs.csv")
        lead = _lead(json.loads((folder / "manifest.json").read_text(encoding="utf-8")), claims)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"report.compare={name}: {folder} is no whole report ({error}); build it again") from None
    arms = with_differences(contents.arms(table, lead), lead.best.mode)
    return Side(Path(name).name, lead, arms, claims)


def _lead(manifest: Mapping[str, Any], claims: Sequence[Mapping[str, Any]]) -> Lead:
    """As the manifest says; of a report from before it did, what its claims are judged by."""
    found = manifest.get("evaluation")
    if found is None and claims:
        best = claims[0]["definition"]["best"]
        judged = [claim["metric"] for claim in claims if claim["point"] == "best_val"] or [FALLBACK["primary"]]
        found = {"primary": judged[0], "mode": best["mode"], "best": best}
    found = found or FALLBACK
    return Lead(found["primary"], found["mode"], tables.Best(**found["best"]))


def aligned(one: Sequence[Any], other: Sequence[Any], *keys: Callable[[Any], Any]) -> list[tuple[Any, Any]]:
    """Pairs of what belongs together by the first of `keys` by which it does, in the order of `one`; then what is only
    in one of them, beside None."""
    mates: dict[int, int] = {}
    for key in keys:
        for i, item in enumerate(one):
            free = [j for j in range(len(other)) if j not in mates.values() and key(other[j]) == key(item)]
            if i not in mates and free:
                mates[i] = free[0]
    pairs = [(item, other[mates[i]] if i in mates else None) for i, item in enumerate(one)]
    return [*pairs, *((None, item) for j, item in enumerate(other) if j not in mates.values())]


def arm_rows(one: Side, other: Side) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the arms of both."""
    heads = [(side.name, side.lead.primary) for side in (one, other)]
    columns = [
        "arm",
        *(f"{name}: {what}" for name, lead in heads for what in (lead, "minus full", "minus best control")),
    ]
    pairs = aligned(one.arms, other.arms, lambda arm: arm.label, lambda arm: arm.name)
    return columns, [
        [_label(a, b), *(cell for arm in (a, b) for cell in _arm_cells(arm))] for a, b in pairs
    ]  # fmt: skip


def _label(one: Arm | None, other: Arm | None) -> str:
    return " / ".join(dict.fromkeys(arm.label for arm in (one, other) if arm))


def _arm_cells(arm: Arm | None) -> list[str]:
    if arm is None:
        return ["–"] * 3
    score = number(arm.score) + ("" if arm.low is None else f" ({number(arm.low)} to {number(arm.high)})")
    return [score, difference(arm.to_full), difference(arm.to_control)]


def claim_rows(one: Side, other: Side) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the claims of both: verdict, estimate with interval, pairs."""
    columns = ["claim", *(f"{s.name}: {what}" for s in (one, other) for what in ("verdict", "estimate", "pairs"))]

    def contrast(claim: Mapping[str, Any]) -> tuple[Any, ...]:
        definition = claim["definition"]
        return claim["source"], claim["kind"], str(definition["treatment"]), str(definition["control"])

    pairs = aligned(one.claims, other.claims, lambda claim: claim["id"], contrast)
    rows = []
    for a, b in pairs:
        title = (a or b)["title"]
        rows.append([title, *(cell for claim in (a, b) for cell in _claim_cells(claim))])
    return columns, rows


def _claim_cells(claim: Mapping[str, Any] | None) -> list[str]:
    if claim is None:
        return ["–"] * 3
    estimate = "–" if claim["estimate"] is None else f"{effect(claim, claim['estimate'])} ({interval_of(claim)})"
    return [VERDICTS[claim["verdict"]], estimate, str(claim["pairs"])]


def agreement(one: Side, other: Side) -> str:
    """In one sentence: how many claims both decide, and how many alike."""
    both = [(a, b) for a, b in aligned(one.claims, other.claims, lambda claim: claim["id"]) if a and b]
    decided = [(a, b) for a, b in both if {a["verdict"], b["verdict"]}.isdisjoint({"inconclusive", "not_comparable"})]
    alike = sum(a["verdict"] == b["verdict"] for a, b in decided)
    return f"{len(both)} claims are judged in both, {len(decided)} of them decided in both, {alike} alike."


def build(root: Path, names: Sequence[str]) -> Path:
    """Write the page of two reports into the store's reports; returns its path."""
    if len(names) != 2:
        raise UserError(f"report.compare: {len(names)} names; give two, as in report.compare=[quickstart,alpaca_smoke]")
    one, other = (read(root, name) for name in names)
    title = f"{one.name} and {other.name}"
    sides = [
        f"{side.name}: {sum(arm.done for arm in side.arms)} runs, {len(side.arms)} arms, led by {side.lead.primary}"
        for side in (one, other)
    ]
    markup = (
        environment()
        .get_template("compare.html")
        .render(arms=arm_rows(one, other), claims=claim_rows(one, other), agreement=agreement(one, other), sides=sides)
    )
    out = root / "reports" / f"{one.name}_and_{other.name}" / "index.html"
    script = (Path(__file__).parent / "templates" / "report.js").read_text(encoding="utf-8")
    store.write_atomic(out, alone(title, Section("Side by side", Markup(markup), script=script)))
    return out
