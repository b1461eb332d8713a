"""Suites from the config: parts of the micro-world, or a user's own file of questions and references."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from curate import UserError, microworld
from curate.example import render
from curate.layouts import ALIASES, fields_of
from curate.reading import HUB, records

from .checks import CHECKS, NEW_TOKENS, Check
from .choice import load_choices
from .config import EvaluationConfig, SuiteConfig
from .teacher_forced import Question

_NAMES = {name: ALIASES[name] for name in ("instruction", "input", "output")}
FORMAT = "ok :"  # the part of the micro-world's answers that is form


@dataclass(frozen=True)
class Suite:
    """Questions in a fixed order; `instructions` (with their inputs) are what a subset may not hold."""

    name: str
    ood: bool
    metrics: Literal["exact", "likelihood", "text", "writing", "pairwise", "choice", "checks"]
    questions: tuple[Question, ...]
    instructions: tuple[str, ...]
    majority: float | None = None  # exact match of the best answer without knowledge
    asked: tuple[tuple[str, str], ...] = ()  # of a file: instruction and input of each question, apart
    world: int | None = None  # the seed of the world by which what a model writes is judged
    choices: tuple[tuple[int, int], ...] = ()  # for each item how many of the questions are its options, which is right
    checks: tuple[Check, ...] = ()
    new_tokens: int = NEW_TOKENS  # of an answer to a check
    items: int | None = None  # at most so many are asked, wherever more are allowed


def build_suites(
    evaluation: EvaluationConfig, template: dict[str, str], *, world: int, root: Path | None
) -> list[Suite]:
    """The suites of the world and of files, at most `evaluation.items` questions each.

    Those of running text need the data and are built by `text.text_suite`. Raises UserError for an unreadable one.
    """
    made = []
    for name, suite in evaluation.suites.items():
        count = _count(suite, evaluation)
        if suite.world:
            made.append(_from_world(name, suite, count, template, world))
        elif suite.metrics == "checks":
            made.append(_checks(name, suite, count, template))
        elif suite.metrics == "choice":
            made.append(_choices(name, suite, count, template, root))
        elif suite.text is None:
            made.append(_from_file(name, suite, count, template, root))
    return made


def _count(suite: SuiteConfig, evaluation: EvaluationConfig) -> int:
    compared = suite.metrics == "pairwise" and evaluation.pairwise
    return compared.questions if compared else min(evaluation.items, suite.items or evaluation.items)


def _from_world(name: str, suite: SuiteConfig, items: int, template: dict[str, str], seed: int) -> Suite:
    world = microworld.build_world(seed)
    if suite.world not in microworld.SUITES:
        known = ", ".join(microworld.SUITES)
        raise UserError(f"evaluation.suites.{name}.world: {suite.world!r} is no part of the world; give one of {known}")
    asked = microworld.build_suite(world, suite.world, items)
    questions = tuple(Question(render(template, i.instruction, ""), i.answer, i.stop, FORMAT) for i in asked)
    return Suite(
        name,
        suite.ood,
        suite.metrics,
        questions,
        tuple(i.instruction for i in asked),
        microworld.majority_baseline(world, asked),
        items=suite.items,
    )


def _from_file(name: str, suite: SuiteConfig, items: int, template: dict[str, str], root: Path | None) -> Suite:
    key = f"evaluation.suites.{name}.path"
    chosen = _same(load_questions(_source(suite, root), key), items)
    return Suite(
        name,
        suite.ood,
        suite.metrics,
        tuple(Question(render(template, r["instruction"], r["input"]), r["output"]) for r in chosen),
        tuple(f"{r['instruction']} {r['input']}".strip() for r in chosen),
        asked=tuple((r["instruction"], r["input"]) for r in chosen),
        items=suite.items,
    )


def _source(suite: SuiteConfig, root: Path | None) -> str:
    source = suite.path or ""
    if not source.startswith(HUB) and root is not None and not Path(source).exists():
        return str(root / source)  # an absolute path stays what it is
    return source


def _same(rows: list[Any], items: int) -> list[Any]:
    """So many of the rows, the same ones for every run."""
    order = np.random.default_rng([0, len(rows)]).permutation(len(rows))[:items]
    return [rows[i] for i in sorted(order)]


def _choices(name: str, suite: SuiteConfig, items: int, template: dict[str, str], root: Path | None) -> Suite:
    chosen = _same(load_choices(_source(suite, root), f"evaluation.suites.{name}.path"), items)
    return Suite(
        name,
        False,
        suite.metrics,
        tuple(Question(render(template, c.question, ""), option) for c in chosen for option in c.options),
        tuple(c.question for c in chosen),
        choices=tuple((len(c.options), c.right) for c in chosen),
        items=suite.items,
    )


def _checks(name: str, suite: SuiteConfig, items: int, template: dict[str, str]) -> Suite:
    chosen = CHECKS[:items]
    questions = tuple(Question(render(template, check.instruction, ""), "") for check in chosen)
    asked = tuple(check.instruction for check in chosen)
    new = suite.max_new_tokens or NEW_TOKENS
    return Suite(name, False, suite.metrics, questions, asked, checks=chosen, new_tokens=new, items=suite.items)


def load_questions(source: str, key: str) -> list[dict[str, str]]:
    """Rows {instruction, input, output} of a file or a data set of the hub; Self-Instruct's `instances` are unfolded.

    Raises UserError that names `key` when the source is missing, broken, or holds a row without instruction or output.
    """
    rows = []
    for line, row in records(source, key):
        for instance in _instances(row):
            try:
                found = fields_of(instance, _NAMES)
            except ValueError as error:
                raise UserError(f"{key}: line {line} of {source}: {error}; mend or remove it") from None
            rows.append({name: found[name] or "" for name in _NAMES})
    if not rows:
        raise UserError(f"{key}: {source} holds no question; give at least one")
    return rows


def _instances(row: Any) -> list[Any]:
    if isinstance(row, dict) and isinstance(row.get("instances"), list):
        return [{"instruction": row.get("instruction"), **i} for i in row["instances"] if isinstance(i, dict)]
    return [row]
