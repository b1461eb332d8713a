"""The run itself, a plain function of its config: noise, score, select, duplicate, fine-tune, evaluate, record."""

import json
import platform
import resource
import sys
import time
import warnings
import zlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from datasets import Dataset

from curate import UserError, microworld
from curate.config import DataConfig
from curate.duplicate import duplicate
from curate.example import column, load_pool, pool_hash, render
from curate.microworld import theory
from curate.noise import corrupt
from curate.rewrite import rewrite
from curate.scoring import Models, score
from curate.select import select
from curate.text import load_stories
from train.batches import Row
from train.diagnostics import BATCHES, gradient_agreement
from train.finetune import LOSS_WINDOW, Curve, Point, finetune, spikes
from train.models import load_causal_lm, trainable_share, with_lora

from . import prepare, store
from .config import (
    RESULTS_VERSION,
    Config,
    config_hash,
    data_root,
    fingerprint,
    run_id,
    scores_are_used,
    trains_reward_model,
)  # fmt: skip
from .suites.build import Suite, build_suites
from .suites.config import EvaluationConfig
from .suites.evaluate import Evaluation, evaluate
from .suites.generation import SUITE, Outputs, speak
from .suites.memorised import memorised, row_groups
from .suites.pairwise import Comparison, check_judge, compare
from .suites.text import text_suite, tokens_to_probe


WORLD_ROWS = 4096  # of the embedded world, where data.rows says nothing


