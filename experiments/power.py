"""What an experiment's claims can show with the pairs that are planned, and what more would take: before it is run.

The spread between pairs is that of the finished runs in the store; without any, nothing is guessed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, stats

from experiments import claims as judging
from experiments import statistics
from experiments import table as tables
from experiments.claim_files import Claim, expand

SECONDS = ("score_s", "select_s", "train_s", "eval_s")


def describe_power(
    claims: Sequence[Claim],
    cells: Sequence[tables.Cell],
    records: Mapping[str, Mapping[str, Any]],
    best: tables.Best,
    jobs: int = 1,
) -> str:
    """One or two lines a claim, or nothing where there are no claims.

    For each: the effect that the planned pairs would show with a power of 80 % at the strictest of Holm's levels, and
    how many pairs and minutes an effect of twice the margin, and the quoted one, would take.

    Args:
        claims: of the experiment, checked.
        cells: all planned ones.
        records: of the finished runs by run id; what is not in the plan is not looked at.
        best: see `claims.judge`.
        jobs: processes side by side, for the minutes.
    """
    plan = tables.cells_frame(cells)
    parts = [part for claim in claims for part in expand(claim, plan) if part.not_comparable is None]
    if not parts:
        return ""
    table = tables.runs_table(cells, records, best)
    level = 1 - statistics.ALPHA / len(parts)
    head = f"what the claims can show ({statistics.POWER:.0%} power, {100 * level:.4g} % intervals):"
    return "\n".join(
        [head, *(f"  {part.id}: {_line(part, plan, table, records, best, level, jobs)}" for part in parts)]
    )


def _line(
    part: Claim,
    plan: pd.DataFrame,
    table: pd.DataFrame,
    records: Mapping[str, Mapping[str, Any]],
    best: tables.Best,
    level: float,
    jobs: int,
) -> str:
    sides = [tables.matching(plan, selector) for selector in (part.treatment, *part.controls)]
    units = set.intersection(*(set(side[tables.UNIT].itertuples(index=False, name=None)) for side in sides))
    pairs, bases = len(units), len({base for _, base in units})
    measured = judging.measure(part, table, best)
    e = measured.estimate
    if e is None:
        done = set(plan["run_id"]) & set(records)
        return f"{pairs} pairs planned, spread unknown ({(measured.reason or '') if done else 'no run yet'})"
    if isinstance(e, statistics.Location):
        needed = e.pairs_needed(part.kind, part.margin, part.reference, level)
        if needed is None:
            return f"{pairs} pairs planned; no number of pairs would tell the levels found so far apart"
        return f"{pairs} pairs planned; about {needed} would tell the levels found so far apart"
    if isinstance(e, statistics.Gain):  # the common risk of its levels
        level = 1 - (1 - level) / len(e.gains.mean)
    sd, blocks = (
        (float(np.max(e.gains.sd)), e.gains.blocks) if isinstance(e, statistics.Gain) else (float(e.sd), e.blocks)
    )
    across = part.scope == "across"
    per_base = pairs / max(bases, 1) if across else 1.0  # pairs for each value that enters
    blocks = 1 if across or blocks == 1 or bases == pairs else bases
    shown = detectable(part.kind, sd, round(pairs / per_base), blocks, part.margin, level)
    said = [f"{pairs} pairs planned show {_effect(part, shown)}"]
    runs = pd.concat(sides)["run_id"].nunique() / max(pairs, 1)
    costs = [records[i]["cost"] for i in dict.fromkeys(pd.concat(sides)["run_id"]) if i in records]
    seconds = float(np.mean([sum(cost.get(key) or 0 for key in SECONDS) for cost in costs])) * runs / jobs
    for effect, name in _effects(part):
        needed = statistics.pairs_needed(part.kind, effect - part.reference, sd, blocks, part.margin, level)
        if needed is None:
            said.append(f"{effect:.3g} ({name}) cannot be decided")
            continue
        number = int(np.ceil(needed * per_base))
        said.append(f"{effect:.3g} ({name}) takes {number} pairs, {max(1, round(number * seconds / 60))} min")
    return "; ".join(said)


def _effects(part: Claim) -> list[tuple[float, str]]:
    """The effects that are asked about: on the side of the claim."""
    if part.kind in ("equivalent", "noninferior"):
        found = [(part.reference, "none" if part.reference == 0 else "the reference itself")]
    else:
        sign = 1 if part.kind == "greater" else -1
        found = [(part.reference + 2 * sign * part.margin, "twice the margin")]
    if part.quoted.effect is not None:
        found.append((part.quoted.effect, "as quoted"))
    return found


def detectable(kind: str, sd: float, n: int, blocks: int, margin: float, level: float) -> float | None:
    """How far from the edge of its margin a true effect must lie for n pairs to decide it with `statistics.POWER`.

    None if n pairs leave no error to be estimated; for an equivalence, if even no effect at all would stay undecided.
    """
    if n - blocks < 1:
        return None
    wanted = (1 + statistics.POWER) / 2 if kind == "equivalent" else statistics.POWER
    critical = stats.t.ppf((1 + level) / 2, n - blocks)

    def short(distance: float) -> float:
        return float(stats.nct.sf(critical, n - blocks, distance)) - wanted

    far = 2 * critical + 10.0
    if short(far) < 0:  # with a degree of freedom or two and a strict level
        return None
    distance = float(optimize.brentq(short, 0.0, far)) * sd / n**0.5
    return None if kind == "equivalent" and distance > margin else distance


def _effect(part: Claim, distance: float | None) -> str:
    if distance is None:
        return "nothing"
    low, high = part.reference - part.margin, part.reference + part.margin
    if part.kind == "greater":
        return f"{high + distance:.3g} or more"
    if part.kind == "less":
        return f"{low - distance:.3g} or less"
    if part.kind == "noninferior":
        return f"{low + distance:.3g} or more"
    return f"anything between {low + distance:.3g} and {high - distance:.3g}"
