"""What a tuned model says when it is let speak: length, style and diversity of answers of its own.

Exact match needs no generation (`teacher_forced`), and sees nothing of what follows an answer; this does.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import torch

from curate.diversity import entropy, text_measures
from curate.microworld import OTHER, STYLES, style_of
from train.batches import opening

from .build import Suite
from .config import GenerateConfig
from .teacher_forced import Question

SUITE = "output"  # the suite of a record that holds these metrics
LONG = 3  # an answer is verbose from more than so many times the words of the plain one
WORDS_A_SAMPLE = 4  # distinct-n is taken on so many words for every sample: the shortest answer of the world has them


@dataclass(frozen=True)
class Outputs:
    """`metrics` of the suite `output`, as in a record; `texts` one dict per prompt: item, prompt, greedy, samples."""

    metrics: dict[str, dict[str, float]]
    texts: list[dict[str, Any]]


def speak(model: Any, tokenizer: Any, suite: Suite, config: GenerateConfig, seed: int) -> Outputs:
    """Answers to the suite's first `config.prompts` questions: the greedy one, and `config.samples` drawn ones each."""
    questions = suite.questions[: config.prompts]
    prompts = [q.prompt for q in questions]
    greedy = generate(model, tokenizer, prompts, config, seed=None)
    drawn = generate(model, tokenizer, [p for p in prompts for _ in range(config.samples)], config, seed=seed)
    samples = [drawn[at : at + config.samples] for at in range(0, len(drawn), config.samples)]
    return Outputs(
        measure(questions, greedy, samples, seed),
        [
            {"item": i, "prompt": p, "greedy": g, "samples": s}
            for i, (p, g, s) in enumerate(zip(prompts, greedy, samples, strict=True))
        ],
    )


@torch.inference_mode()
def generate(
    model: Any, tokenizer: Any, prompts: Sequence[str], config: GenerateConfig, *, seed: int | None
) -> list[str]:
    """One continuation of each prompt up to the end of the text, at most `config.max_new_tokens` tokens.

    Greedy where `seed` is None; else drawn at `config.temperature` from the whole vocabulary, by the seed alone. Equal
    prompts are drawn apart. All are written side by side, padded on the left, with the keys and values kept.
    """
    device = next(model.parameters()).device
    if seed is None:
        return greedy_answers(model, tokenizer, prompts, config.max_new_tokens)
    drawn = {"do_sample": True, "temperature": config.temperature, "top_k": 0, "top_p": 1.0}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(zlib.crc32(f"generate {seed}".encode()))
        return _continued(model, tokenizer, prompts, config.max_new_tokens, drawn)


@torch.inference_mode()
def greedy_answers(model: Any, tokenizer: Any, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    """One greedy continuation of each prompt up to the end of the text, at most `max_new_tokens` tokens."""
    return _continued(model, tokenizer, prompts, max_new_tokens, {"do_sample": False})


def _continued(
    model: Any, tokenizer: Any, prompts: Sequence[str], max_new_tokens: int, how: dict[str, Any]
) -> list[str]:
    device = next(model.parameters()).device
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    start = opening(tokenizer)
    rows = [[*start, *row] for row in tokenizer(list(prompts), add_special_tokens=False)["input_ids"]]
    batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
    tokenizer.padding_side = side
    ids = model.generate(
        input_ids=batch["input_ids"].to(device),
        attention_mask=batch["attention_mask"].to(device),
        max_new_tokens=max_new_tokens,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **how,
    )
    written = ids[:, batch["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]


def measure(
    questions: Sequence[Question], greedy: Sequence[str], samples: Sequence[Sequence[str]], seed: int
) -> dict[str, dict[str, float]]:
    """{metric: {value, n}} of greedy answers, one a question, and of several drawn ones.

    Of the drawn answers, and with `greedy_` before the name of the greedy ones: words (mean), verbose (share of more
    than `LONG` times the words of the gold answer with its full stop), share_STYLE, style_entropy (bits), right (share
    that gives the gold answer, and then one of the marks that may follow it).

    Of the drawn answers alone: distinct_1 and distinct_2 (Li et al. 2016, arXiv:1510.03055) on the first
    `WORDS_A_SAMPLE` words an answer, of all answers in an order that is drawn from `seed`, so that longer answers are
    not less diverse by their length; and self_similarity, the share of word pairs that two answers to one question have
    in common (Jaccard), mean over pairs of answers and then over questions.
    """
    drawn = [text for texts in samples for text in texts]
    asked = [q for q, texts in zip(questions, samples, strict=True) for _ in texts]
    found = {**_looks(asked, drawn), **{f"greedy_{name}": v for name, v in _looks(questions, greedy).items()}}
    order = np.random.default_rng([seed, zlib.crc32(b"distinct")]).permutation(len(drawn))
    words = [word for at in order for word in drawn[at].split()][: WORDS_A_SAMPLE * len(drawn)]
    varied = text_measures(words)
    for name in ("distinct-1", "distinct-2"):
        found[name.replace("-", "_")] = varied.get(name, 0.0)
    found["self_similarity"] = float(np.mean([_similarity(texts) for texts in samples]))
    return {
        name: {"value": value, "n": len(greedy) if name.startswith("greedy_") else len(drawn)}
        for name, value in found.items()
    }


def _looks(questions: Sequence[Question], texts: Sequence[str]) -> dict[str, float]:
    words = np.array([len(text.split()) for text in texts])
    plain = np.array([len(q.answer.split()) + 1 for q in questions])
    styles = [style_of(text) for text in texts]
    names = (*STYLES, OTHER)
    return {
        "words": float(words.mean()),
        "verbose": float((words > LONG * plain).mean()),
        **{f"share_{name}": styles.count(name) / len(texts) for name in names},
        "style_entropy": entropy(np.array([names.index(style) for style in styles])),
        "right": float(np.mean([_right(q, text) for q, text in zip(questions, texts, strict=True)])),
    }


def _right(question: Question, text: str) -> bool:
    words, gold = text.split(), question.answer.split()
    return words[: len(gold)] == gold and words[len(gold) : len(gold) + 1] in [[mark] for mark in question.stop]


def _similarity(texts: Sequence[str]) -> float:
    pairs: list[set[tuple[str, str]]] = [set(pairwise(text.split())) for text in texts]
    shared = [len(a & b) / len(a | b) if a | b else 1.0 for a, b in combinations(pairs, 2)]
    return float(np.mean(shared))