@dataclass
class Subset:
    """What is trained on, and how it came to be."""

    rows: Dataset
    facts: dict[str, Any]  # the record's `data`
    cost: dict[str, float]


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Do one run into its opened `folder` and return its record, which is written last."""
    if config.evaluation.pairwise:
        check_judge(config.evaluation.pairwise.endpoint)
    subset = curate_subset(config)
    suites = suites_of(config)
    check_overlap(config, subset.rows, suites)
    base = prepare.build_base(config)
    model, tokenizer = load_causal_lm(base)
    before = before_training(config, base, model, tokenizer, suites)
    if config.model.lora is not None:
        model = with_lora(model, tokenizer, config.model.lora, config.training.tokens_trained, config.seed.train)
    subset.facts["trainable_share"] = trainable_share(model, config.training.tokens_trained)
    expected = best_predictor(config)
    groups = row_groups(subset.rows, config.data.template, config.seed.train) if _has_exact_answers(config) else {}
    metrics: dict[str, Any] = {"step:0": before.metrics}
    items = [{"point": "step:0", **item} for item in before.items]
    rows = training_rows(config, subset.rows)
    with store.MetricsLog(folder) as log:

        def at_point(model: Any, point: Point) -> None:
            # the same questions at every point, the last one too: else points could not be compared
            found = _evaluate(config, model, tokenizer, suites, everything=False)
            name = f"step:{point.step}"
            by_heart = memorised(model, tokenizer, groups, **_sizes(config)) if groups else {}
            beside = expected | ({"memorised": by_heart} if by_heart else {})
            beside["train"] = {"loss": {"value": point.loss, "n": min(LOSS_WINDOW, point.step)}}
            if config.evaluation.gradients:
                beside["gradients"] = gradients_of(config, model, tokenizer, subset.rows, rows)
            found.metrics.update(beside)
            metrics[name] = found.metrics
            items.extend({"point": name, **item} for item in found.items)
            for suite, values in found.metrics.items():
                for metric, cell in values.items():
                    log.write(
                        tokens=point.tokens, step=point.step, epoch=point.epoch,
                        suite=suite, metric=metric, value=cell["value"],
                    )  # fmt: skip

            if point.last:
                everything = _evaluate(config, model, tokenizer, suites, everything=True)
                metrics["end"] = everything.metrics | beside
                items.extend({"point": "end", **item} for item in everything.items)
                if spoken := _spoken(config, model, tokenizer, suites):
                    metrics["end"][SUITE] = spoken.metrics
                    _write_lines(folder / "outputs.jsonl", spoken.texts)
                if judged := _compared(config, model, tokenizer, suites):
                    metrics["end"][judged.suite] = judged.metrics
                    _write_lines(folder / "pairwise.jsonl", judged.texts)

        curve = finetune(model, tokenizer, rows, config.training, config.seed.train, at_point)
    if config.evaluation.must_move:
        check_moved(items, suites)
    found, judged = spikes(curve.losses, config.training.warmup)
    metrics["end"]["train"] = {**metrics["end"]["train"], "spikes": {"value": float(found), "n": judged}}
    lines = [f"{step},{loss!r}" for step, loss in enumerate(curve.losses, 1)]
    store.write_atomic(folder / "losses.csv", "\n".join(["step,loss", *lines, ""]))
    record = _record(config, subset, curve, metrics)
    names = dict.fromkeys(name for item in items for name in item)  # what suites of different kinds have, together
    table = pa.Table.from_pylist([{name: item.get(name) for name in names} for item in items])
    pa.parquet.write_table(table, folder / "items.parquet")
    if config.model.save:
        _save_model(folder, model, tokenizer, subset.rows)
    store.finish(folder, record)
    return record


# --- the subset -----------------------------------------------------------------------------------------------------


def curate_subset(config: Config) -> Subset:
    """Pool to subset: noise, scores, selection, duplication; with the facts and costs that the record keeps."""
    pool, set_aside = clean_pool(config)
    noisy = corrupt(pool, kind=config.noise.kind, rate=config.noise.rate, seed=config.seed.data)
    cost = {"score_s": 0.0, "scorer_train_s": 0.0}
    facts: dict[str, Any] = {"scorer_auroc": None, "reward_model": None, "unscored": 0}
    scores = None
    if scores_are_used(config):
        scores = _scores(config, noisy, facts, cost)
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        options = {**config.selection.model_dump(exclude={"encoder"}), "embeddings": _embeddings(config, noisy)}
        chosen = select(noisy, seed=config.seed.select, scores=scores, **options)
    kept = noisy.select(chosen)
    if config.rewrite.by != "none":
        dropped = np.setdiff1d(np.arange(len(noisy)), chosen)
        kept = rewrite(noisy, dropped, config.rewrite, cache=Path(config.store.root) / "cache")
    rows = duplicate(
        kept, seed=config.seed.select, templates=config.data.paraphrases, **config.duplication.model_dump()
    )
    cost["select_s"] = time.perf_counter() - started
    clean = [kind is None for kind in column(noisy, "noise_kind")]
    kept_clean = [kind is None for kind in column(rows, "noise_kind")]
    copies = [of is not None for of in column(rows, "duplicate_of")]
    facts |= {
        "pool_rows": len(pool),
        "rows": len(rows),
        "unique_rows": len(rows) - sum(copies),
        "noise_rate": 1 - float(np.mean(clean)),
        "subset_noise_rate": 1 - float(np.mean(kept_clean)),
        "kept_clean": sum(clean[i] for i in chosen) / max(1, sum(clean)),
        "duplicate_share": float(np.mean(copies)),
        "response_words": float(np.mean([len(o.split()) for o in column(rows, "output")])),
        "subset_hash": pool_hash(rows),
        "set_aside": set_aside,
        "warnings": sorted({str(w.message) for w in said if w.category is UserWarning}),
    }
    return Subset(rows, facts, cost)


def clean_pool(config: Config) -> tuple[Dataset, int]:
    """The pool of this data seed and how many bad rows were set aside; `data.rows` of the file, drawn by the seed."""
    data = config.data
    if data.name == "microworld":
        return _world_pool(config.seed.world, data.rows or WORLD_ROWS, config.seed.data, data.facts, data.styles), 0
    if data.name == "world_text":
        return _world_text(data, config.seed.world, config.seed.data), 0
    assert data.path  # checked with the config
    if data.name == "text":
        stories = load_stories(data.path, data.max_bad_share)
        pool, set_aside = stories.pool, len(stories.bad) + stories.near
    else:
        loaded = _file_pool(data.path, data.max_bad_share, json.dumps(data.fields))
        pool, set_aside = loaded.pool, len(loaded.bad)
    if data.rows is None:
        return pool, set_aside
    if data.rows > len(pool):
        raise UserError(f"data.rows: {data.rows} is more than the {len(pool)} rows of {data.path}; give fewer")
    rng = np.random.default_rng([config.seed.data, zlib.crc32(b"pool rows")])
    return pool.select(np.sort(rng.choice(len(pool), data.rows, replace=False))), set_aside


@lru_cache(maxsize=8)
def _world_pool(world: int, rows: int, seed: int, facts: str, styles: bool) -> Dataset:
    return microworld.build_pool(microworld.build_world(world), rows, seed, facts, styles)


def _world_text(data: DataConfig, world: int, seed: int) -> Dataset:
    assert data.rows is not None
    assert data.entities is not None
    assert data.wrong_share is not None
    assert data.words is not None
    told = {"entities": data.entities, "wrong_share": data.wrong_share, "words": data.words}
    return microworld.prose(microworld.build_world(world), data.rows, seed, **told)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _file_pool(path: str, max_bad_share: float, fields: str):
    return load_pool(path, max_bad_share=max_bad_share, fields=json.loads(fields))


def _scores(config: Config, pool: Dataset, facts: dict[str, Any], cost: dict[str, float]) -> np.ndarray:
    folder = None
    if trains_reward_model(config):
        folder = prepare.build_reward(config)
        card = json.loads((folder / "reward.json").read_text())
        facts["reward_model"] = card["pairwise_accuracy"]
        cost["scorer_train_s"] = card["train_s"]
    cache = Path(config.store.root) / "cache"
    base = prepare.build_base(config)
    models = Models(reward=folder, causal=base, encoder=base if config.model.kind == "micro" else None)
    found = score(
        pool, config.scorer, seed=config.seed.select, template=config.data.template, cache=cache, models=models
    )
    cost |= {"score_s": found.seconds, "score_tokens": found.tokens, "score_dollars": found.dollars}
    facts["unscored"] = len(found.reasons)
    facts["scorer_auroc"] = auroc(found.values, column(pool, "noise_kind"))
    return found.values


def _embeddings(config: Config, pool: Dataset) -> np.ndarray | None:
    """What a selection for diversity measures distances by: the encoder it names, or the world's base model."""
    if config.selection.kind != "diversity":
        return None
    from curate.scoring.embedding import embed, row_texts

    base = prepare.build_base(config) if config.model.kind == "micro" else None
    return embed(row_texts(pool), config.selection.encoder or base, cache=Path(config.store.root) / "cache")


