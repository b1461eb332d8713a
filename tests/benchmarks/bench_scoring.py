"""How fast a reward model scores, against the pair-by-pair loop of a model card, in one process.

python tests/benchmarks/bench_scoring.py [--data FILE] [--model FOLDER] [--pairs 96] [--threads 1] [--layers 12]
    [--clock wall|cpu]

The model is a random one of DeBERTa-v3-base's shape (12 layers, width 768; a small vocabulary, since looking up an
embedding costs nothing), the lengths are those of the file's first pairs, or spread like Alpaca's. Both ways score the
same token ids, taken in turns, the best of three rounds each. Useful arithmetic is what the scores need: no padding, no
projection of positions, and the last layer for the first token alone. The peak is that of a large product of matrices
in this process. `--clock cpu` takes the processor time of the process instead of the time on the wall: for one thread
on a machine that others use too.
"""

import argparse
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
)  # fmt: skip

from curate.example import load_pool
from curate.scoring.reward_model import score_pairs

ROUNDS = 3
TEXT = "<|prompter|>{}<|endoftext|><|assistant|>{}<|endoftext|>"


def random_model(layers: int):
    words = ["[PAD]", "[UNK]", "<|prompter|>", "<|assistant|>", "<|endoftext|>", *(f"w{at}" for at in range(1000))]
    plain = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain.add_special_tokens(words[:5])
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=len(words), hidden_size=768, num_hidden_layers=layers, num_attention_heads=12,
        intermediate_size=3072, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=256,
        norm_rel_ebd="layer_norm", share_att_key=True, type_vocab_size=0, position_biased_input=False, num_labels=1,
    )  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]")
    return DebertaV2ForSequenceClassification(config).eval(), tokenizer


def pairs_of(words: list[int]) -> tuple[list[str], list[str]]:
    """Prompts and responses of so many words together."""
    rng = np.random.default_rng(0)
    texts = [[f"w{at}" for at in rng.integers(0, 1000, count)] for count in words]
    return [" ".join(text[: len(text) // 4]) for text in texts], [" ".join(text[len(text) // 4 :]) for text in texts]


def like_alpaca(count: int) -> list[int]:
    """Words of prompt and response: a spread as in Alpaca, whose median row has some 60 tokens and longest ones 500."""
    rng = np.random.default_rng(0)
    return np.clip(rng.lognormal(np.log(62), 0.75, count), 8, 500).astype(int).tolist()


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


def peak(clock: Callable[[], float]) -> float:
    """Operations a second of the best of some large products of matrices."""
    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
    best = float("inf")
    for _ in range(8):
        started = clock()
        torch.mm(a, b)
        best = min(best, clock() - started)
    return 2 * 1536**3 / best


def useful(config, lengths: list[int]) -> float:
    """Operations that the scores need: the linear layers of every token, and four products of a pair of tokens. The
    last layer needs keys and values of every token, and all else of the first one only."""
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    square = 2 * width * width
    token, pair = 4 * square + 4 * width * inner, 4 * 2 * width
    inside = sum((layers - 1) * (n * token + n * n * pair) for n in lengths)
    return float(inside + sum(n * 2 * square + token - 2 * square + n * pair for n in lengths))


def compare(
    title: str,
    model,
    tokenizer,
    texts_of: tuple[list[str], list[str]],
    clock: Callable[[], float],
    everything: bool = False,
) -> None:
    prompts, responses = texts_of
    texts = [TEXT.format(*pair) for pair in zip(prompts, responses, strict=True)]
    lengths = [len(ids) for ids in tokenizer(texts, truncation=True, max_length=512)["input_ids"]]
    budgets = (256, 512, 1024) if everything else (512,)
    ways: dict[str, Callable[[], np.ndarray]] = {"one by one": lambda: one_by_one(model, tokenizer, texts)}
    if everything:
        ways["in order of arrival, 16 a batch"] = lambda: in_order_of_arrival(model, tokenizer, texts)
    for budget in budgets:
        ways[f"score_pairs, {budget} tokens"] = lambda budget=budget: score_pairs(  # type: ignore[misc]
            model, tokenizer, prompts, responses, template="chapter", token_budget=budget
        )
    best, scores, top = dict.fromkeys(ways, float("inf")), {}, 0.0
    for _ in range(ROUNDS):  # taken in turns, so that a busy moment of the machine does not fall on one way alone
        top = max(top, peak(clock))
        for way, run in ways.items():
            started = clock()
            scores[way] = run()
            best[way] = min(best[way], clock() - started)
    base = "one by one"
    print(f"{title}: {len(texts)} pairs, {sum(lengths)} tokens; peak {top / 1e9:.0f} Gflop/s")
    for way, seconds in best.items():
        share = useful(model.config, lengths) / seconds / top
        drift = np.abs(scores[way] - scores[base]).max()
        speed = f"{seconds:6.1f} s {sum(lengths) / seconds:7.0f} tokens/s {best[base] / seconds:5.2f}x"
        print(f"  {way:32} {speed}  {share:4.0%} of the peak  largest difference {drift:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--model")
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    given = parser.parse_args()
    clock = time.perf_counter if given.clock == "wall" else time.process_time
    torch.set_num_threads(given.threads)
    if given.model:
        model = AutoModelForSequenceClassification.from_pretrained(given.model).eval()
        tokenizer = AutoTokenizer.from_pretrained(given.model)
    else:
        model, tokenizer = random_model(given.layers)
    if given.data:
        rows = load_pool(given.data, rows=given.pairs).pool.to_list()
        # three words are some four tokens of a real tokenizer
        words = [round(4 / 3 * len(f"{r['instruction']} {r['input']} {r['output']}".split())) for r in rows]
    else:
        words = like_alpaca(given.pairs)
    shape = f"{model.config.num_hidden_layers} layers of width {model.config.hidden_size}"
    print(f"{given.clock} time, {given.threads} threads, {shape}")
    one_by_one(model, tokenizer, [TEXT.format("a", "b")] * 3)  # warm up
    compare("lengths like Alpaca's", model, tokenizer, pairs_of(words), clock, everything=True)
    few = max(4, given.pairs // 8)
    compare("one long among short", model, tokenizer, pairs_of([500, *[20] * (2 * few)]), clock)
    compare("all of 80", model, tokenizer, pairs_of([76] * (2 * few)), clock)
    compare("all of 512", model, tokenizer, pairs_of([508] * few), clock)


if __name__ == "__main__":
    main()
