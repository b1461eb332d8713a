"""Claims of the literature as files: conf/claim/NAME.yaml, one claim each, checked before anything is run.

A claim says who said what and where, and which contrast of arms, or which statistic of more arms than two, decides it
by which margin, fixed before the first run: a change of what decides it is a new id.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from curate.config import explain
from experiments import UserError
from experiments import table as tables
from experiments.shape_files import Slope, Statistic, axes, unfit

FOLDER = Path(__file__).resolve().parent.parent / "conf" / "claim"
FEWEST_BASES = 6  # fewer base models than this say nothing about others
ITEM_METRICS = ("nll", "nll_answer", "gap")  # of likelihood suites, and of the mean over them
ITEM_POINTS = ("best_val", "end")
MINUTES = ("cost/minutes_to_full", "cost/minutes_to_full_scored")

Selector = dict[str, Any]


# --- claim files ----------------------------------------------------------------------------------------------------


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Quoted(_Strict):
    """What the source says, in its own words and figures.

    `at` is the scale at which it was claimed (models, data, judge), `value` the figure as a plain number, `effect` the
    same on the claim's own metric and scale where it can be put so.
    """

    figure: str = Field(min_length=1)
    at: str = Field(min_length=1)
    value: float | None = Field(None, allow_inf_nan=False)
    effect: float | None = Field(None, allow_inf_nan=False)


class NotComparable(_Strict):
    """Why a claim cannot be judged at this scale, and the command that would decide it at its own."""

    reason: str = Field(min_length=1)
    command: str = Field(min_length=1)


class Claim(_Strict):
    """One reading of one sentence of the literature, as a contrast of two arms and a margin.

    `reference` is what the estimate is compared with: the verdict is read off the interval less the reference. The
    control may be read off another metric or point than the treatment, so that an arm can be set against itself before
    training (`control_point: step:0`). Without a control the values of the treatment themselves are the estimate, and
    `reference` must be given. `scale: gain_share` is the treatment's gain since step 0 as a share of the
    control's. With `items: crossed` the items asked are a sample too, as the pairs are, and a verdict holds for items
    like these (see `statistics.crossed`). With `statistic` (see `shape_files`) the treatment leaves columns open and
    most take no control.
    """

    id: str = Field(pattern=r"^[a-z0-9_]+(@.+)?$")
    title: str = Field(min_length=1)
    source: str = Field(min_length=1)
    quoted: Quoted
    reading: str = Field(min_length=1)
    kind: Literal["greater", "less", "equivalent", "noninferior"]
    metric: str = Field(pattern=r"^[\w.-]+/[\w.:-]+$")
    point: str = Field("best_val", pattern=r"^(best_val|end|to_full|step:\d+)$")
    scale: Literal["difference", "log_ratio", "gain_share"] = "difference"
    treatment: Selector
    control: Selector = {}  # or {best_of: [selectors]}, or nothing: the treatment's own values
    control_metric: str | None = Field(None, pattern=r"^[\w.-]+/[\w.:-]+$")  # null: as the treatment's
    control_point: str | None = Field(None, pattern=r"^(best_val|end|to_full|step:\d+)$")
    statistic: Statistic | None = None
    reference: float = Field(0.0, allow_inf_nan=False)
    margin: float = Field(gt=0, allow_inf_nan=False)
    scope: Literal["these", "across", "auto"] = "auto"  # auto: across, where enough base models are planned
    items: Literal["fixed", "crossed"] = "fixed"
    settled: bool = False  # both arms must have passed the evaluation's probe: no verdict from a run on its plateau
    not_comparable: NotComparable | None = None

    @field_validator("treatment")
    @classmethod
    def _one(cls, value: Selector) -> Selector:
        return _check_selector(value)

    @field_validator("control")
    @classmethod
    def _one_or_best(cls, value: Selector) -> Selector:
        if not value:
            return value
        if "best_of" not in value:
            return _check_selector(value)
        options = value["best_of"]
        if len(value) > 1 or not isinstance(options, list) or len(options) < 2:
            raise ValueError("best_of takes a list of two or more selectors and nothing beside it")
        for option in options:
            if not isinstance(option, dict):
                raise ValueError(f"best_of: {option!r} is no selector; give {{arm: NAME}}")
            _check_selector(option)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Claim":
        effect = None if self.quoted.effect is None else self.quoted.effect - self.reference
        if effect is not None and self.margin > abs(effect) / 2:
            less = f" less reference={self.reference:g}" * (self.reference != 0)
            most = f"{abs(effect) / 2:g}"
            raise ValueError(f"margin={self.margin}: more than half of the quoted effect{less}; give at most {most}")
        if effect is not None and {"greater": effect <= 0, "less": effect >= 0}.get(self.kind, False):
            raise ValueError(
                f"quoted.effect={self.quoted.effect}: not what kind={self.kind} says; correct the sign or the kind"
            )
        for prefix, point, metric in (("", self.point, self.metric), ("control_", *self.control_at[::-1])):
            if (point == "to_full") != (metric in MINUTES):
                minutes = " and ".join(MINUTES)
                raise ValueError(f"{prefix}point={point}: {minutes}, and no others, are measured at to_full")
        if self.statistic:
            self._statistic_fits()
        elif not self.control:
            self._value_fits()
        self._items_fit()
        if self.control_at == (self.metric, self.point) and self.treatment in self.controls:
            raise ValueError(f"control={self.treatment}: the same as the treatment; name another arm")
        if self.scale == "gain_share" and "step:0" in (self.point, self.control_at[1]):
            raise ValueError("scale=gain_share: nothing is gained at step:0; read it at another point")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What came later and is not used is left out, so that published claims stay what they were."""
        tree = serialize(self)
        if self.items == "fixed":
            del tree["items"]
        return tree

    def _items_fit(self) -> None:
        """Crossed are the mean differences of likelihood suites, at a point whose items a record keeps."""
        if self.items == "fixed":
            return
        if self.statistic or not self.control or self.scale != "difference" or self.control_metric or self.settled:
            raise ValueError("items=crossed: is of plain differences of two arms; leave out what makes them others")
        if self.metric.partition("/")[2] not in ITEM_METRICS:
            raise ValueError(f"items=crossed: metric={self.metric} is none of {', '.join(ITEM_METRICS)}; give one")
        if self.point not in ITEM_POINTS or self.control_point:
            raise ValueError(f"items=crossed: point={self.point} is none of {', '.join(ITEM_POINTS)}; give one")

    def _value_fits(self) -> None:
        """Without a control the treatment's own values are compared with the reference, which must then be named."""
        if "reference" not in self.model_fields_set:
            raise ValueError(
                "control: a selector names at least one column of runs.csv; give {arm: NAME}, or for none the"
                " reference that the treatment's own values are compared with"
            )
        if self.scale != "difference" or self.control_metric or self.control_point or self.settled:
            raise ValueError(
                "control: none to put the treatment in relation to; leave out scale, control_metric, control_point,"
                " settled, or give one"
            )
        if self.metric in MINUTES:
            raise ValueError(f"metric={self.metric}: minutes are compared with those of a control; give one")

    def _statistic_fits(self) -> None:
        name = self.statistic.name if self.statistic else ""
        if self.control and not isinstance(self.statistic, Slope):
            raise ValueError(f"control={self.control}: statistic {name} takes none; leave it out")
        if "best_of" in self.control:
            raise ValueError(f"control={self.control}: statistic {name} takes one control, not the best of several")
        if self.scale != "difference" or self.control_metric or self.control_point:
            raise ValueError(
                f"statistic: {name} has a scale of its own; leave out scale, control_metric, control_point"
            )
        if self.point == "to_full":
            raise ValueError(f"point=to_full: minutes may be censored, of which {name} knows nothing; use needed")
        for key in axes(self.statistic):
            if key in self.treatment or key in self.control:
                raise ValueError(f"statistic: it runs along {key}, which a selector holds fast; leave it out there")
        if len(set(axes(self.statistic))) < len(axes(self.statistic)):
            raise ValueError("statistic: two of its axes are the same column; name two")

    @property
    def controls(self) -> list[Selector]:
        """The one control, or those of which the best is taken."""
        return self.control.get("best_of", [self.control] if self.control else [])

    @property
    def control_at(self) -> tuple[str, str]:
        """Metric and point at which the control is read."""
        return self.control_metric or self.metric, self.control_point or self.point


