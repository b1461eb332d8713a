"""Memorisation: training rows asked exactly as they were trained, by what was done to them.

A corrupted row that is reproduced word for word was learnt by heart: nothing that generalises gives its answer (Zhang
et al. 2017, arXiv:1611.03530). Beside it stands how often the model gives the truth to the same prompt instead.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from curate.example import column, render

from .teacher_forced import Question, answer

SAMPLE = 100  # rows of a group; they are asked at every point of every curve
NATS = ("noisy", "noisy_truth", "clean")  # groups whose likelihood is measured too
Groups = dict[str, list[Question]]


def row_groups(rows: Dataset, template: Mapping[str, str], seed: int) -> Groups:
    """A sample of at most `SAMPLE` rows of each group that `rows` holds, as questions with the trained response.

    `noisy`: corrupted rows; `noisy_truth`: the same rows with the clean output as the answer; `clean`: the others.
    `copied`: rows that stand more than once, `unique`: the others. One random order serves all groups, so that they
    share most of their rows.
    """
    order = np.random.default_rng([seed, zlib.crc32(b"memorised")]).permutation(len(rows)).tolist()
    names = ("instruction", "input", "output", "noise_kind", "clean_output", "id", "duplicate_of")
    found = dict(zip(names, (column(rows, name) for name in names), strict=True))
    repeated = {of for of in found["duplicate_of"] if of is not None}
    noisy = [kind is not None for kind in found["noise_kind"]]
    copied = [of is not None or own in repeated for of, own in zip(found["duplicate_of"], found["id"], strict=True)]

    def asked(member: Sequence[bool], wanted: bool, answers: str = "output") -> list[Question]:
        chosen = [i for i in order if member[i] is wanted][:SAMPLE]
        prompts = [render(template, found["instruction"][i], found["input"][i]) for i in chosen]
        return [Question(prompt, found[answers][i]) for prompt, i in zip(prompts, chosen, strict=True)]

    groups = {
        "noisy": asked(noisy, True),
        "noisy_truth": asked(noisy, True, "clean_output"),
        "clean": asked(noisy, False),
        "copied": asked(copied, True),
        "unique": asked(copied, False),
    }
    return {name: questions for name, questions in groups.items() if questions}


def memorised(
    model: Any, tokenizer: Any, groups: Groups, *, max_length: int, token_budget: int
) -> dict[str, dict[str, float]]:
    """Per group the share of rows whose whole answer, end included, is the greedy one, as {metric: {value, n}}.

    `nll_*` of the groups in `NATS` is the mean nats per token of the same answers.
    """
    questions = list(dict.fromkeys(q for group in groups.values() for q in group))
    # small passes: on a CPU, those of a few hundred rows are half as fast
    found = answer(model, tokenizer, questions, max_length=max_length, token_budget=min(token_budget, 2048))
    place = {question: at for at, question in enumerate(questions)}
    metrics: dict[str, dict[str, float]] = {}
    for name, group in groups.items():
        at = [place[question] for question in group]
        metrics[name] = {"value": float(found.em[at].mean()), "n": len(at)}
        if name in NATS:
            nats = float(found.nats[at].sum() / found.tokens[at].sum())
            metrics[f"nll_{name}"] = {"value": nats, "n": len(at)}
    return metrics
