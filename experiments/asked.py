"""What a run is asked: its suites, and that none of their prompts is among what it is trained on."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
from datasets import Dataset

from curate import UserError
from curate.config import DataConfig
from curate.example import column, take

from .config import Config, data_root
from .suites.build import Suite, build_suites
from .suites.config import EvaluationConfig
from .suites.text import text_suite


def suites_of(config: Config) -> list[Suite]:
    """The config's suites; those of the embedded world are built once a process."""
    of_text = any(suite.text for suite in config.evaluation.suites.values())  # these come with the data
    data = config.data.model_dump(mode="json") if of_text else None
    key = json.dumps([config.evaluation.model_dump(mode="json"), config.data.template, data])
    return _suites(key, config.seed.world, str(data_root(config) or ""))


@lru_cache(maxsize=4)
def _suites(key: str, world: int, root: str) -> list[Suite]:
    tree, template, data = json.loads(key)
    evaluation = EvaluationConfig(**tree)
    made = build_suites(evaluation, template, world=world, root=Path(root) if root else None)
    for name, suite in evaluation.suites.items():
        if suite.text is not None:
            made.append(text_suite(name, suite, evaluation.items, DataConfig(**data), world))
    return sorted(made, key=lambda suite: list(evaluation.suites).index(suite.name))


def without_asked(pool: Dataset, suites: list[Suite]) -> Dataset:
    """The pool without the rows whose prompt a suite asks, exactly or but for case and marks."""
    asked = {squeezed(text) for suite in suites for text in suite.instructions}
    columns = (column(pool, name) for name in ("instruction", "input"))
    free = np.array([squeezed(f"{i} {x}") not in asked for i, x in zip(*columns, strict=True)])
    return pool if free.all() else take(pool, np.flatnonzero(free))


def check_overlap(config: Config, rows: Dataset, suites: list[Suite]) -> None:
    """Raise UserError when a prompt of a suite is among the rows to train on, exactly or but for case and marks."""
    columns = (column(rows, name) for name in ("instruction", "input", "output"))
    # where nothing is asked, the text itself is what may not be there
    trained = {squeezed(f"{i} {x}") or squeezed(o) for i, x, o in zip(*columns, strict=True)}
    for suite in suites:
        shared = [text for text in suite.instructions if squeezed(text) in trained]
        if shared and suite.name not in config.evaluation.allow_overlap:
            raise UserError(
                f"evaluation.suites.{suite.name}: {len(shared)} of its prompts are in the training rows, as"
                f" {shared[0][:60]!r}; remove them or name it in evaluation.allow_overlap=[{suite.name}]"
            )


def squeezed(text: str) -> str:
    """What is left of a text when case, spaces and marks do not count."""
    return "".join(c for c in text.casefold() if c.isalnum())
