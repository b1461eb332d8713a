"""How fast `score_pairs` is against the obvious alternatives, in one process: the best of three rounds, as ratios.

python tests/benchmarks/bench_scoring.py [model] [pairs] [data]

`model` is a sequence-classification model (a hub id or folder; default: a random DeBERTa-v2 of 6 layers, width 384),
`data` a file of instruction data (default: sentences whose lengths are spread as in Alpaca).
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    PreTrainedTokenizerFast,
)

from curate.example import load_pool
from curate.scoring.reward_model import score_pairs

ROUNDS = 3
TEXT = "<|prompter|>{}<|endoftext|><|assistant|>{}<|endoftext|>"


def random_model():
    words = ["[PAD]", "[UNK]", "<|prompter|>", "<|assistant|>", "<|endoftext|>", *(f"w{at}" for at in range(1000))]
    plain = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain.add_special_tokens(words[:5])
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=len(words),
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=6,
        intermediate_size=1536,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        type_vocab_size=0,
        position_biased_input=False,
        num_labels=1,
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]")
    return DebertaV2ForSequenceClassification(config).eval(), tokenizer


def random_pairs(count: int) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(0)

    def text(mean: float, spread: float) -> str:
        words = int(np.clip(rng.lognormal(np.log(mean), spread), 1, 400))
        return " ".join(f"w{at}" for at in rng.integers(0, 1000, words))

    return [text(15, 0.6) for _ in range(count)], [text(40, 1.0) for _ in range(count)]


@torch.inference_mode()
def one_by_one(model, tokenizer, texts: list[str]) -> np.ndarray:
    made = (tokenizer(text, return_tensors="pt", truncation=True, max_length=512) for text in texts)
    return np.array([model(**inputs).logits[0, 0].item() for inputs in made])


@torch.inference_mode()
def in_order_of_arrival(model, tokenizer, texts: list[str], size: int = 16) -> np.ndarray:
    scores = []
    for start in range(0, len(texts), size):
        batch = texts[start : start + size]
        inputs = tokenizer(batch, return_tensors="pt", truncation=True, max_length=512, padding=True)
        scores += model(**inputs).logits[:, 0].tolist()
    return np.array(scores)


def main() -> None:
    given = dict(enumerate(sys.argv))
    name, count, data = given.get(1), int(given.get(2, 200)), given.get(3)
    if name:
        model, tokenizer = AutoModelForSequenceClassification.from_pretrained(name), AutoTokenizer.from_pretrained(name)
        model.eval()
    else:
        model, tokenizer = random_model()
    if data:
        rows = load_pool(data, rows=count).pool.to_list()
        prompts = [f"{row['instruction']}\n\n{row['input']}".strip() for row in rows]
        responses = [row["output"] for row in rows]
    else:
        prompts, responses = random_pairs(count)
    texts = [TEXT.format(*pair) for pair in zip(prompts, responses, strict=True)]
    tokens = sum(map(len, tokenizer(texts, truncation=True, max_length=512)["input_ids"]))
    print(f"{count} pairs, {tokens} tokens, {torch.get_num_threads()} threads")

    ways: dict[str, Callable[[], np.ndarray]] = {
        "one by one": lambda: one_by_one(model, tokenizer, texts),
        "in order of arrival, 16 a batch": lambda: in_order_of_arrival(model, tokenizer, texts),
    }
    for budget in (256, 512, 1024, 4096):
        ways[f"score_pairs, {budget} tokens"] = lambda budget=budget: score_pairs(  # type: ignore[misc]
            model, tokenizer, prompts, responses, template="chapter", token_budget=budget
        )
    one_by_one(model, tokenizer, texts[:10])  # warm up
    best, scores = dict.fromkeys(ways, float("inf")), {}
    for _ in range(ROUNDS):  # taken in turns, so that a busy moment of the machine does not fall on one way alone
        for way, run in ways.items():
            started = time.perf_counter()
            scores[way] = run()
            best[way] = min(best[way], time.perf_counter() - started)
    base = "one by one"
    for way, seconds in best.items():
        speed = f"{seconds:6.1f} s  {tokens / seconds:7.0f} tokens/s  {best[base] / seconds:5.2f}x"
        print(f"{way:32} {speed}  largest difference {np.abs(scores[way] - scores[base]).max():.1e}")


if __name__ == "__main__":
    main()
