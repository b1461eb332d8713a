"""What a report says, computed once from the table of runs and the judged claims; pages and tables only lay it out."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from numbers import Real
from typing import Any, Protocol

import numpy as np
import pandas as pd

from experiments import statistics
from experiments import table as tables

LEVEL = 0.95  # of intervals that belong to no claim
VERDICTS = {
    "reproduced": "reproduced",
    "contradicted": "contradicted",
    "no_effect": "no effect",
    "inconclusive": "undecided",
    "not_comparable": "not comparable",
}


LONGEST = 20_000  # characters of a text that are shown
LONGEST_LABEL = 96  # of the name of an arm
# what reorders the text around it, and what HTML and SVG do not allow, is shown by its code
UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def shown(text: str, longest: int = LONGEST) -> str:
    """A text as a report has it: no longer than `longest`, and nothing in it reorders the text around it."""
    found = UNSEEN.sub(lambda one: f"[U+{ord(one.group()):04X}]", text[:longest])
    return found if len(text) <= longest else f"{found} … (cut: {len(text):,} characters)"


class BestPoint(Protocol):
    """See `table.Best`."""

    @property
    def suite(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def mode(self) -> str: ...


class Evaluation(Protocol):
    """What a report needs to know of `EvaluationConfig`: the metric that leads, its direction, and the best point's."""

    @property
    def best(self) -> BestPoint: ...
    @property
    def primary(self) -> str: ...
    @property
    def mode(self) -> str: ...


def best_of(evaluation: Evaluation) -> tables.Best:
    """`evaluation.best` as tables and claims take it."""
    return tables.Best(evaluation.best.suite, evaluation.best.metric, evaluation.best.mode)


@dataclass(frozen=True)
class Curve:
    """One arm over training. Arrays over steps; `pairs` is (pairs, steps) with NaN where nothing was measured."""

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    pairs: np.ndarray


@dataclass(frozen=True)
class Difference:
    """An arm less another over the pairs that both have, in the primary metric; `of` names the other."""

    of: str
    mean: float
    low: float | None  # no interval for a single pair
    high: float | None
    pairs: int


@dataclass(frozen=True)
class Arm:
    """One arm at its levels: the mean over its pairs of whatever can be averaged."""

    label: str
    name: str
    levels: Mapping[str, Any]
    done: int
    planned: int
    score: float | None
    low: float | None
    high: float | None
    means: Mapping[str, float]  # "suite/metric" of data and cost
    curve: Curve
    scorer: Mapping[str, float]  # auroc:KIND against the ledger, pairs:NAME on preference pairs
    scores: pd.Series  # the primary metric at the best point by `table.UNIT`
    chosen_by: pd.Series  # the validation metric there
    to_full: Difference | None = None
    to_control: Difference | None = None  # the best of the matched controls


@dataclass(frozen=True)
class Failure:
    """A run without a record."""

    run_id: str
    label: str
    pair: int
    reason: str


@dataclass(frozen=True)
class Content:
    """All of a report."""

    name: str
    title: str
    primary: str
    mode: str
    best: str
    claims: Sequence[Mapping[str, Any]]  # the headline first
    arms: Sequence[Arm]
    baselines: Mapping[str, float]  # what the primary metric is before training, and for a majority guess if known
    failures: Sequence[Failure]
    facts: Sequence[tuple[str, str]]  # seeds, versions, environment
    command: str
    config_yaml: str
    scorers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)  # how many runs each made; minutes of two do not compare


def arms(table: pd.DataFrame, evaluation: Evaluation) -> list[Arm]:
    """One entry for each arm and its levels, in the order of the plan."""
    keys = ["arm", *tables.levels_of(table)]
    rows = table[_of_arms(table, evaluation)]
    numbered = rows.groupby(keys, dropna=False, sort=False).ngroup()  # in the plan's order: each has a row
    parts = [part for _, part in rows.groupby(numbered)]
    groups = [{key: part[key].iloc[0] for key in keys} for part in parts]
    labels = labels_of(groups)
    return [_arm(label, group, part, evaluation) for label, group, part in zip(labels, groups, parts, strict=True)]


