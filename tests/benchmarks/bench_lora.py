"""Speed of the LoRA loop on a CPU:  python tests/benchmarks/bench_lora.py [--steps 4] [--threads 2]

Prints useful tokens (padding not counted) a second of our loop with one row a micro-batch, with two of four, and with
all eight rows at once (without padding: train/unpadded.py), of a loop as one writes it first, and of TRL's SFTTrainer
(extra `bench`); and what share of the ceiling each is. Last, our loop in bfloat16 autocast, whose products may pass the
ceiling, which is that of float32: two multiply-adds for each weight that a token meets, its output and the gradient of
its input (a frozen weight has none of its own), at the measured peak of this machine's matrix products; the vocabulary
is met only where a label stands. The model has the shape of SmolLM2-135M and random weights, which do not matter to
speed; the rows have lengths like Alpaca's. With one thread seconds are those of the processor, with more those of the
clock: then nothing else may run on the machine. With a neighbour the ratios are only a hint in either case.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from train.batches import IGNORED, Row, collate, encode
from train.config import LoraConfig, TrainingConfig
from train.finetune import finetune
from train.models import with_lora, word_tokenizer
from train.unpadded import where_possible

VOCABULARY, WIDTH, LAYERS, MLP, KEYS = 49_152, 576, 30, 1_536, 192
BATCH = 8
clock = time.process_time  # of all threads together, so that with several of them `main` takes the clock on the wall
LORA = LoraConfig(r=16, alpha=32)


def tokenizer():
    return word_tokenizer(["<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(VOCABULARY - 3))])


def new_model(tokens):
    torch.manual_seed(0)
    shape = {"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True, "pad_token_id": 0}
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "intermediate_size": MLP}
    config = LlamaConfig(vocab_size=VOCABULARY, eos_token_id=1, **sizes, **shape)
    return with_lora(where_possible(LlamaForCausalLM(config)), tokens, LORA, None, seed=0)


def some_rows(n: int) -> list[Row]:
    """Prompts of 40 to 70 tokens, responses of 60 in the median, at most 190."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(4.0, 0.8, n), 4, 190).astype(int)

    def text(count):
        return " ".join(f"w{i}" for i in rng.integers(0, VOCABULARY - 3, count))

    return [Row(text(rng.integers(40, 70)), text(length)) for length in lengths]


def ours(tokens, rows: list[Row], steps: int, accumulate: int, bf16: bool = False) -> float:
    """Useful tokens a second from the end of the first step on."""
    settings = {"batch_size": BATCH, "accumulate": accumulate, "lr": 5e-4, "warmup": 1, "max_length": 256}
    training = TrainingConfig(steps=steps + 1, points=[1], bf16=bf16, **settings)
    at: list[tuple[float, int]] = []
    finetune(new_model(tokens), tokens, rows, training, 0, lambda _, point: at.append((clock(), point.tokens)))
    return (at[-1][1] - at[0][1]) / (at[-1][0] - at[0][0])


def naive(tokens, rows: list[Row], steps: int) -> float:
    """Padded batches, the model's own loss over the whole vocabulary at every position."""
    model, encoded = new_model(tokens).train(), encode(tokens, rows, 256)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 5e-4, weight_decay=0.0)
    started = 0.0
    for step in range(steps + 1):
        batch = collate(encoded[step * BATCH : (step + 1) * BATCH], 0)
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        started = started or clock()  # the first step waits for what is loaded late
    return sum(len(e["input_ids"]) for e in encoded[BATCH:]) / (clock() - started)


def trl(tokens, rows: list[Row], steps: int) -> float | None:
    """SFTTrainer with what a CPU needs switched off: bf16, gradient checkpointing, logging."""
    try:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer
    except ImportError:
        return None
    from transformers import TrainerCallback

    at: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            at.append(clock())

    data = Dataset.from_dict({"prompt": [r.prompt for r in rows], "completion": [f" {r.response}" for r in rows]})
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder, max_steps=steps + 1, per_device_train_batch_size=BATCH, learning_rate=5e-4, bf16=False,
            gradient_checkpointing=False, report_to="none", use_cpu=True, save_strategy="no", logging_strategy="no",
            disable_tqdm=True, max_length=256, completion_only_loss=True, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = SFTTrainer(
            model=new_model(tokens), args=settings, train_dataset=data, processing_class=tokens, callbacks=[Clock()]
        )
        trainer.train()
    # its own order of the rows, so that the tokens of a step are taken at their mean: many steps, or a hint only
    return steps * BATCH * float(np.mean([len(e["input_ids"]) for e in encode(tokens, rows, 256)])) / (at[-1] - at[0])


def peak() -> float:
    """Multiply-adds a second of a product in the model's shapes: the best of five."""
    a, b = torch.randn(512, WIDTH), torch.randn(WIDTH, MLP)
    best = 0.0
    for _ in range(5):
        began = clock()
        for _ in range(40):
            a @ b
        best = max(best, 40 * 512 * WIDTH * MLP / (clock() - began))
    return best


def ceiling(encoded: list[dict[str, list[int]]]) -> float:
    """Useful tokens a second, were nothing but the frozen weights' arithmetic done, at the peak."""
    weights = LAYERS * (2 * WIDTH * WIDTH + 2 * WIDTH * KEYS + 3 * WIDTH * MLP)
    useful = sum(len(e["input_ids"]) for e in encoded)
    labels = sum(label != IGNORED for e in encoded for label in e["labels"])
    return useful * peak() / (2 * (weights * useful + VOCABULARY * WIDTH * labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4, help="steps that are timed, of eight rows each")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.threads > 1:
        global clock
        clock = time.perf_counter
    tokens, rows = tokenizer(), some_rows((asked.steps + 1) * BATCH)
    encoded = encode(tokens, rows, 256)
    loops = {
        "ours, one row at a time": lambda: ours(tokens, rows, asked.steps, BATCH),
        "ours, four rows at a time": lambda: ours(tokens, rows, asked.steps, 2),
        "ours, eight rows at a time": lambda: ours(tokens, rows, asked.steps, 1),
        "naive loop": lambda: naive(tokens, rows, asked.steps),
        "TRL SFTTrainer": lambda: trl(tokens, rows, asked.steps),
        "eight rows in bfloat16": lambda: ours(tokens, rows, asked.steps, 1, bf16=True),
    }
    most = ceiling(encoded)
    print(f"{'ceiling':26} {most:7,.0f} useful tokens a second on {asked.threads} threads")
    speeds: dict[str, float] = {}
    for name, run in loops.items():
        if (speed := run()) is None:
            print(f"{name:26} not installed: pip install -e '.[bench]'")
            continue
        speeds[name] = speed
        against = f"   {speeds[name] / speeds['naive loop']:.2f} x the naive loop" if "naive loop" in speeds else ""
        print(f"{name:26} {speeds[name]:7,.0f} useful tokens a second   {speeds[name] / most:4.0%} of it{against}")
    best = max(speed for name, speed in speeds.items() if name.startswith("ours"))
    print(f"ours is {best / speeds['naive loop']:.2f} x the naive loop (goal: 1.3 x, or 85 % of the ceiling)")


if __name__ == "__main__":
    main()