def _check_selector(value: Selector) -> Selector:
    if not value:
        raise ValueError("a selector names at least one column of runs.csv; give {arm: NAME}")
    for key, level in value.items():
        scalar = level is None or isinstance(level, (str, int, float, bool))
        if key == "run_id" or key in tables.MEASURE or not scalar:
            raise ValueError(f"{key}={level!r}: a selector holds arms and levels; give {{arm: NAME, KEY: value}}")
    return value


def load(names: Sequence[str], folder: Path = FOLDER) -> list[Claim]:
    """The claims of these names, in order; raises `UserError` for the first that is missing or wrong."""
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise UserError(f"experiment.claims: {twice[0]} is named twice; name it once")
    return [_load(name, folder) for name in names]


def _load(name: str, folder: Path) -> Claim:
    path = folder / f"{name}.yaml"
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise UserError(f"experiment.claims={name}: no such claim; use one of {known} or write {path}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())}); correct it") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds no keys; give id, title, source, quoted, reading, kind, metric, ...")
    try:
        claim = Claim(**tree)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from None
    if claim.id != name:
        raise UserError(f"{path}: id={claim.id}: not the file's name; write id: {name}")
    return claim


def quoted_series(claims: Iterable[Claim]) -> list[dict[str, Any]]:
    """The literature's figures that can be drawn beside a curve: {id, metric, value, source}."""
    return [
        {"id": claim.id, "metric": claim.metric, "value": claim.quoted.value, "source": claim.source}
        for claim in claims
        if claim.quoted.value is not None and claim.point != "to_full"
    ]