def _of_arms(table: pd.DataFrame, evaluation: Evaluation) -> pd.Series:
    """Which rows `_arm` looks at: a tenth of all, so that a thousand runs take a moment."""
    (suite, _, metric), best = evaluation.primary.partition("/"), evaluation.best
    primary = (table["suite"] == suite) & (table["metric"] == metric)
    chosen = (table["suite"] == best.suite) & (table["metric"] == best.metric) & (table["point"] == "best_val")
    return primary | chosen | table["suite"].isin(["run", "data", "cost", "scorer"])


def _arm(label: str, group: Mapping[str, Any], rows: pd.DataFrame, evaluation: Evaluation) -> Arm:
    plan = tables.planned(rows)
    done = rows[(rows["suite"] == "run") & (rows["value"] > 0)]
    scores, chosen_by = (
        by_unit(tables.measured(rows, metric, "best_val"))
        for metric in (evaluation.primary, f"{evaluation.best.suite}/{evaluation.best.metric}")
    )
    score, low, high = interval_of_units(scores)
    facts = rows[rows["suite"].isin(["data", "cost"]) & rows["value"].notna()]
    scorer = rows[(rows["suite"] == "scorer") & rows["value"].notna()]
    return Arm(
        label=label,
        name=str(group["arm"]),
        levels={key: value for key, value in group.items() if key != "arm"},
        done=len(done),
        planned=len(plan),
        score=score,
        low=low,
        high=high,
        means={
            str(name): float(v)
            for name, v in facts.groupby(facts["suite"] + "/" + facts["metric"])["value"].mean().items()
        },
        curve=curve_of(rows, evaluation.primary),
        scorer={str(m): float(v) for m, v in scorer.groupby("metric")["value"].mean().items()},
        scores=scores,
        chosen_by=chosen_by,
    )


def curve_of(rows: pd.DataFrame, metric: str) -> Curve:
    """One `suite/metric` over training, of the rows of one arm."""
    suite, _, name = metric.partition("/")
    rows = rows[(rows["suite"] == suite) & (rows["metric"] == name) & rows["point"].str.startswith("step:")]
    rows = rows[rows["value"].notna()].assign(step=rows["point"].str.removeprefix("step:").astype(int))
    wide = rows.pivot_table(index=tables.UNIT, columns="step", values="value", aggfunc="mean")
    steps = wide.columns.to_numpy(int)
    bands = [interval_of_units(wide[step].dropna()) for step in steps]
    mean, low, high = (np.array([b[i] if b[i] is not None else np.nan for b in bands], dtype=float) for i in range(3))
    return Curve(steps, mean, low, high, wide.to_numpy(float).reshape(len(wide), len(steps)))


def by_unit(rows: pd.DataFrame) -> pd.Series:
    """`value` of each pair, the mean of its draws."""
    return rows.groupby(tables.UNIT)["value"].mean()


def interval(rows: pd.DataFrame, level: float = LEVEL) -> tuple[float | None, float | None, float | None]:
    """Mean of `value` over pairs with its t interval, base models as fixed blocks; None for what cannot be had."""
    return interval_of_units(by_unit(rows), level)


def interval_of_units(units: pd.Series, level: float = LEVEL) -> tuple[float | None, float | None, float | None]:
    """`interval` of one value a pair."""
    if units.empty:
        return None, None, None
    values, bases = units.to_numpy(float), units.index.get_level_values("seed_base").to_numpy()
    if len(values) < 2:
        return float(values[0]), None, None
    e = statistics.estimate(values, bases)
    low, high = e.interval(level)
    return float(e.mean), float(low), float(high)