def auroc(scores: np.ndarray, kinds: list[str | None]) -> dict[str, float] | None:
    """How well scores tell clean rows from each kind of noise, and from all: P(clean scores higher), ties half."""
    from scipy.stats import mannwhitneyu

    clean = np.array([k is None for k in kinds])
    known = np.isfinite(scores)
    if not (clean & known).any():
        return None
    found = {}
    for name in [*sorted({k for k in kinds if k is not None}), "all"]:
        noisy = ~clean if name == "all" else np.array([k == name for k in kinds])
        if (noisy & known).any():
            a, b = scores[clean & known], scores[noisy & known]
            found[name] = float(mannwhitneyu(a, b).statistic / (len(a) * len(b)))
    return found or None


# --- evaluation -----------------------------------------------------------------------------------------------------


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


def check_overlap(config: Config, rows: Dataset, suites: list[Suite]) -> None:
    """Raise UserError when a prompt of a suite is among the rows to train on, exactly or but for case and marks."""
    columns = (column(rows, name) for name in ("instruction", "input", "output"))
    # where nothing is asked, the text itself is what may not be there
    trained = {_squeezed(f"{i} {x}") or _squeezed(o) for i, x, o in zip(*columns, strict=True)}
    for suite in suites:
        shared = [text for text in suite.instructions if _squeezed(text) in trained]
        if shared and suite.name not in config.evaluation.allow_overlap:
            raise UserError(
                f"evaluation.suites.{suite.name}: {len(shared)} of its prompts are in the training rows, as"
                f" {shared[0][:60]!r}; remove them or name it in evaluation.allow_overlap=[{suite.name}]"
            )


