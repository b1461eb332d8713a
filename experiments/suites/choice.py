"""Multiple choice by likelihood: which of the options does the model find likeliest after the question?

No text is generated. `accuracy` takes each option's log-likelihood as it is, as TruthfulQA's MC1 does (Lin et al. 2022,
arXiv:2109.07958), `accuracy_norm` divides it by the option's tokens, so that short options have no advantage. The
likelihoods are those of the lm-evaluation-harness (a test compares them where the extra `harness` is installed), which
is not needed to run this.
"""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curate import UserError

MOST_ANSWERS = 3  # distinct targets of a file without options that still are a choice, as yes and no


@dataclass(frozen=True)
class Choice:
    """A question with its options, of which the one at `right` is the answer."""

    question: str
    options: tuple[str, ...]
    right: int


def load_choices(source: str, key: str) -> list[Choice]:
    """The questions of a file: TruthfulQA's CSV, a task of BIG-Bench Hard (JSON), or rows {question, options, right}.

    A task of BIG-Bench Hard lists its options below the question, or has at most three different targets, which are
    then the options. Raises UserError that names `key` for a file that is missing or of another form.
    """
    path = Path(source)
    if not path.is_file():
        raise UserError(f"{key}: {source} is no file; give TruthfulQA.csv, a BIG-Bench Hard task or rows with options")
    try:
        rows = _rows(path)
        targets = sorted({row["target"] for row in rows if "target" in row})
        choices = [_choice(row, targets) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{key}: {source} holds something else than questions with options ({error})") from None
    if not choices:
        raise UserError(f"{key}: {source} holds no question; give at least one")
    return choices


def _rows(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".csv":
        return list(csv.DictReader(text.splitlines(keepends=True)))
    tree = json.loads(text)
    return tree["examples"] if isinstance(tree, dict) else tree


def _choice(row: dict[str, Any], targets: Sequence[str]) -> Choice:
    if "Best Answer" in row:
        wrong = [text.strip() for text in row["Incorrect Answers"].split(";") if text.strip()]
        return _checked(Choice(row["Question"].strip(), (row["Best Answer"].strip(), *wrong), 0))
    if "options" in row:
        return _checked(Choice(row["question"], tuple(row["options"]), int(row["right"])))
    listed = re.findall(r"^(?:- |(?=\([A-Z]\) ))(.+)$", row["input"].partition("\nOptions:\n")[2], re.MULTILINE)
    if listed:
        right = [
            i for i, option in enumerate(listed) if option == row["target"] or option.startswith(row["target"] + " ")
        ]
        return _checked(Choice(row["input"], tuple(listed), right[0] if right else -1))
    if len(targets) > MOST_ANSWERS:
        raise ValueError(f"no options, and {len(targets)} different targets")
    return _checked(Choice(row["input"], tuple(targets), targets.index(row["target"])))


def _checked(choice: Choice) -> Choice:
    if not (0 <= choice.right < len(choice.options) > 1):
        raise ValueError(f"{choice.question[:40]!r} has no answer among two options or more")
    return choice


def graded(nats: np.ndarray, tokens: np.ndarray, choices: Sequence[tuple[int, int]]) -> dict[str, np.ndarray]:
    """Per question, of shape (questions,): accuracy, accuracy_norm, and chance, what guessing would give.

    Args:
        nats, tokens: (options of all questions,) what each option costs, and its length; without the end of the text.
        choices: for each question how many options it has and which of them is right. Equal options count as wrong.
    """
    found: dict[str, list[float]] = {"accuracy": [], "accuracy_norm": [], "chance": []}
    start = 0
    for count, right in choices:
        for name, cost in (("accuracy", nats), ("accuracy_norm", nats / tokens)):
            of_options = cost[start : start + count]
            found[name].append(float((of_options <= of_options[right]).sum() == 1))
        found["chance"].append(1 / count)
        start += count
    return {name: np.array(values) for name, values in found.items()}