# --- claims and cells -----------------------------------------------------------------------------------------------


def check(claims: Iterable[Claim], cells: Iterable[tables.Cell]) -> None:
    """Raise `UserError` for the first claim that the planned cells cannot decide, whatever comes out."""
    frame = tables.cells_frame(cells)
    for claim in claims:
        if why := undecidable(claim, frame):
            raise UserError(f"conf/claim/{claim.id}.yaml: {why}")


def undecidable(claim: Claim, frame: pd.DataFrame) -> str | None:
    """Why no run of `frame` (see `table.cells_frame`) can ever decide `claim`, in one line; None if they can."""
    if claim.not_comparable:
        return None
    for name, selector in [("treatment", claim.treatment), *(("control", one) for one in claim.controls)]:
        for key in selector:
            if key not in frame.columns:
                known = ", ".join(c for c in frame.columns if c not in tables.IDENTITY or c == "arm")
                return f"{name}.{key}={selector[key]}: no column of this experiment's runs; use one of {known}"
        if tables.matching(frame, selector).empty:
            arms = ", ".join(sorted(frame["arm"].unique()))
            return f"{name}={selector}: no planned run has these values; use one of the arms {arms} at planned levels"
    if absent := [key for key in axes(claim.statistic) if key not in frame.columns]:
        known = ", ".join(c for c in frame.columns if c not in tables.IDENTITY)
        return f"statistic: {absent[0]} is no swept key of this experiment; use one of {known or '(none is swept)'}"
    try:
        parts = expand(claim, frame)
    except UserError as error:
        return str(error)
    if not parts:
        return f"control={claim.control}: no planned run at the levels of the treatment; plan some"
    for part in parts:
        sides = [tables.matching(frame, selector) for selector in (part.treatment, *part.controls)]
        units = [set(side[tables.UNIT].itertuples(index=False, name=None)) for side in sides]
        if not set.intersection(*units):
            return f"control={part.control}: has no pair in common with the treatment; give both the same seeds"
        for side in sides:
            if part.statistic and (why := unfit(part.statistic, side, part.reference, part.margin)):
                return why
    return None


def expand(claim: Claim, frame: pd.DataFrame) -> list[Claim]:
    """`claim` once for each swept level that its selectors leave open, with the level in selectors and id.

    A level that both sides have varies on both together; one that only the treatment has varies there alone; what a
    statistic runs along stays open.

    Raises:
        UserError: a control has several levels that the treatment has not: which one is meant cannot be told.
    """
    if claim.not_comparable:  # no level of this experiment can decide it: it is said once
        return [_scoped(claim, frame)]
    keys = [key for key in frame.columns if key not in tables.IDENTITY and key not in axes(claim.statistic)]

    def open_keys(selector: Selector) -> list[str]:
        rows = tables.matching(frame, selector)
        return [key for key in keys if key not in selector and rows[key].nunique(dropna=False) > 1]

    free = open_keys(claim.treatment)
    shared = {key for control in claim.controls for key in open_keys(control)}
    if lone := sorted(shared - set(free)):
        raise UserError(
            f"control={claim.control}: matches several levels of {lone[0]}; name one of them in the selector"
        )
    if not free:
        return [_scoped(claim, frame)]
    found = []
    combinations = tables.matching(frame, claim.treatment)[free].drop_duplicates()
    for row in combinations.to_dict("records"):
        level = {key: _plain(row[key]) for key in free}
        controls = [c | {k: v for k, v in level.items() if k in open_keys(c)} for c in claim.controls]
        if any(tables.matching(frame, control).empty for control in controls):
            continue
        suffix = ",".join(f"{key}={value}" for key, value in level.items())
        changed = {
            "id": f"{claim.id}@{suffix}",
            "treatment": claim.treatment | level,
            "control": {"best_of": controls} if "best_of" in claim.control else next(iter(controls), {}),
        }
        found.append(_scoped(claim.model_copy(update=changed), frame))
    return found


def _scoped(claim: Claim, frame: pd.DataFrame) -> Claim:
    """The claim with its scope named: what is planned, and never what comes out, decides between the two."""
    if claim.scope != "auto":
        return claim
    bases = tables.matching(frame, claim.treatment)["seed_base"].nunique()
    return claim.model_copy(update={"scope": "across" if bases >= FEWEST_BASES else "these"})


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and np.isnan(value) else value
