"""The run itself, a plain function of its config: subset, fine-tune, evaluate, record."""

import platform
import resource
import sys
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import torch
from datasets import Dataset

from curate.example import column, pool_hash
from train import distributed, follower
from train.finetune import LOSS_WINDOW, Checkpoint, Curve, Point, finetune, spikes
from train.models import load_to_tune, trainable_share, with_lora

from . import account, prepare, store, workers
from .asked import check_overlap, suites_of
from .config import Config, config_hash, run_id, versions
from .measuring import (
    asked_in_full,
    before_training,
    best_predictor,
    check_moved,
    compared_with,
    completed,
    evaluated,
    gradients_of,
    has_exact_answers,
    single_items,
    sizes,
    spoken_by,
)
from .subset import Subset, curate_subset, manifest, training_rows
from .suites.generation import SUITE
from .suites.memorised import memorised, row_groups
from .suites.pairwise import check_judge
from .suites.text import tokens_to_probe
from .table import ITEMS


def run(config: Config, folder: Path) -> dict[str, Any]:
    """Do one run into its opened `folder` and return its record, which is written last."""
    if config.evaluation.pairwise:
        check_judge(config.evaluation.pairwise.endpoint)
    subset = curate_subset(config)
    account.write(folder / account.SELECTION, subset.account)
    store.write_atomic(folder / store.SUBSET, manifest(subset.rows))
    suites = suites_of(config)
    check_overlap(config, subset.rows, suites)
    base = prepare.build_base(config)
    model, tokenizer = load_to_tune(base, config.model)
    before = before_training(config, base, model, tokenizer, suites)
    if config.model.lora is not None:
        model = with_lora(model, tokenizer, config.model.lora, config.training.tokens_trained, config.seed.train)
    subset.facts["trainable_share"] = trainable_share(model, config.training.tokens_trained)
    expected = best_predictor(config)
    groups = row_groups(subset.rows, config.data.template, config.seed.train) if has_exact_answers(config) else {}
    metrics: dict[str, Any] = {"step:0": before.metrics}
    items = [{"point": "step:0", **item} for item in before.items]
    rows = training_rows(config, subset.rows)
    with store.MetricsLog(folder) as log:

        def at_point(model: Any, point: Point) -> None:
            # the same questions at every point, the last one too: else points could not be compared
            found = evaluated(config, model, tokenizer, suites, everything=False)
            name = f"step:{point.step}"
            by_heart = memorised(model, tokenizer, groups, **sizes(config)) if groups else {}
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
                if asked_in_full(config):
                    everything = completed(config, model, tokenizer, suites, found)
                else:
                    everything = evaluated(config, model, tokenizer, suites, everything=True)
                metrics["end"] = everything.metrics | beside
                items.extend({"point": "end", **item} for item in everything.items)
                said = account.answers(model, tokenizer, suites, config.training.max_length)
                account.write(folder / account.ANSWERS, said)
                if spoken := spoken_by(config, model, tokenizer, suites):
                    metrics["end"][SUITE] = spoken.metrics
                    _write_lines(folder / "outputs.jsonl", spoken.texts)
                if judged := compared_with(config, model, tokenizer, suites):
                    metrics["end"][judged.suite] = judged.metrics
                    _write_lines(folder / "pairwise.jsonl", judged.texts)

        def restore(found: dict[str, Any]) -> None:
            metrics.update(found["metrics"])
            items[:] = found["items"]
            for row in found["curve"]:
                log.write(**row)

        checkpoint = Checkpoint(
            folder / store.CHECKPOINT,
            every_s=60 * config.survival.checkpoint_minutes,
            kept=lambda: {"metrics": metrics, "items": items, "curve": store.read_metrics(folder)},
            restore=restore,
        )
        call = follower.Call(base, config.model, rows, config.training, config.seed.train, checkpoint.path)
        hang = config.survival.hang_minutes
        with follower.together(call), workers.watched(folder, run_id(config), hang) as at_step:
            curve = finetune(
                model, tokenizer, rows, config.training, config.seed.train, at_point, checkpoint, at_step=at_step
            )
    if config.evaluation.must_move:
        check_moved(items, suites)
    found, judged = spikes(curve.losses, config.training.warmup)
    metrics["end"]["train"] = {**metrics["end"]["train"], "spikes": {"value": float(found), "n": judged}}
    lines = [f"{step},{loss!r}" for step, loss in enumerate(curve.losses, 1)]
    store.write_atomic(folder / "losses.csv", "\n".join(["step,loss", *lines, ""]))
    record = _record(config, subset, curve, metrics)
    for point, at in (("best_val", f"step:{record['best_val_step']}"), ("end", "end")):
        if single := single_items([item for item in items if item["point"] == at], suites):
            metrics[point] = {**metrics[point], ITEMS: single}
    names = dict.fromkeys(name for item in items for name in item)  # what suites of different kinds have, together
    table = pa.Table.from_pylist([{name: item.get(name) for name in names} for item in items])
    pa.parquet.write_table(table, folder / "items.parquet")
    if config.model.save:
        _save_model(folder, model, tokenizer, subset.rows)
    store.finish(folder, record)
    return record


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    lines = [store.canonical(row, indent=None) for row in rows]
    store.write_atomic(path, "\n".join(line.rstrip() for line in lines) + "\n")


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
        "code_version": {"version": version("quality-vs-quantity"), **versions(config)},
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
        # of a run of one process nothing is said, as in records from before there were more
        **({"processes": str(distributed.launched())} if distributed.launched() > 1 else {}),
    }


def _save_model(folder: Path, model: Any, tokenizer: Any, rows: Dataset) -> None:
    """Model or adapter, with the ids and hashes of what it was tuned on."""
    out = folder / "model"
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    manifest = {"subset_hash": pool_hash(rows), "ids": column(rows, "id")}
    store.write_atomic(out / "subset.json", store.canonical(manifest))
