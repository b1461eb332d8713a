"""What is measured of a model: its suites before, during and after training, and what stands beside them."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from curate import microworld
from curate.example import column
from curate.microworld import theory
from train.batches import Row
from train.diagnostics import BATCHES, gradient_agreement

from . import prepare, store
from .config import Config, fingerprint, versions, with_what_counts
from .subset import WORLD_ROWS, world_pool
from .suites.build import Suite
from .suites.evaluate import Evaluation, evaluate
from .suites.generation import Outputs, speak
from .suites.pairwise import Comparison, compare

MOVED = 0.1  # nats a token, the mean over answers of how far they moved: ten times the margins of claims on real data


class NotMoved(RuntimeError):
    """Training left the model where it was: nothing can be learnt from such a run."""

    certain = True  # the same steps lead there again


def check_moved(items: list[dict[str, Any]], suites: list[Suite]) -> None:
    """Raise NotMoved unless the OOD answers' likelihood has left the base model's by more than its 95 % t interval.

    Answers may also move far and apart, some up and some down: then the mean alone would tell nothing, and a run would
    be lost for what came out of it, which biases what it is compared with. So MOVED nats either way are enough too.
    """
    from scipy.stats import ttest_1samp

    ood = {s.name for s in suites if s.ood}
    at: dict[str, dict[tuple[str, int], float]] = {}
    for item in items:
        if item["suite"] in ood:
            at.setdefault(item["point"], {})[item["suite"], item["item"]] = item["nats"] / item["tokens"]
    before, after = at["step:0"], at["end"]
    moved = [after[key] - before[key] for key in after]
    if np.abs(moved).mean() >= MOVED:
        return
    # not the other way round: without any movement the p-value is not a number
    if not (len(moved) > 1 and ttest_1samp(moved, 0).pvalue <= 0.05):
        raise NotMoved(
            f"the OOD likelihood did not move from the base model's ({np.mean(moved):+.4f} nats a token over"
            f" {len(moved)} answers, p > 0.05); train longer or with a higher rate"
        )


def evaluated(config: Config, model: Any, tokenizer: Any, suites: list[Suite], everything: bool) -> Evaluation:
    asked = config.evaluation.items if everything else config.evaluation.point_items
    if not everything:
        suites = [suite for suite in suites if config.evaluation.suites[suite.name].at is None]
    found = evaluate(model, tokenizer, suites, config.evaluation, items=asked, max_length=config.training.max_length)
    if everything and config.model.kind == "micro":
        found.metrics[prepare.KNOWS] = prepare.cloze_cells(model, tokenizer, world=config.seed.world)
    return found


def asked_in_full(config: Config) -> bool:
    """Whether a point of the curve asks all questions of its suites, so that at the end only the late ones are left."""
    return config.model.kind != "micro" and config.evaluation.point_items >= config.evaluation.items


def completed(config: Config, model: Any, tokenizer: Any, suites: list[Suite], last: Evaluation) -> Evaluation:
    """The `last` point's evaluation with the suites that are asked at the end only."""
    late = [suite for suite in suites if config.evaluation.suites[suite.name].at == "end"]
    length = config.training.max_length
    found = evaluate(model, tokenizer, late, config.evaluation, items=config.evaluation.items, max_length=length)
    return Evaluation(last.metrics | found.metrics, last.items + found.items)


def gradients_of(config: Config, model: Any, tokenizer: Any, subset: Dataset, rows: list[Row]) -> dict[str, Any]:
    """The suite `gradients`: how far micro-batches of clean and of noisy rows pull in one direction."""
    noisy = [kind is not None for kind in column(subset, "noise_kind")]
    groups = {
        name: [row for row, is_noisy in zip(rows, noisy, strict=True) if is_noisy is wanted]
        for name, wanted in (("clean", False), ("noisy", True))
    }
    found = gradient_agreement(
        model,
        tokenizer,
        groups,
        tokens=config.training.tokens_trained,
        max_length=config.training.max_length,
        seed=config.seed.train,
    )
    return {name: {"value": value, "n": BATCHES} for name, value in found.items()}


def has_exact_answers(config: Config) -> bool:
    """Whether the rows are the world's: of known noise, and short enough to be asked for word for word."""
    return config.data.name == "microworld"


def sizes(config: Config) -> dict[str, int]:
    return {"max_length": config.training.max_length, "token_budget": config.evaluation.token_budget}


