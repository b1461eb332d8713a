"""The user's own scorer: a function from rows to numbers.

    # my_module.py
    def score(rows, weight=1.0):
        return [weight * row["output"].count("because") for row in rows]

    python -m curate scorer._target_=my_module.score +scorer.options.weight=2.0 ...

Rows are dicts with id, instruction, input, output and what else is known of them. For each the function returns a
number, higher is better, or None. It is called with some hundred rows at a time; what it returned is kept until the
source of its module or its options change.
"""

import importlib
import inspect
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from curate.config import ScorerConfig
from curate.errors import UserError
from curate.example import column, digest
from curate.progress import Progress
from curate.scoring.cache import Batch, Portions, Scores, cached_scores


def own(pool: Dataset, scorer: ScorerConfig, *, cache: Path | None = None, progress: Progress | None = None) -> Scores:
    """(rows,) of what the function `scorer.target` returns. Raises UserError for what it raises or returns amiss."""
    function, source = _function(str(scorer.target))
    options = scorer.options or {}

    def compute(portions: Portions) -> Iterator[Batch]:
        for rows in portions:
            started = time.perf_counter()
            values = _call(function, str(scorer.target), pool.select(rows).to_list(), options)
            reasons = {r: "the scorer gave none" for r, value in zip(rows, values, strict=True) if math.isnan(value)}
            yield Batch(rows, values, time.perf_counter() - started, reasons)

    identity = digest(str(scorer.target), source, json.dumps(options, sort_keys=True, default=str))
    return cached_scores(cache, f"own-{identity}", column(pool, "id"), compute, progress=progress)


def _function(target: str) -> tuple[Callable[..., Any], str]:
    module_name, _, name = target.rpartition(".")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module in the working folder
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module does when it is imported
        raise UserError(f"scorer._target_={target}: cannot import {module_name} ({error!r}); correct it") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"scorer._target_={target}: {module_name} has no function {name}; correct it")
    try:
        return function, inspect.getsource(module)
    except (OSError, TypeError):  # compiled
        return function, ""


def _call(
    function: Callable[..., Any], target: str, rows: list[dict[str, Any]], options: dict[str, Any]
) -> list[float]:
    try:
        found = list(function(rows, **options))
    except Exception as error:
        where = inspect.trace()[-1]
        place = f"{Path(where.filename).name}, line {where.lineno}"
        raise UserError(f"scorer._target_={target}: raised {error!r} ({place}); mend it") from error
    if len(found) != len(rows):
        raise UserError(f"scorer._target_={target}: gave {len(found)} scores for {len(rows)} rows; give one for each")
    try:
        return [math.nan if value is None else float(value) for value in found]
    except (TypeError, ValueError) as error:
        raise UserError(f"scorer._target_={target}: a score is no number ({error}); give numbers or None") from None
