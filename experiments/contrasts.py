"""One claim on the runs of an experiment: the differences of its pairs, or its statistic, and their estimate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from experiments import shapes, statistics
from experiments import table as tables
from experiments.claim_files import FEWEST_BASES, MINUTES, Claim, Selector
from experiments.shape_files import Needed, axes

BOUNDED = ("em", "em_format_free", "accuracy", "accuracy_norm", "consistent", "passed")  # metrics between 0 and 1
EDGE = 0.02  # where both arms are this near to 0, or to 1, a bounded metric cannot tell them apart
GUESSING = 1.645  # standard errors above chance that guessing exceeds once in twenty times
NO_GAIN = 0.1  # a control that gained less than this share of what it usually gains is no measure of another's gain
PROBE = "cost/tokens_to_probe"
# metrics that end with the curve where something never happened, and what says so: a metric and its point
CENSORED = {**dict.fromkeys(MINUTES, ("cost/censored", "to_full")), PROBE: ("cost/probe_censored", "end")}


@dataclass
class Measured:
    """What the runs say about one claim before several claims are weighed against each other."""

    control: Selector
    estimate: statistics.Estimate | statistics.Crossed | statistics.Location | statistics.Gain | None = None
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
        if not isinstance(self.estimate, statistics.Estimate):
            return self.estimate.p_value(claim.kind, claim.margin, claim.reference)
        e = replace(self.estimate, mean=self.estimate.mean - claim.reference)
        return float(statistics.p_value(claim.kind, e, claim.margin, self.open_above, self.open_below))

    def pairs_needed(self, claim: Claim, level: float) -> int | None:
        """See `statistics.pairs_needed`; across base models as many pairs on each as there are now."""
        e = self.estimate
        if e is None:
            return None
        if not isinstance(e, statistics.Estimate):
            found = e.pairs_needed(claim.kind, claim.margin, claim.reference, level)
        else:
            mean = float(e.mean) - claim.reference
            found = statistics.pairs_needed(claim.kind, mean, float(e.sd), e.blocks, claim.margin, level)
        if found is None or claim.scope != "across":
            return found
        return math.ceil(found * self.pairs / self.bases)


def measure(claim: Claim, table: pd.DataFrame, best: tables.Best) -> Measured:
    """The paired differences of one claim and their estimate, or the reason why there is none."""
    plan = tables.planned(table)
    if why := claim.not_comparable:
        return Measured(claim.control, reason=why.reason.removesuffix("."), notes=[f"to decide it: {why.command}"])
    for key in set(axes(claim.statistic)) - set(plan.columns):
        return Measured(claim.control, reason=f"no run was planned along {key}")
    for selector in (claim.treatment, *claim.controls):
        if set(selector) - set(plan.columns) or tables.matching(plan, selector).empty:
            return Measured(claim.control, reason=f"no run was planned for {_name(selector)}")
    if claim.statistic:
        return _shape(claim, table)
    control, notes = _best_control(claim, table, best)
    if control is None:
        return Measured(claim.control, reason=notes[0])
    treated = _by_unit(table, claim.treatment, claim.metric, claim.point)
    controlled = _by_unit(table, control, *claim.control_at) if control else treated.assign(value=0.0)
    both = treated.add_suffix("_t").join(controlled.add_suffix("_c"), how="inner").sort_index()
    wanted = _units(tables.matching(plan, claim.treatment)) & _units(tables.matching(plan, control))
    found = Measured(control, pairs=len(both), bases=len({base for _, base in both.index}), notes=notes)
    if lost := sorted({pair for pair, _ in wanted - set(both.index)}):
        which = ", ".join(map(str, lost))
        found.notes.append(f"without pair {which} (a run is missing, failed or has no such figure)")
    if both["runs_t"].nunique() + both["runs_c"].nunique() > 2:
        found.notes.append("some pairs average fewer draws than others")
    if both.empty:
        figures = dict.fromkeys([(claim.metric, claim.point), claim.control_at])
        arms = "both arms" if control else _name(claim.treatment)
        found.reason = f"no pair has {' and '.join(f'{m} at {p}' for m, p in figures)} for {arms}"
        return found
    if claim.scale == "gain_share":
        starts = (
            _by_unit(table, selector, metric, "step:0")["value"].reindex(both.index).to_numpy(float)
            for selector, metric in ((claim.treatment, claim.metric), (control, claim.control_at[0]))
        )
        both["start_t"], both["start_c"] = starts
    _differences(claim, found, both, table)
    if claim.items == "crossed" and found.estimate is not None:
        _cross(claim, found, table, both.index)
    if claim.settled and (plateau := _unsettled(claim, table, both.index, control)):
        found.estimate, found.reason = None, plateau
    if claim.metric in CENSORED:
        _censor(claim, found, table, both.index)
    _short_curves(claim, found, table)
    return found


def _shape(claim: Claim, table: pd.DataFrame) -> Measured:
    """`measure` for a claim with a statistic."""
    found = Measured(claim.control)
    across = claim.scope == "across"
    assert claim.statistic is not None
    try:
        selectors = claim.treatment, claim.control
        shaped, grid = shapes.shape(claim.statistic, table, *selectors, claim.metric, claim.point, across)
    except shapes.Unfit as why:
        found.reason = str(why)
        return found
    found.pairs, found.bases = len(grid.units), len({base for _, base in grid.units})
    found.mean, found.notes = shaped.mean, shaped.notes
    means = grid.values.mean(0)
    if across and found.bases < FEWEST_BASES:
        found.reason = f"{found.bases} base models say nothing about others; run at least {FEWEST_BASES}"
    elif not isinstance(claim.statistic, Needed) and (edge := _edge(claim.metric, means.min(), means.max())):
        found.reason = f"all levels are within {EDGE} of {edge}: there is no room to differ in"
    elif shaped.interval is not None:
        found.estimate = shaped.interval
    elif shaped.each is not None:
        _estimate(found, shaped.each, shaped.bases, False)  # across, the values are those of bases already
    _short_curves(claim, found, table)
    return found


def _differences(claim: Claim, found: Measured, both: pd.DataFrame, table: pd.DataFrame) -> None:
    """Set the mean, and the estimate unless something speaks against it."""
    t, c = both["value_t"].to_numpy(float), both["value_c"].to_numpy(float)
    if claim.scale == "log_ratio" and min(t.min(), c.min()) <= 0:
        found.reason = "a ratio needs values above 0 in every pair"
        return
    if claim.scale == "gain_share":
        t, c = t - both["start_t"].to_numpy(float), c - both["start_c"].to_numpy(float)
        if why := _no_gain(claim.control_at[0], t, c):
            found.reason = why
            return
        d = t / c
    else:
        d = np.log(t) - np.log(c) if claim.scale == "log_ratio" else t - c
    bases = both.index.get_level_values("seed_base").to_numpy()
    across = claim.scope == "across"
    found.mean = float(np.mean([d[bases == base].mean() for base in np.unique(bases)]) if across else d.mean())
    if across and found.bases < FEWEST_BASES:
        found.reason = f"{found.bases} base models say nothing about others; run at least {FEWEST_BASES}"
    elif len(d) < 2:
        found.reason = "one pair has no spread; run at least two"
    elif found.control and claim.control_at == (claim.metric, claim.point) and (both["ids_t"] == both["ids_c"]).all():
        found.reason = "treatment and control are the same runs"
    elif found.control and (edge := _edge(claim.metric, both["value_t"].mean(), both["value_c"].mean())):
        found.reason = f"both arms are within {EDGE} of {edge}: there is no room to differ in"
    elif guessed := _guessed(claim, table, max(both["value_t"].mean(), both["value_c"].mean())):
        found.reason = guessed
    else:
        _estimate(found, d, bases, across)


def _cross(claim: Claim, found: Measured, table: pd.DataFrame, units: pd.Index) -> None:
    """Exchange the estimate for one in which the items are a sample as the pairs are."""
    found.estimate = None
    if found.bases > 1:
        found.reason = "pairs on several base models are no one sample to cross items with; keep to one base model"
        return
    t, c = (items_of(table, selector, claim.metric, claim.point) for selector in (claim.treatment, found.control))
    d = (t["value"] - c["value"]).unstack(["of", "item"]).reindex(units)
    if d.empty or d.isna().to_numpy().any():
        found.reason = f"not every run has its items of {claim.metric} at {claim.point}"
        return
    tokens = t["n"].groupby(["of", "item"]).mean().reindex(d.columns)
    size = tokens if claim.metric.endswith("/nll") else tokens * 0 + 1  # the mean over tokens weighs answers by them
    suites = d.columns.get_level_values("of")
    weights = size / size.groupby("of").transform("sum") / suites.nunique()
    try:
        e = statistics.crossed(d.to_numpy(float), weights.to_numpy(float), suites)
    except ValueError as error:
        found.reason = str(error)
        return
    found.mean, found.estimate = e.mean, e
    found.notes.append(f"{d.shape[1]} items crossed with the pairs")


def items_of(table: pd.DataFrame, selector: Selector, metric: str, point: str) -> pd.DataFrame:
    """`value` and `n` (answer tokens) of a likelihood metric's items, the mean over a pair's draws.

    Indexed by pair, base model, suite (`of`) and item. The mean over all tokens (nll) has the items of nll_answer.
    """
    suite, _, name = metric.partition("/")
    name = "nll_answer" if name == "nll" else name
    rows = tables.matching(table[(table["suite"] == tables.ITEMS) & (table["point"] == point)], selector)
    parts = rows["metric"].str.extract(r"^(?P<name>\w+):(?P<of>.+):(?P<item>\d+)$")
    rows = rows.join(parts)[lambda r: (r["name"] == name) & ((r["of"] == suite) | (suite == "ood"))]
    return rows.groupby([*tables.UNIT, "of", "item"])[["value", "n"]].mean()


def _estimate(found: Measured, d: np.ndarray, bases: Sequence[Any] | np.ndarray, across: bool) -> None:
    """Set the estimate where the pairs have a spread."""
    if len(d) < 2:
        found.reason = "one pair has no spread; run at least two"
        return
    e = statistics.estimate(d, bases, across)
    if e.se <= 1e-9 * np.abs(d).max():
        found.reason = "the pairs do not differ at all, so their spread is unknown; run more"
    else:
        found.estimate = e


def _no_gain(metric: str, t: np.ndarray, c: np.ndarray) -> str | None:
    """Why the control's gains are no measure of the treatment's."""
    if not np.isfinite(np.stack([t, c])).all():
        return "some pair has no figure at step:0, from which gains are counted"
    least = max(NO_GAIN * float(np.median(np.abs(c))), EDGE if metric.partition("/")[2] in BOUNDED else 0.0)
    if (np.abs(c) <= least).any() or len(set(np.sign(c))) > 1:
        return "a share of the control's gain is undefined: in some pair the control gained next to nothing"
    return None


def _edge(metric: str, t: float, c: float) -> str | None:
    if metric.partition("/")[2] not in BOUNDED:
        return None
    return "0" if max(t, c) <= EDGE else "1" if min(t, c) >= 1 - EDGE else None


def _guessed(claim: Claim, table: pd.DataFrame, better: float) -> str | None:
    """Why a multiple choice decides nothing: the better arm's accuracy is no more than guessing may give (5 %)."""
    suite, _, name = claim.metric.partition("/")
    if not name.startswith("accuracy"):
        return None
    chance = tables.measured(table, f"{suite}/chance", claim.point)
    if chance.empty:
        return None
    guess, n = float(chance["value"].mean()), float(chance["n"].mean())
    if better > guess + GUESSING * math.sqrt(guess * (1 - guess) / n):
        return None
    return f"both arms are at chance ({guess:.2g} on {n:.0f} questions): guessing does as well, and decides nothing"


def _censor(claim: Claim, found: Measured, table: pd.DataFrame, units: pd.Index) -> None:
    """Open the end of the interval about which runs that never got there say nothing."""
    unit = "minutes" if claim.point == "to_full" else "tokens"
    for side, selector in (("treatment", claim.treatment), ("control", found.control)):
        if not selector:
            continue
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
    sides = [("treatment", claim.treatment, claim.metric, claim.point), ("control", found.control, *claim.control_at)]
    for side, selector, metric, at in sides:
        if at != "best_val" or not selector or len(tables.curve_points(table, metric)) < 2:
            continue
        best, end = (
            tables.matching(tables.measured(table, metric, point), selector)
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
