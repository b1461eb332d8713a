"""What a run's selection did and what its model says, in a few rows and counts: for reading, no part of the record.

<run>/selection.json   rows and kinds of noise of pool and subset; some rows kept and some dropped
<run>/answers.json     some questions with the gold answer and the model's own

These files hold rows of the data, cut to `LONGEST` characters. They stay in the store: `store export` leaves them out.
"""

import json
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from curate.example import column
from experiments import store

SELECTION, ANSWERS = "selection.json", "answers.json"
ROWS = 5  # kept, and as many dropped
LONGEST = 300  # characters of a text
CLEAN = "clean"
QUESTIONS, NEW_TOKENS = 2, 24  # of each OOD suite; tokens of an answer
FIELDS = ("instruction", "input", "output")


def account(pool: Dataset, chosen: Sequence[int] | np.ndarray, subset: Dataset, seed: int) -> dict[str, Any]:
    """What `selection.json` says.

    Args:
        pool: the rows before the selection, noise and all.
        chosen: which of them were selected.
        subset: the rows that are trained on, repaired and duplicated.
        seed: the rows shown are the first ones of an order drawn by it, so that the arms of a pair show the same rows
            as far as they agree on them.
    """
    kept = {int(i) for i in chosen}
    order = np.random.default_rng([seed, zlib.crc32(b"rows shown")]).permutation(len(pool)).tolist()
    return {
        "pool": _counts(pool),
        "subset": _counts(subset),
        "kept": [_row(pool[i]) for i in [i for i in order if i in kept][:ROWS]],
        "dropped": [_row(pool[i]) for i in [i for i in order if i not in kept][:ROWS]],
    }


def _counts(rows: Dataset) -> dict[str, Any]:
    words = [len(output.split()) for output in column(rows, "output")]
    kinds = Counter(kind or CLEAN for kind in column(rows, "noise_kind"))
    return {
        "rows": len(rows),
        "response_words": float(np.mean(words)) if words else None,
        "kinds": dict(sorted(kinds.items())),
    }


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {**{name: cut(row[name]) for name in FIELDS}, "noise_kind": row["noise_kind"]}


def cut(text: str | None) -> str:
    """The text, or its first `LONGEST` characters and how many there are."""
    text = text or ""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text):,} characters)"


def answers(model: Any, tokenizer: Any, suites: Sequence[Any], max_length: int) -> list[dict[str, Any]]:
    """What `answers.json` says: the greedy answers to the first `QUESTIONS` questions of each OOD suite that asks.

    Questions with more than `max_length` tokens are left out.
    """
    from experiments.suites.generation import greedy_answers

    asked = [
        (suite.name, i, question)
        for suite in suites
        if suite.ood and suite.metrics in ("exact", "likelihood")
        for i, question in enumerate(suite.questions[:QUESTIONS])
        if len(tokenizer(question.prompt)["input_ids"]) <= max_length
    ]
    if not asked:
        return []
    said = greedy_answers(model, tokenizer, [question.prompt for *_, question in asked], NEW_TOKENS)
    return [
        {"suite": suite, "item": i, "prompt": cut(q.prompt), "gold": cut(q.answer), "answer": cut(text)}
        for (suite, i, q), text in zip(asked, said, strict=True)
    ]


def write(path: Path, found: Any) -> None:
    """Write one of the two files, whole or not at all."""
    store.write_atomic(path, store.canonical(found))


def read(path: Path) -> Any:
    """What `write` wrote; None where a run has no such file, as older ones have not, or where it is not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