def _squeezed(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


class NotMoved(RuntimeError):
    """Training left the model where it was: nothing can be learnt from such a run."""


def check_moved(items: list[dict[str, Any]], suites: list[Suite]) -> None:
    """Raise NotMoved unless the OOD answers' likelihood has left the base model's by more than its 95 % t interval."""
    from scipy.stats import ttest_1samp

    ood = {s.name for s in suites if s.ood}
    at: dict[str, dict[tuple[str, int], float]] = {}
    for item in items:
        if item["suite"] in ood:
            at.setdefault(item["point"], {})[item["suite"], item["item"]] = item["nats"] / item["tokens"]
    before, after = at["step:0"], at["end"]
    moved = [after[key] - before[key] for key in after]
    # not the other way round: without any movement the p-value is not a number
    if not (len(moved) > 1 and ttest_1samp(moved, 0).pvalue <= 0.05):
        raise NotMoved(
            f"the OOD likelihood did not move from the base model's ({np.mean(moved):+.4f} nats a token over"
            f" {len(moved)} answers, p > 0.05); train longer or with a higher rate"
        )


def _evaluate(config: Config, model: Any, tokenizer: Any, suites: list[Suite], everything: bool) -> Evaluation:
    asked = config.evaluation.items if everything else config.evaluation.point_items
    if not everything:
        suites = [suite for suite in suites if config.evaluation.suites[suite.name].at is None]
    found = evaluate(model, tokenizer, suites, config.evaluation, items=asked, max_length=config.training.max_length)
    if everything and config.model.kind == "micro":
        found.metrics[prepare.KNOWS] = prepare.cloze_cells(model, tokenizer, world=config.seed.world)
    return found


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


def _has_exact_answers(config: Config) -> bool:
    """Whether the rows are the world's: of known noise, and short enough to be asked for word for word."""
    return config.data.name == "microworld"


def _sizes(config: Config) -> dict[str, int]:
    return {"max_length": config.training.max_length, "token_budget": config.evaluation.token_budget}


def best_predictor(config: Config) -> dict[str, Any]:
    """The suite `theory`: what an ideal learner of the noisy pool, before any selection, would show in the OOD suites.

    `entropy_first` is the closed form of the metric of that name, over the questions for a single fact.
    """
    if not _has_exact_answers(config):
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
    value = theory.entropy_first(world, _world_pool(*pool), questions, kind=kind, rate=rate)
    if value is None:
        return {}
    n = sum(item.category in microworld.SINGLE for item in questions)
    return {"theory": {"entropy_first": {"value": value, "n": n}}}


def _spoken(config: Config, model: Any, tokenizer: Any, suites: list[Suite]) -> Outputs | None:
    """What the tuned model says in its own words, if that is asked for."""
    asked = config.evaluation.generate
    if asked is None:
        return None
    suite = next(s for s in suites if s.name == asked.suite)
    return speak(model, tokenizer, suite, asked, config.seed.train)


def _compared(config: Config, model: Any, tokenizer: Any, suites: list[Suite]) -> Comparison | None:
    """The tuned model's answers against the opponent's, if a judge is to compare them."""
    asked = config.evaluation.pairwise
    if asked is None:
        return None
    suite = next(s for s in suites if s.name == asked.suite)
    budget, cache = config.evaluation.token_budget, Path(config.store.root) / "cache"
    return compare(model, tokenizer, suite, asked, token_budget=budget, cache=cache)


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    lines = [store.canonical(row, indent=None) for row in rows]
    store.write_atomic(path, "\n".join(line.rstrip() for line in lines) + "\n")


def before_training(config: Config, base: Path, model: Any, tokenizer: Any, suites: list[Suite]) -> Evaluation:
    """The base model's evaluation, made once for all runs that start from it."""
    identity = {
        "base": base.name,
        "evaluation": config.evaluation.model_dump(mode="json", exclude={"generate", "pairwise"}),
        "template": config.data.template,
        "max_length": config.training.max_length,
        "suites": fingerprint([[s.name, *s.instructions] for s in suites]),
        "code": RESULTS_VERSION,
    }
    path = Path(config.store.root) / "cache" / "before" / f"{fingerprint(identity)}.json"
    with store.lock(path.with_suffix("")):
        if not path.exists():
            model.eval()
            found = _evaluate(config, model, tokenizer, suites, everything=True)
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


# --- training and the record ----------------------------------------------------------------------------------------


def training_rows(config: Config, rows: Dataset) -> list[Row]:
    """Rendered prompts with their responses."""
    columns = (column(rows, name) for name in ("instruction", "input", "output"))
    return [Row(render(config.data.template, i, x), o) for i, x, o in zip(*columns, strict=True)]


def _record(config: Config, subset: Subset, curve: Curve, metrics: dict[str, Any]) -> dict[str, Any]:
    best = config.evaluation.best
    values = {p.step: metrics[f"step:{p.step}"][best.suite][best.metric]["value"] for p in curve.points}
    sign = 1 if best.mode == "max" else -1
    best_step = max(values, key=lambda step: (sign * values[step], -step))  # the earliest of equals
    last = curve.points[-1]
    metrics |= {"best_val": metrics[f"step:{best_step}"]}
    probed: dict[str, float] = {}
    if probe := config.evaluation.probe:
        tokens = {0: 0, **{p.step: p.tokens for p in curve.points}}
        scores = [(float(n), metrics[f"step:{s}"][probe.suite][probe.metric]["value"]) for s, n in tokens.items()]
        probed = tokens_to_probe(scores, probe.at_least)
    return {
        "run_id": run_id(config),
        "arm": config.arm,
        "seeds": config.seed.model_dump(exclude={"bases"}),
        "config_hash": config_hash(config),
        "code_version": {"version": version("quality-vs-quantity"), **RESULTS_VERSION},
        "status": "done",
        "error": None,
        "data": {**subset.facts, "tokens": curve.row_tokens},
        "points": {f"step:{p.step}": {"step": p.step, "epoch": p.epoch, "tokens": p.tokens} for p in curve.points},
        "best_val_step": best_step,
        "metrics": metrics,
        "cost": {
            **subset.cost,
            **probed,
            "train_s": last.train_s,
            "eval_s": curve.eval_s,
            "tokens_seen": last.tokens,
            "peak_memory_mb": peak_memory_mb(),
            "train_s_at": {str(p.step): p.train_s for p in curve.points},
        },
        "environment": environment(),
    }


def peak_memory_mb() -> float:
    """Of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if sys.platform != "darwin" else 1024**2)


@lru_cache(maxsize=1)
def environment() -> dict[str, str]:
    """Versions that results may depend on."""
    packages = ("torch", "transformers", "peft", "datasets", "numpy", "tokenizers")
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        **{name: version(name) for name in packages},
    }


def _save_model(folder: Path, model: Any, tokenizer: Any, rows: Dataset) -> None:
    """Model or adapter, with the ids and hashes of what it was tuned on."""
    out = folder / "model"
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    manifest = {"subset_hash": pool_hash(rows), "ids": column(rows, "id")}
    store.write_atomic(out / "subset.json", store.canonical(manifest))
