"""What an experiment's claims can show with the pairs that are planned, and what more would take: before it is run.

The spread between pairs is that of the finished runs in the store; without any, nothing is guessed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    table = _table(parts, cells, records, best)
    level = 1 - statistics.ALPHA / len(parts)
    head = f"what the claims can show ({statistics.POWER:.0%} power, {100 * level:.4g} % intervals):"
    return "\n".join(
        [head, *(f"  {part.id}: {_line(part, plan, table, records, best, level, jobs)}" for part in parts)]
    )


def pairs_wanted(
    claims: Sequence[Claim],
    cells: Sequence[tables.Cell],
    records: Mapping[str, Mapping[str, Any]],
    best: tables.Best,
) -> int | None:
    """How many pairs let every claim see an effect of twice its margin, as far as the spread of these runs tells.

    What the differences are on average does not enter, so that looking at it does not choose when to stop (Stein 1945,
    Ann. Math. Statist. 16:243). Power and level are those of `describe_power`. None where no claim's spread is known.
    """
    plan = tables.cells_frame(cells)
    parts = [part for claim in claims for part in expand(claim, plan) if part.not_comparable is None]
    table = _table(parts, cells, records, best)
    found = []
    for part in parts:
        spread = _spread(part, plan, table, best, 1 - statistics.ALPHA / len(parts))
        if isinstance(spread, Spread) and (needed := spread.needed(part, _effects(part)[0][0])):
            found.append(needed)
    return max(found, default=None)


def _table(
    parts: Sequence[Claim], cells: Sequence[tables.Cell], records: Mapping[str, Mapping[str, Any]], best: tables.Best
) -> pd.DataFrame:
    """What these claims are judged by, which of ten thousand runs is a sixth of all numbers."""
    asked = {metric.partition("/")[0] for part in parts for metric in (part.metric, part.control_at[0])}
    return tables.runs_table(cells, records, best, suites={*asked, best.suite, tables.ITEMS})


@dataclass(frozen=True)
class Spread:
    """How far the pairs of one claim lie apart, and how sure its verdict is to be."""

    pairs: int  # planned
    per_base: float  # pairs for each value that enters
    sd: float
    blocks: int
    level: float
    runs: set[str]

    def needed(self, part: Claim, effect: float) -> int | None:
        """How many pairs decide a true `effect`; None if no number does."""
        found = statistics.pairs_needed(
            part.kind, effect - part.reference, self.sd, self.blocks, part.margin, self.level
        )
        return None if found is None else int(np.ceil(found * self.per_base))


def _spread(part: Claim, plan: pd.DataFrame, table: pd.DataFrame, best: tables.Best, level: float) -> Spread | str:
    """The spread of a claim's runs, or in words why there is none."""
    sides = [tables.matching(plan, selector) for selector in (part.treatment, *part.controls)]
    units = set.intersection(*(set(side[tables.UNIT].itertuples(index=False, name=None)) for side in sides))
    pairs, bases = len(units), len({base for _, base in units})
    measured = judging.measure(part, table, best)
    e = measured.estimate
    if e is None:
        done = bool((table["metric"] == "done").any() and (table.loc[table["metric"] == "done", "value"] > 0).any())
        return f"{pairs} pairs planned, spread unknown ({(measured.reason or '') if done else 'no run yet'})"
    if isinstance(e, statistics.Location):
        needed = e.pairs_needed(part.kind, part.margin, part.reference, level)
        if needed is None:
            return f"{pairs} pairs planned; no number of pairs would tell the levels found so far apart"
        return f"{pairs} pairs planned; about {needed} would tell the levels found so far apart"
    if isinstance(e, statistics.Gain):  # the common risk of its levels
        level, e = 1 - (1 - level) / len(e.gains.mean), e.gains
    sd, blocks = float(np.max(e.sd)), e.blocks
    across = part.scope == "across"
    per_base = pairs / max(bases, 1) if across else 1.0
    blocks = 1 if across or blocks == 1 or bases == pairs else bases
    return Spread(pairs, per_base, sd, blocks, level, set(pd.concat(sides)["run_id"]))


def _line(
    part: Claim,
    plan: pd.DataFrame,
    table: pd.DataFrame,
    records: Mapping[str, Mapping[str, Any]],
    best: tables.Best,
    level: float,
    jobs: int,
) -> str:
    spread = _spread(part, plan, table, best, level)
    if isinstance(spread, str):
        return spread
    values = round(spread.pairs / spread.per_base)
    shown = detectable(part.kind, spread.sd, values, spread.blocks, part.margin, spread.level)
    of_items = ", and more for what items like these add" * (part.items == "crossed")
    said = [f"{spread.pairs} pairs planned show {_effect(part, shown)}{of_items}"]
    costs = [records[i]["cost"] for i in sorted(spread.runs) if i in records]
    seconds = float(np.mean([sum(cost.get(key) or 0 for key in SECONDS) for cost in costs]))
    seconds *= len(spread.runs) / max(spread.pairs, 1) / jobs
    for effect, name in _effects(part):
        number = spread.needed(part, effect)
        if number is None:
            said.append(f"{effect:.3g} ({name}) cannot be decided")
            continue
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
