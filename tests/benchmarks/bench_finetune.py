"""Speed of fine-tuning, in one process unless said:  python tests/benchmarks/bench_finetune.py

Prints useful tokens (padding not counted) a second against the same with transformers' layers in the place of
`train/fused.py`, a bare PyTorch loop, and TRL's SFTTrainer (extra `bench`); the overhead of a run (its wall time less
steps and evaluation), and two processes against one.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from hydra import compose, initialize_config_dir

from curate import microworld
from curate.example import column, render
from experiments.config import validate
from train import fused
from train.batches import Row, collate, encode
from train.finetune import finetune
from train.models import new_llama, word_tokenizer
from train.unpadded import where_possible

CONF = str(Path(__file__).resolve().parents[2] / "conf")
STEPS = 96


def composed(*overrides):
    with initialize_config_dir(CONF, version_base="1.3"):
        return validate(compose("config", ["hydra/sweeper=basic", *overrides]))


def material():
    """The default run's model shape, rows and settings; the weights do not matter to speed."""
    config = composed(f"training.steps={STEPS}", "training.points=[1]")
    world = microworld.build_world(0)
    tokenizer = word_tokenizer(microworld.vocabulary(world))
    pool = microworld.build_pool(world, 4096, 0)
    rows = [
        Row(render(config.data.template, i, ""), o)
        for i, o in zip(column(pool, "instruction"), column(pool, "output"), strict=True)
    ]
    shape = config.model.pretraining
    make = lambda: new_llama(  # noqa: E731
        tokenizer, hidden=shape.hidden, layers=shape.layers, heads=shape.heads, mlp=shape.mlp, positions=512, seed=0
    )
    return config.training, tokenizer, rows, make


def ours(training, tokenizer, rows, make) -> float:
    """By the clock on the wall, from the end of the first step on; what a run says of itself is its processor time."""
    at: list[float] = []
    finetune(where_possible(make()), tokenizer, rows, training, 0, lambda *_: at.append(time.perf_counter()))
    return (at[-1] - at[0]) * STEPS / (STEPS - 1)


def by_layers(*material) -> float:
    """Ours, but for the decoder."""
    possible = fused.possible
    fused.possible = lambda *_, **__: False
    try:
        return ours(*material)
    finally:
        fused.possible = possible


def bare(training, tokenizer, rows, make) -> float:
    """What one writes without a library: the model's own loss, all parameters, random batches of the same rows."""
    model = make().train()
    encoded = encode(tokenizer, rows, training.max_length)
    optimizer = torch.optim.AdamW(model.parameters(), training.lr, weight_decay=0.0, fused=True)
    order = torch.randperm(len(encoded), generator=torch.Generator().manual_seed(0)).tolist()
    started = time.perf_counter()
    for step in range(STEPS):
        at = step * training.batch_size
        batch = collate([encoded[order[i % len(order)]] for i in range(at, at + training.batch_size)], 0)
        optimizer.zero_grad()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return time.perf_counter() - started


def trl(training, tokenizer, rows, make) -> float | None:
    """SFTTrainer with what a CPU needs switched off: bf16, gradient checkpointing, logging."""
    try:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer
    except ImportError:
        return None
    data = Dataset.from_dict({"prompt": [r.prompt for r in rows], "completion": [f" {r.response}" for r in rows]})
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder, max_steps=STEPS, per_device_train_batch_size=training.batch_size,
            learning_rate=training.lr, bf16=False, gradient_checkpointing=False, report_to="none", use_cpu=True,
            save_strategy="no", logging_strategy="no", disable_tqdm=True, max_length=training.max_length,
            completion_only_loss=True, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = SFTTrainer(model=make(), args=settings, train_dataset=data, processing_class=tokenizer)
        started = time.perf_counter()
        trainer.train()
        return time.perf_counter() - started


def run_overhead() -> list[float]:
    """Wall time of whole runs less their steps and evaluation, from the second in the process on."""
    from experiments import pipeline, prepare, store
    from experiments.config import run_id

    found = []
    with tempfile.TemporaryDirectory() as root:
        for pair in range(4):
            config = composed("debug=tiny", "noise=mixture", f"store.root={root}", f"seed.pair={pair}", "seed.base=0")
            folder = store.run_folder(root, run_id(config))
            prepare.build_base(config)
            started = time.perf_counter()
            store.open_run(folder, config.model_dump(mode="json"))
            record = pipeline.run(config, folder)
            cost = record["cost"]
            found.append(time.perf_counter() - started - cost["train_s"] - cost["eval_s"])
    return found[1:]


def processes() -> float:
    """How much more two processes do than one in the same time: twice the time of one over the time of two."""
    command = [sys.executable, __file__, "--worker"]
    alone = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    together = max(float(p.communicate()[0].split()[-1]) for p in both)
    return 2 * alone / together


def main() -> None:
    torch.set_num_threads(1)
    material_ = material()
    if "--worker" in sys.argv:
        ours(*material_)  # the first waits for what is loaded late
        print(statistics.median(ours(*material_) for _ in range(9)))
        return
    argparse.ArgumentParser(description=__doc__).parse_args()
    training, tokenizer, rows, _ = material_
    tokens = sum(len(e["input_ids"]) for e in encode(tokenizer, rows, training.max_length)) / len(rows)
    useful = tokens * training.batch_size * STEPS
    times: dict[str, list[float]] = {"ours": [], "by layers": [], "bare loop": [], "TRL SFTTrainer": []}
    for _ in range(3):  # interleaved, so that a slow minute hits all
        for name, run in (("ours", ours), ("by layers", by_layers), ("bare loop", bare), ("TRL SFTTrainer", trl)):
            seconds = run(*material_)
            if seconds is not None:
                times[name].append(seconds)
    best = {name: min(t) for name, t in times.items() if t}
    for name, seconds in best.items():
        print(f"{name:15} {useful / seconds:8,.0f} useful tokens a second   ours is {seconds / best['ours']:.2f} x")
    overhead = run_overhead()
    print(f"overhead of a run after the first: {max(overhead):.2f} s (goal: at most 1 s)")
    print(f"two processes against one: {processes():.2f} x (goal: 1.8 x)")


if __name__ == "__main__":
    main()
