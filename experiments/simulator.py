"""A page with sliders from a table of runs, anybody's: what the loss would be between the cells that were run.

    python -m experiments.simulator runs=runs/reports/simulator/runs.csv out=simulator.html
    python -m experiments.simulator runs=mine.csv loss=eval_loss size=n_rows noise=bad_share copies=null pair=seed

`conf/simulator.yaml` explains each key. Exit codes: 0 done, 2 a mistake in what was asked for, 130 interrupted.
"""

import lzma
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from curate.config import explain
from experiments import UserError, hydra_command, mistaken, shapes, slices, store
from experiments import table as tables

CONF = Path(__file__).resolve().parent.parent / "conf"
OWN = "own:"  # before the names of a user's columns, some of which runs.csv has for other things


class Asked(BaseModel):
    """The keys of conf/simulator.yaml, which says what they mean."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    runs: str
    out: str = Field(min_length=1)
    title: str | None
    metric: str = Field(pattern="^[^/]+/.+$")
    point: str
    loss: str | None
    size: str
    noise: str
    copies: str | None
    pair: str | None
    base: str | None
    slices: list[str] | None


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="simulator")
def _app(config: DictConfig) -> None:
    try:
        print(make(OmegaConf.to_container(config, resolve=True)))  # type: ignore[arg-type]
    except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
        mistaken(error)  # here, since Hydra would put a line of its own before it


def make(values: dict[str, Any]) -> str:
    """Write the page of a config and say what it holds; raises UserError for the first thing wrong."""
    if values.get("runs") is None:
        raise UserError("runs=null: name a table of runs, such as runs/reports/simulator/runs.csv")
    try:
        asked = Asked.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(error, "")) from None
    axes = slices.Axes(asked.size, asked.noise, asked.copies)
    found = fitted(read(Path(asked.runs)), asked, axes)
    from experiments.report import simulator  # seconds, which a mistake need not wait for

    store.write_atomic(Path(asked.out), simulator.page(found, asked.title or Path(asked.runs).name))
    first = found.slices[0]
    errors = ", ".join(f"{form} {error:.3g}" for form, error in first.left_out.items())
    surfaces = f"{len(found.slices)} surface{'s' * (len(found.slices) != 1)}"
    lines = [f"{asked.out}: {surfaces}; log error at cells left out: {errors}"]
    return "\n".join([*lines, *(f"not offered: {words}" for words in found.left_over)])


def read(path: Path) -> pd.DataFrame:
    """A table as it is; raises UserError for what is none."""
    if not path.is_file():
        raise UserError(f"runs={path}: no such file")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, keep_default_na=False, na_values=[""])  # unpacked as its name says
    except (ValueError, EOFError, OSError, lzma.LZMAError) as error:  # pandas' errors of parsing are ValueErrors
        raise UserError(f"runs={path}: not a table: {error}") from None


def fitted(frame: pd.DataFrame, asked: Asked, axes: slices.Axes) -> slices.Slices:
    """The surfaces of a table of either kind; raises UserError for what cannot be fitted, naming key and column."""
    if len(frame) == 0:
        raise UserError(f"runs={asked.runs}: there is no row in it")
    for key, column in (("size", asked.size), ("noise", asked.noise), ("copies", asked.copies), ("loss", asked.loss)):
        _has(frame, key, column)
    for column in asked.slices or []:
        _has(frame, "slices", column)
    for column in (asked.loss, *axes.names()):
        if column is not None and pd.to_numeric(frame[column], errors="coerce").notna().sum() == 0:
            raise UserError(f"runs={asked.runs}: {column} holds no number")
    try:
        if asked.loss is None:
            return slices.measured(_long(frame, asked, axes), asked.metric, asked.point, axes)
        inner = slices.Axes(OWN + axes.size, OWN + axes.noise, None if axes.copies is None else OWN + axes.copies)
        found = slices.measured(_wide(frame, asked, axes), "run/loss", "end", inner)
    except shapes.Unfit as error:
        raise UserError(
            f"runs={asked.runs}: {str(error).replace(OWN, '').replace('run/loss', str(asked.loss))}"
        ) from None
    return replace(
        found,
        axes=axes,
        metric=asked.loss,
        keys=tuple(key.removeprefix(OWN) for key in found.keys),
        slices=tuple(
            replace(one, choice={key.removeprefix(OWN): value for key, value in one.choice.items()})
            for one in found.slices
        ),
        left_over=tuple(words.replace(OWN, "") for words in found.left_over),
    )


def _has(frame: pd.DataFrame, key: str, column: str | None) -> None:
    if column is not None and column not in frame:
        known = ", ".join(map(str, frame.columns))
        hint = "; copies=null if nothing was duplicated" * (key == "copies")
        raise UserError(f"{key}={column}: no such column in the table{hint} (there are: {known})")


def _long(frame: pd.DataFrame, asked: Asked, axes: slices.Axes) -> pd.DataFrame:
    """runs.csv, of which only some columns may be left."""
    lacks = [name for name in tables.MEASURE[:4] if name not in frame]
    if lacks:
        raise UserError(
            f"runs={asked.runs}: no column {', '.join(lacks)}, so it is no runs.csv; where a row is a run, name the"
            f" column of its loss: loss=COLUMN"
        )
    suite, _, metric = asked.metric.partition("/")
    rows = frame[(frame["suite"] == suite) & (frame["metric"] == metric)]
    if not len(rows):
        known = (frame["suite"].astype(str) + "/" + frame["metric"].astype(str)).unique()
        raise UserError(f"metric={asked.metric}: not in the table (there are: {', '.join(sorted(known)[:20])})")
    if asked.point not in set(rows["point"]):
        known = ", ".join(sorted(map(str, rows["point"].unique()))[:20])
        raise UserError(f"point={asked.point}: not in the table (there are: {known})")
    keys = asked.slices
    if keys is None:
        keys = [name for name in frame.columns if name not in (*tables.IDENTITY, *tables.MEASURE, *axes.names())]
        keys = ["arm", *keys] if "arm" in frame else keys
    kept = frame[(frame["suite"] == "run") & (frame["metric"] == "done")]
    chosen = pd.concat([kept, rows[rows["point"] == asked.point]])
    made = _table(chosen, asked, axes, keys)
    for name in tables.MEASURE:
        made[name] = chosen[name].to_numpy() if name in chosen else None
    made["value"] = pd.to_numeric(made["value"], errors="coerce")
    return made if len(kept) else pd.concat([_done(made), made], ignore_index=True)


def _wide(frame: pd.DataFrame, asked: Asked, axes: slices.Axes) -> pd.DataFrame:
    """A row for each run: as runs.csv has it."""
    made = _table(frame, asked, axes, asked.slices or [])
    made["point"], made["suite"], made["metric"] = "end", "run", "loss"
    made["value"] = pd.to_numeric(frame[asked.loss], errors="coerce").to_numpy()
    made["n"] = made["tokens"] = None
    return pd.concat([_done(made), made], ignore_index=True)


def _table(frame: pd.DataFrame, asked: Asked, axes: slices.Axes, keys: Sequence[str]) -> pd.DataFrame:
    """Identity and levels of the rows, in the columns that tables have."""
    made = pd.DataFrame(index=range(len(frame)))
    made["run_id"] = frame["run_id"].astype(str).to_numpy() if "run_id" in frame else [str(i) for i in made.index]
    made["arm"] = frame["arm"].to_numpy() if "arm" in keys else "runs"
    levels = [key for key in keys if key != "arm"]
    if asked.pair is not None and asked.pair in frame:
        made["seed_pair"] = _codes(frame[asked.pair])
    elif asked.loss is not None and asked.pair in (None, "seed_pair"):
        cells = [*axes.names(), *keys]
        made["seed_pair"] = frame.groupby(cells, dropna=False).cumcount().to_numpy()
    else:
        _has(frame, "pair", asked.pair or "seed_pair")
    if asked.base is not None and asked.base in frame:
        made["seed_base"] = _codes(frame[asked.base])
    elif asked.base in (None, "seed_base"):
        made["seed_base"] = 0
    else:
        _has(frame, "base", asked.base)
    for name in [name for name in tables.IDENTITY if name not in made]:
        made[name] = None
    for name in [*axes.names(), *levels]:
        made[(OWN if asked.loss is not None else "") + name] = frame[name].to_numpy()
    return made


def _codes(column: pd.Series) -> Any:
    """Whole numbers for whatever tells pairs or base models apart."""
    numbers = pd.to_numeric(column, errors="coerce")
    whole = numbers.notna().all() and (numbers % 1 == 0).all()
    return numbers.astype(int).to_numpy() if whole else pd.factorize(column, use_na_sentinel=False)[0]


def _done(made: pd.DataFrame) -> pd.DataFrame:
    """What says that these runs were planned, and no others."""
    runs = made.drop_duplicates("run_id")
    return runs.assign(point="end", suite="run", metric="done", value=1.0)


def main() -> None:
    """Run the Hydra app; a user's mistake is one line on stderr."""
    hydra_command(_app)


if __name__ == "__main__":
    main()
