"""Metrics of a model on suites, with the per-item results they are means of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .build import Suite
from .checks import passed
from .choice import graded
from .config import EvaluationConfig
from .generation import greedy_answers
from .teacher_forced import Answers, answer
from .text import measure

Metrics = dict[str, dict[str, dict[str, float]]]  # suite -> metric -> {value, n}


@dataclass(frozen=True)
class Evaluation:
    """`metrics` as in a record; `items` one dict per question: suite, item, and its own em, nats, tokens, ..."""

    metrics: Metrics
    items: list[dict[str, Any]]


def evaluate(
    model: Any, tokenizer: Any, suites: Sequence[Suite], config: EvaluationConfig, *, items: int, max_length: int
) -> Evaluation:
    """Ask the first `items` questions of each suite, or its own number if that is less; `ood` is the mean of OOD ones.

    `exact` suites give em (the greedy answer is the gold one, in its format), em_format_free (right after the
    format), nll (mean nats per gold answer token), entropy (mean over answers of the predictive distribution's mean
    entropy in nats at the value tokens), entropy_first (at the first of them), confident (share of the answers at
    whose first value token some token has a probability above one half). `likelihood` suites give nll (mean over all
    tokens), nll_answer (mean over answers of each one's mean), gap (nats per token that the right prompt is worth over
    another's). For `text` and `writing` see `text.measure`, for `pairwise`, which is not asked here,
    `pairwise.compare`. `choice` suites give accuracy, accuracy_norm and chance (see `choice.graded`), `checks` give
    passed (share of the answers that do what they were told) and words (mean); both are in no mean.
    """
    metrics: Metrics = {}
    rows: list[dict[str, Any]] = []
    most = items
    for suite in suites:
        if suite.metrics == "pairwise":
            continue
        items = min(most, suite.items or most)
        if suite.metrics in ("text", "writing"):
            metrics[suite.name], own = measure(model, tokenizer, suite, config, items, max_length)
            rows += own
            continue
        if suite.metrics in ("choice", "checks"):
            find = _choose if suite.metrics == "choice" else _check
            values = find(model, tokenizer, suite, config, items, max_length)
            metrics[suite.name] = {k: {"value": float(v.mean()), "n": len(v)} for k, v in values.items()}
            n = len(next(iter(values.values())))
            rows += [{"suite": suite.name, "item": i, **{k: float(v[i]) for k, v in values.items()}} for i in range(n)]
            continue
        found = _exact if suite.metrics == "exact" else _likelihood
        values = found(model, tokenizer, suite, config, items, max_length)
        n = len(next(iter(values.values())))
        metrics[suite.name] = {
            name: {"value": _mean(name, values), "n": n} for name in values if name not in ("nats", "tokens")
        }
        metrics[suite.name]["nll"] = {"value": float(values["nats"].sum() / values["tokens"].sum()), "n": n}
        rows += [{"suite": suite.name, "item": i, **{k: float(v[i]) for k, v in values.items()}} for i in range(n)]
    ood = [s.name for s in suites if s.ood]
    if not ood:
        return Evaluation(metrics, rows)
    shared = set.intersection(*(set(metrics[name]) for name in ood))
    metrics["ood"] = {
        m: {
            "value": float(np.mean([metrics[s][m]["value"] for s in ood])),
            "n": int(sum(metrics[s][m]["n"] for s in ood)),
        }
        for m in sorted(shared)
    }
    return Evaluation(metrics, rows)


def _mean(name: str, values: dict[str, np.ndarray]) -> float:
    return float(values[name].mean())


def _ask(
    model: Any, tokenizer: Any, questions: Sequence[Any], config: EvaluationConfig, max_length: int, **keys: bool
) -> Answers:
    return answer(model, tokenizer, questions, max_length=max_length, token_budget=config.token_budget, **keys)


def _exact(model: Any, tokenizer: Any, suite: Suite, config: EvaluationConfig, items: int, max_length: int):
    found = _ask(model, tokenizer, suite.questions[:items], config, max_length, predictive=True)
    assert found.entropy is not None and found.entropy_first is not None and found.top_first is not None
    return {
        "em": found.em,
        "em_format_free": found.em_format_free,
        "entropy": found.entropy,
        "entropy_first": found.entropy_first,
        "confident": found.top_first > 0.5,
        "nats": found.nats,
        "tokens": found.tokens,
    }


def _choose(model: Any, tokenizer: Any, suite: Suite, config: EvaluationConfig, items: int, max_length: int):
    choices = suite.choices[:items]
    asked = suite.questions[: sum(count for count, _ in choices)]
    # with a stop the end of the text is not counted: an option need not be all of an answer
    found = _ask(model, tokenizer, [replace(q, stop=(tokenizer.eos_token,)) for q in asked], config, max_length)
    return graded(found.nats, found.tokens, choices)


def _check(model: Any, tokenizer: Any, suite: Suite, config: EvaluationConfig, items: int, max_length: int):
    answers = greedy_answers(model, tokenizer, [q.prompt for q in suite.questions[:items]], suite.new_tokens)
    done = passed(suite.checks[:items], answers)
    return {"passed": np.array(done, float), "words": np.array([len(a.split()) for a in answers], float)}


def _likelihood(model: Any, tokenizer: Any, suite: Suite, config: EvaluationConfig, items: int, max_length: int):
    questions = [replace(q, answer=_cut(tokenizer, q.answer, config)) for q in suite.questions[:items]]
    right = _ask(model, tokenizer, questions, config, max_length)
    others = questions[1:] + questions[:1]
    strangers = [replace(q, prompt=other.prompt) for q, other in zip(questions, others, strict=True)]
    wrong = _ask(model, tokenizer, strangers, config, max_length)
    right_mean, wrong_mean = right.nats / right.tokens, wrong.nats / wrong.tokens
    return {"nll_answer": right_mean, "gap": wrong_mean - right_mean, "nats": right.nats, "tokens": right.tokens}


def _cut(tokenizer: Any, text: str, config: EvaluationConfig) -> str:
    """The reference up to `max_reference_tokens`; the cut falls on a token's border."""
    if config.max_reference_tokens is None:
        return text
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return text if len(spans) <= config.max_reference_tokens else text[: spans[config.max_reference_tokens - 1][1]]
