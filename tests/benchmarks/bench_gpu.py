"""Speed and memory of fine-tuning on a GPU:  python tests/benchmarks/bench_gpu.py [--only llama2_7b] [--steps 3]

For every model of conf/model/ that is loaded from the hub, and for Llama-2-7B once more with all its weights: useful
tokens (padding not counted) a second, the largest memory, and what a run on all of Alpaca for three epochs takes at
this speed (17 million tokens). Weights are random in the models' real shapes, which does not matter to speed, so that
nothing is downloaded; adapters, precision, recomputed activations, 128 rows a step and how many of them go through the
model at once are those of the configs. Rows have lengths like Alpaca's. The obvious alternative is the same loop with
every row as long as a row may be, as a script with a fixed length pads it: the ratio is printed. Share of peak: 2
multiply-adds a weight and token forward, 2 for the gradient of the input, 2 more for the gradient of a weight that is
trained, 2 where activations are computed again, against this card's bfloat16 matrix product, measured first.
"""

import argparse
import gc
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from transformers import AutoConfig, AutoModelForCausalLM

from experiments.config import Config, validate
from experiments.run import CONF
from tests.miniatures import MINIATURES
from train.batches import Row
from train.finetune import finetune
from train.models import attention_here, with_lora, word_tokenizer
from train.unpadded import where_possible

# hidden, layers, MLP, vocabulary, heads, key heads: their config.json on the hub
SHAPES = {
    "smollm2_135m": (576, 30, 1_536, 49_152, 9, 3),
    "smollm2_360m": (960, 32, 2_560, 49_152, 15, 5),
    "qwen25_05b": (896, 24, 4_864, 151_936, 14, 2),
    "llama32_1b": (2_048, 16, 8_192, 128_256, 32, 8),
    "llama2_7b": (4_096, 32, 11_008, 32_000, 32, 32),
    "llama31_8b": (4_096, 32, 14_336, 128_256, 32, 8),
}
WHOLE = "llama2_7b, all weights"
ALPACA_TOKENS = 3 * 52_002 * 111  # three epochs at the 111 tokens that a row has in the mean with its prompt
NAMES = ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size", "num_attention_heads")


def composed(name: str) -> Config:
    """The config as a user would run it; AlpaGasus' own setting for all weights."""
    overrides = ["experiment=alpaca_gpu", f"model={name}", "data.path=unused"]
    if name == WHOLE:
        overrides = ["experiment=alpagasus_7b", "data.path=unused"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return validate(compose("config", overrides))


def new_model(name: str, config: Config, tokens):
    """Random weights in the real shape, on the GPU, with adapters where the config has them."""
    of = name.partition(",")[0]
    keys = {**MINIATURES[of], **dict(zip((*NAMES, "num_key_value_heads"), SHAPES[of], strict=True))}
    settings = AutoConfig.for_model(**keys, max_position_embeddings=4_096, eos_token_id=1, pad_token_id=0)
    attention = attention_here(config.model.attention)
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(
            settings, dtype=getattr(torch, config.model.dtype), attn_implementation=attention
        )
    if config.model.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model = where_possible(model)
    return with_lora(model, tokens, config.model.lora, None, seed=0) if config.model.lora else model


def some_rows(n: int, longest: int, padded: bool) -> list[Row]:
    """Prompts of 38 to 67 tokens, responses of 40 in the median; or every row as long as a row may be."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(3.7, 0.8, n), 2, longest - 68).astype(int)
    prompts = rng.integers(38, 68, n)
    if padded:
        lengths = longest - 1 - prompts
    words = rng.integers(0, 30_000, (n, longest))
    texts = [(w[:p], w[p : p + r]) for w, p, r in zip(words, prompts, lengths, strict=True)]
    return [Row(" ".join(f"w{i}" for i in p), " ".join(f"w{i}" for i in r)) for p, r in texts]


def speed(name: str, steps: int, padded: bool) -> tuple[float, float, float]:
    """Tokens a second from the end of the first step on, GiB at most, floating-point operations a token."""
    config = composed(name)
    vocabulary = SHAPES[name.partition(",")[0]][3]
    tokens = word_tokenizer(["<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(vocabulary - 3))])
    training = config.training.model_copy(update={"epochs": None, "steps": steps + 1, "points": [1]})
    model = new_model(name, config, tokens)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    again = 2 if config.model.checkpointing else 0
    rows = some_rows((steps + 1) * training.batch_size, training.max_length, padded)
    at: list[tuple[float, int]] = []

    def note(_, point) -> None:
        torch.cuda.synchronize()
        at.append((time.perf_counter(), point.tokens))

    torch.cuda.reset_peak_memory_stats()
    finetune(model, tokens, rows, training, 0, note)
    memory = torch.cuda.max_memory_allocated() / 2**30
    del model
    gc.collect()
    torch.cuda.empty_cache()
    return (at[-1][1] - at[0][1]) / (at[-1][0] - at[0][0]), memory, frozen * (4 + again) + trained * (6 + again)


def peak() -> float:
    """Operations a second of a bfloat16 product of 8,192 squared: the best of five times ten."""
    a, b = (torch.randn(8_192, 8_192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(6):  # the first one warms up
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(10):
            a @ b
        torch.cuda.synchronize()
        best = max(best, 10 * 2 * 8_192**3 / (time.perf_counter() - began))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[*SHAPES, WHOLE], help="names of conf/model/")
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed, of 128 rows each")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU here: nothing to measure")
    most = peak()
    print(
        f"{torch.cuda.get_device_name()}: {most / 1e12:.0f} TFLOP/s in bfloat16, torch {torch.__version__}", flush=True
    )
    print(
        f"{'':24} {'tokens/s':>9} {'padded':>9} {'ratio':>6} {'of peak':>8} {'GiB':>6} {'hours a run':>12}", flush=True
    )
    for name in asked.only:
        try:
            tokens, memory, operations = speed(name, asked.steps, padded=False)
        except torch.cuda.OutOfMemoryError as error:
            print(f"{name:24} does not fit: {str(error).split('.')[0]}", flush=True)
            continue
        try:  # useful tokens are those of the rows as they are: a padded row carries as many
            useful = tokens / speed(name, 1, padded=True)[0]
            mean = np.mean([len(r.prompt.split()) + len(r.response.split()) + 1 for r in some_rows(999, 512, False)])
            ratio = useful * 512 / mean
        except torch.cuda.OutOfMemoryError:
            ratio = float("nan")
        print(
            f"{name:24} {tokens:9,.0f} {tokens / ratio:9,.0f} {ratio:6.1f} {operations * tokens / most:8.0%}"
            f" {memory:6.1f} {ALPACA_TOKENS / tokens / 3600:12.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
