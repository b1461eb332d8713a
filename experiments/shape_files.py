"""What a claim file may write under `statistic`: a figure of more than two arms, and the columns that it runs along.

The treatment's selector leaves these columns of runs.csv open; every other column that it leaves open still makes one
claim for each of its levels.
"""

from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from experiments import table as tables

FEWEST_LEVELS = 3
FEWEST_CELLS = 8  # of a surface
LOWER_IS_BETTER = ("nll", "loss", "perplexity", "error")

FormName = Literal["product", "additive", "effective", "interaction"]
Key = Annotated[str, Field(min_length=1)]
PARAMETERS: dict[str, tuple[str, ...]] = {  # of each form; those after them can be had from any
    "product": ("floor", "A", "alpha", "eta0", "beta", "ratio"),
    "additive": ("floor", "A", "alpha", "B", "beta"),
    "effective": ("floor", "A", "alpha", "gamma"),
    "interaction": ("floor", "A", "alpha", "B", "beta", "C"),
}
LOCAL = ("elasticity_size", "elasticity_noise", "elasticity_ratio", "exchange")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Slope(_Strict):
    """The least-squares slope of the value over `along`, pair by pair; with a control, less the control's slope."""

    name: Literal["slope"]
    along: Key
    log_x: bool = False
    log_y: bool = False


class Optimum(_Strict):
    """Which of the levels tried is best on average: its place on `along`, with all that may be it as the interval."""

    name: Literal["optimum"]
    along: Key
    mode: Literal["max", "min"] | None = None  # null: by the metric's name


class InteriorGain(_Strict):
    """The value at the best level between the ends less that at the lowest; the level is chosen on other pairs."""

    name: Literal["interior_gain"]
    along: Key
    mode: Literal["max", "min"] | None = None


class At(_Strict):
    """A point of the surface."""

    size: float = Field(gt=0, allow_inf_nan=False)
    noise: float = Field(gt=0, le=1)


class Parameter(_Strict):
    """A parameter of a surface fitted to the cell means over `size` and `noise`, or what follows from it `at` a point.

    `ratio` is beta / alpha of the product form; `elasticity_size`, `elasticity_noise`, their quotient
    `elasticity_ratio` and `exchange` (how many clean rows a noisy one is worth) are local and can be had from any form.
    """

    name: Literal["parameter"]
    form: FormName
    parameter: str
    size: Key
    noise: Key
    at: At | None = None

    @model_validator(mode="after")
    def _known(self) -> "Parameter":
        known = PARAMETERS[self.form] + LOCAL
        if self.parameter not in known:
            raise ValueError(
                f"parameter={self.parameter}: the {self.form} form has none; use one of {', '.join(known)}"
            )
        if (self.parameter in LOCAL) != (self.at is not None):
            what = "give at: {size: n, noise: eta}" if self.at is None else "leave out at"
            raise ValueError(f"parameter={self.parameter}: {what}")
        return self


class Form(_Strict):
    """By how much `better` predicts a cell from all the others better than `than`: leave-one-out log rmse, less.

    Each pair, or across base models each base's mean, has its own surface and its own figure. Noise in the cells adds
    to both forms' errors and draws their difference towards 0.
    """

    name: Literal["form"]
    better: FormName
    than: FormName
    size: Key
    noise: Key

    @model_validator(mode="after")
    def _two(self) -> "Form":
        if self.better == self.than:
            raise ValueError(f"than={self.than}: the same form; name another")
        return self


NeededForm = Literal["exponential", "power"]


class Needed(_Strict):
    """Which law the effort follows that reaches `target` at each noise rate: AIC of the first form less the second's.

    Effort: training tokens along the curve, or with `size` rows. exponential: its logarithm is linear in the rate;
    power: linear in log(1 - rate).
    """

    name: Literal["needed"]
    along: Key
    target: float = Field(allow_inf_nan=False)
    forms: tuple[NeededForm, NeededForm] = ("exponential", "power")
    size: Key | None = None
    mode: Literal["max", "min"] | None = None

    @model_validator(mode="after")
    def _two(self) -> "Needed":
        if self.forms[0] == self.forms[1]:
            raise ValueError(f"forms={list(self.forms)}: the same form twice; give [exponential, power] or the reverse")
        return self


Shape = Slope | Optimum | InteriorGain | Parameter | Form | Needed
Statistic = Annotated[Shape, Field(discriminator="name")]


def axes(statistic: Shape | None) -> list[str]:
    """The columns that the treatment leaves open for the statistic."""
    found = [getattr(statistic, key, None) for key in ("along", "size", "noise")]
    return [key for key in found if key is not None]


def rising(statistic: Any, metric: str) -> bool:
    """Whether larger values are better: as `mode` says, or by the metric's name."""
    mode = getattr(statistic, "mode", None)
    lower = any(word in metric.partition("/")[2].lower() for word in LOWER_IS_BETTER)
    return mode == "max" if mode else not lower


def unfit(statistic: Shape, rows: pd.DataFrame, reference: float, margin: float) -> str | None:
    """Why planned cells (of one side, see `table.cells_frame`) cannot bear the statistic, in one line; or None.

    Levels count that every pair has.
    """
    keys = axes(statistic)
    numbers = rows[keys].apply(pd.to_numeric, errors="coerce")
    for key in keys:
        if odd := [level for level, number in zip(rows[key], numbers[key], strict=True) if pd.isna(number)]:
            return f"statistic: {key}={odd[0]}: a level that is no number; name the arm whose levels are numbers"
    whole = len(rows[tables.UNIT].drop_duplicates())
    cells = numbers.join(rows[tables.UNIT]).drop_duplicates().groupby(keys).size()
    common = cells[cells == whole].reset_index()
    for key in keys:
        levels = sorted(common[key].unique())
        if len(levels) < FEWEST_LEVELS:
            return f"statistic: {key} has {len(levels)} levels that all pairs share; plan at least {FEWEST_LEVELS}"
        if (getattr(statistic, "log_x", False) or key == getattr(statistic, "size", None)) and levels[0] <= 0:
            return f"statistic: {key}={levels[0]:g} has no logarithm; plan levels above 0"
        if key == getattr(statistic, "noise", None) and not 0 <= levels[0] <= levels[-1] <= 1:
            return f"statistic: {key} is no share of noise: its levels go from {levels[0]:g} to {levels[-1]:g}"
        if isinstance(statistic, Needed) and key == statistic.along and not 0 <= levels[0] <= levels[-1] < 1:
            return f"statistic: {key} must be a rate from 0 to below 1: log(1 - rate) is taken"
        if isinstance(statistic, Optimum) and len({_side(x - reference, margin) for x in levels}) < 2:
            return f"margin={margin:g}: every level of {key} is on the same side of it; nothing can be decided"
    if isinstance(statistic, (Parameter, Form)) and len(common) < FEWEST_CELLS:
        return f"statistic: {len(common)} cells of {' x '.join(keys)}; a surface takes at least {FEWEST_CELLS}"
    return None


def _side(x: float, margin: float) -> int:
    return -1 if x <= -margin else 1 if x >= margin else 0