def best_predictor(config: Config) -> dict[str, Any]:
    """The suite `theory`: what an ideal learner of the noisy pool, before any selection, would show in the OOD suites.

    `entropy_first` is the closed form of the metric of that name, over the questions for a single fact.
    """
    if not has_exact_answers(config):
        return {}
    data, evaluation = config.data, config.evaluation
    asked = tuple(part.world for part in evaluation.suites.values() if part.ood and part.world)
    pool = (config.seed.world, data.rows or WORLD_ROWS, config.seed.data, data.facts, data.styles)
    return _best_predictor(pool, asked, evaluation.items, config.noise.kind, config.noise.rate)


@lru_cache(maxsize=64)  # the arms of a pair share it
def _best_predictor(
    pool: tuple[int, int, int, str, bool], asked: tuple[str, ...], items: int, kind: str, rate: float
) -> dict[str, Any]:
    world = microworld.build_world(pool[0])
    questions = [item for name in asked for item in microworld.build_suite(world, name, items)]
    value = theory.entropy_first(world, world_pool(*pool), questions, kind=kind, rate=rate)
    if value is None:
        return {}
    n = sum(item.category in microworld.SINGLE for item in questions)
    return {"theory": {"entropy_first": {"value": value, "n": n}}}


def spoken_by(config: Config, model: Any, tokenizer: Any, suites: list[Suite]) -> Outputs | None:
    """What the tuned model says in its own words, if that is asked for."""
    asked = config.evaluation.generate
    if asked is None:
        return None
    suite = next(s for s in suites if s.name == asked.suite)
    return speak(model, tokenizer, suite, asked, config.seed.train)


def compared_with(config: Config, model: Any, tokenizer: Any, suites: list[Suite]) -> Comparison | None:
    """The tuned model's answers against the opponent's, if a judge is to compare them."""
    asked = config.evaluation.pairwise
    if asked is None:
        return None
    suite = next(s for s in suites if s.name == asked.suite)
    budget, cache = config.evaluation.token_budget, Path(config.store.root) / "cache"
    return compare(model, tokenizer, suite, asked, token_budget=budget, cache=cache)


def single_items(items: list[dict[str, Any]], suites: list[Suite]) -> dict[str, dict[str, float]]:
    """What a record keeps of single questions: of OOD likelihood suites, {METRIC:SUITE:NUMBER: {value, n (tokens)}}."""
    kept = {suite.name for suite in suites if suite.ood and suite.metrics == "likelihood"}
    return {
        f"{name}:{item['suite']}:{item['item']}": {"value": round(item[name], 6), "n": int(item["tokens"])}
        for item in items
        if item["suite"] in kept
        for name in ("nll_answer", "gap")
    }


def before_training(config: Config, base: Path, model: Any, tokenizer: Any, suites: list[Suite]) -> Evaluation:
    """The base model's evaluation, made once for all runs that start from it."""
    identity = {
        "base": base.name,
        "evaluation": with_what_counts(config.evaluation.model_dump(mode="json", exclude={"generate", "pairwise"})),
        "template": config.data.template,
        "max_length": config.training.max_length,
        "suites": fingerprint([[s.name, *s.instructions] for s in suites]),
        "code": versions(config),
    }
    path = Path(config.store.root) / "cache" / "before" / f"{fingerprint(identity)}.json"
    with store.lock(path.with_suffix("")):
        if not path.exists():
            model.eval()
            found = evaluated(config, model, tokenizer, suites, everything=True)
            _add_majority(found, suites)
            store.write_atomic(path, store.canonical({"metrics": found.metrics, "items": found.items}, indent=None))
    return Evaluation(**json.loads(path.read_text()))


def _add_majority(found: Evaluation, suites: list[Suite]) -> None:
    """What the best answer without knowledge would score, beside the base model's own figures."""
    for suite in suites:
        if suite.majority is not None:
            found.metrics[suite.name]["majority"] = {"value": suite.majority, "n": len(suite.questions)}
    ood = [found.metrics[s.name].get("majority") for s in suites if s.ood]
    if all(ood):
        mean = float(np.mean([cell["value"] for cell in ood if cell]))
        found.metrics["ood"]["majority"] = {"value": mean, "n": int(sum(cell["n"] for cell in ood if cell))}