def labels_of(groups: Sequence[Mapping[str, Any]], beside: Sequence[str] = ()) -> list[str]:
    """The arm, and of its levels as few as tell it from others of the same name.

    Keys go by their last names (`rate`) unless two of those that vary, or stand `beside` the groups, share it.
    """
    labels = []
    varied = {key for key in (groups[0] if groups else ()) if len({str(group[key]) for group in groups}) > 1}
    last = [key.rpartition(".")[2] for key in varied | {*beside}]
    for group in groups:
        named = _telling(group, [other for other in groups if other["arm"] == group["arm"]])
        short = {key: name if last.count(name := key.rpartition(".")[2]) == 1 else key for key in named}
        labels.append(" ".join([str(group["arm"]), *(f"{name}={_plain(group[key])}" for key, name in short.items())]))
    return _apart([shown(label, LONGEST_LABEL) for label in labels])


def _telling(group: Mapping[str, Any], same: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fewest keys in which no other of `same` is like the group: best one that tells all apart, and numbers.

    Settings of the training come last: one that goes with a size is told by the size.
    """
    levels = {key: [str(other[key]) for other in same] for key in group}
    varied = [key for key in group if len(set(levels[key])) > 1]
    numbers = {key for key in varied if all(isinstance(o[key], Real) and not missing(o[key]) for o in same)}
    ordered = sorted(
        varied, key=lambda key: (len(set(levels[key])) < len(same), key not in numbers, key.startswith("training."))
    )
    for size in range(len(varied) + 1):
        for chosen in combinations(ordered, size):
            alike = [all(levels[key][i] == str(group[key]) for key in chosen) for i in range(len(same))]
            if sum(alike) == 1:
                return [key for key in varied if key in chosen]
    return varied


def _apart(labels: Sequence[str]) -> list[str]:
    """The labels, those that came to be equal with a number behind them."""
    return [
        f"{label} ({labels[:i].count(label) + 1})" if label in labels[:i] else label for i, label in enumerate(labels)
    ]


def missing(value: Any) -> bool:
    """Whether a cell of the table is empty."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _plain(value: Any) -> str:
    return "null" if missing(value) else f"{value:g}" if isinstance(value, (int, float)) else str(value)


# --- words ----------------------------------------------------------------------------------------------------------


def headline_first(claims: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Claims against the best of several controls lead; otherwise the experiment's order."""
    return sorted(claims, key=lambda c: "best_of" not in c["definition"]["control"])


def name_of(selector: Mapping[str, Any]) -> str:
    """A selector in words: {arm: duplicated, duplication.rate: 0.25} is "duplicated rate=0.25"."""
    if "best_of" in selector:
        return "the best of " + ", ".join(map(name_of, selector["best_of"]))
    return " ".join(str(v) if k == "arm" else f"{k.rpartition('.')[2]}={_plain(v)}" for k, v in selector.items())


def contrast_of(claim: Mapping[str, Any]) -> str:
    """What is compared, in words: two arms, an arm with itself at another point, or a statistic along swept keys."""
    treatment, control, shared = _sides(claim["treatment"], claim["control"])
    if statistic := claim.get("statistic"):
        what = statistic.get("parameter") or statistic["name"].replace("_", " ")
        if statistic["name"] == "form":
            what = f"error of the {statistic['better']} form minus the {statistic['than']} form"
        elif statistic["name"] == "parameter":
            what = f"{what} of the {statistic['form']} form"
        along = " and ".join(statistic[key] for key in ("along", "size", "noise") if statistic.get(key))
        return f"{what} along {along}, {treatment}" + f" minus {control}" * bool(control) + shared
    if not claim["control"]:
        return f"{treatment}, its own value"
    definition = claim.get("definition", {})
    at = [definition[key] for key in ("control_metric", "control_point") if definition.get(key)]
    control += f" ({' at '.join(at)})" * bool(at)
    relation = {"log_ratio": "against", "gain_share": "as a share of"}.get(claim["scale"], "minus")
    gain = "gain of " * (claim["scale"] == "gain_share")
    return f"{gain}{treatment} {relation} {gain}{control}{shared}"


def _sides(treatment: Mapping[str, Any], control: Mapping[str, Any]) -> tuple[str, str, str]:
    """Both selectors by what they do not share, and what they do in words that follow."""
    if treatment == control:
        return name_of(treatment), "itself", ""
    shared = {key: value for key, value in treatment.items() if key in control and control[key] == value}
    own = [{key: value for key, value in side.items() if key not in shared} for side in (treatment, control)]
    if not all(own):
        return name_of(treatment), name_of(control), ""
    return name_of(own[0]), name_of(own[1]), f", {name_of(shared)}" * bool(shared)


def effect(claim: Mapping[str, Any], value: float | None) -> str:
    """A value on the claim's scale: a signed difference, a ratio, or a figure that is no difference."""
    if value is None:
        return "open"
    if claim.get("statistic") or claim["scale"] == "gain_share" or claim.get("control") == {}:
        return f"{value:.4g}".replace("-", "−")
    return f"×{math.exp(value):.3f}" if claim["scale"] == "log_ratio" else f"{value:+.3f}".replace("-", "−")


def interval_of(claim: Mapping[str, Any]) -> str:
    """The interval in words, or a dash."""
    if claim["ci_low"] is None and claim["ci_high"] is None:
        return "–"
    return f"{effect(claim, claim['ci_low'])} to {effect(claim, claim['ci_high'])}"


def margin_of(claim: Mapping[str, Any]) -> str:
    """The margin on the claim's scale; that of a ratio is also its inverse; about what, if not about nothing."""
    about = f" about {effect(claim, claim['reference'])}" if claim.get("reference") else ""
    return (f"×{math.exp(claim['margin']):.4g}" if claim["scale"] == "log_ratio" else f"{claim['margin']:g}") + about


def evidence(claim: Mapping[str, Any]) -> str:
    """What was measured, in one line without the verdict."""
    if claim["verdict"] == "not_comparable":
        return claim["note"]
    parts = []
    if claim["estimate"] is not None:
        parts.append(f"{contrast_of(claim)}: {effect(claim, claim['estimate'])} in {claim['metric']}")
        if claim["level"] is not None:
            parts.append(f"{100 * claim['level']:.4g} % interval {interval_of(claim)}")
        parts.append(f"{claim['pairs']} pair{'s' * (claim['pairs'] != 1)}")
    text = ", ".join(parts)
    if claim["seeds_needed"]:
        text += f"; about {claim['seeds_needed']} pairs would decide it"
    return "; ".join(part for part in (text, claim["note"]) if part)


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table, a dash for none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def count(value: float | None) -> str:
    """A large number for a table."""
    return "–" if value is None or math.isnan(value) else f"{value:,.0f}"


ARM_COLUMNS = ("arm", "pairs", "rows", "tokens", "noise kept", "score", "95 % interval")  # of every table of arms
TIME_COLUMNS = ("score s", "select s", "train s")


def arm_cells(arm: Arm) -> list[str]:
    """What an arm is and reaches, as text under `ARM_COLUMNS`."""
    return [
        arm.label,
        f"{arm.done}" if arm.done == arm.planned else f"{arm.done} of {arm.planned}",
        count(arm.means.get("data/rows")),
        count(arm.means.get("data/tokens")),
        number(arm.means.get("data/subset_noise_rate"), 2),
        number(arm.score),
        "–" if arm.low is None else f"{number(arm.low)} to {number(arm.high)}",
    ]


def time_cells(arm: Arm) -> list[str]:
    """Seconds of scoring, selection and training, as text under `TIME_COLUMNS`."""
    return [number(arm.means.get(f"cost/{name}_s"), 1) for name in ("score", "select", "train")]


CLAIM_COLUMNS = ("claim", "verdict", "estimate", "interval", "level", "margin", "p", "pairs", "quoted size")


def claim_rows(claims: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The claim table as text, under `CLAIM_COLUMNS`."""
    return [
        [
            claim["id"],
            VERDICTS[claim["verdict"]],
            "–" if claim["estimate"] is None else effect(claim, claim["estimate"]),
            interval_of(claim),
            "–" if claim["level"] is None else f"{100 * claim['level']:.4g} %",
            margin_of(claim),
            "–" if claim["p"] is None else f"{claim['p']:.2g}",
            str(claim["pairs"]),
            claim["size"] or "–",
        ]
        for claim in claims
    ]
