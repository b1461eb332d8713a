"""One forward pass that says all: likelihood of the gold answer, and what greedy decoding would have answered.

Greedy decoding gives exactly the gold tokens if and only if every gold token is the most likely one after the gold
tokens before it; so exact match needs no generation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from train.batches import IGNORED, Row, collate, encode, response_logits


@dataclass(frozen=True)
class Question:
    """A rendered prompt, the gold answer, and the tokens of which one must follow it (empty: the end of the text).

    `given` is the part of the answer that is format: exact match free of format asks for the rest after it.
    """

    prompt: str
    answer: str
    stop: tuple[str, ...] = ()
    given: str = ""


@dataclass(frozen=True)
class Answers:
    """Per question, all of shape (questions,): exact match, exact match after the format, nats and answer tokens, and
    how many of these are the most likely ones after what stands before them (`hits`).

    Of the predictive distribution, where asked for: `entropy` is its entropy in nats, the mean over the answer's value
    tokens (those after the format and before the end), `entropy_first` at the first of them, `top_first` the
    probability of the likeliest token there.
    """

    em: np.ndarray
    em_format_free: np.ndarray
    nats: np.ndarray
    tokens: np.ndarray
    hits: np.ndarray
    entropy: np.ndarray | None = None
    entropy_first: np.ndarray | None = None
    top_first: np.ndarray | None = None


@torch.inference_mode()
def answer(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    *,
    max_length: int,
    token_budget: int,
    predictive: bool = False,
) -> Answers:
    """Ask all questions, longest together, at most `token_budget` padded tokens a pass.

    Likelihood is over the answer's tokens, with the end of text where `stop` is empty. `predictive` also looks at the
    whole distribution over the vocabulary at the value tokens, in the same pass.
    """
    device = next(model.parameters()).device
    n = len(questions)
    asked = _asked(tokenizer, tuple(questions), max_length, token_budget)
    em, free = np.zeros(n, bool), np.zeros(n, bool)
    nats, tokens, hits = np.zeros(n), np.zeros(n, int), np.zeros(n, int)
    entropy, entropy_first, top_first = (np.zeros(n) if predictive else None for _ in range(3))
    for one in asked.passes:
        batch = {k: v.to(device) for k, v in one.batch.items()}
        logits, targets = response_logits(model, batch)
        losses = functional.cross_entropy(logits.float(), targets, reduction="none")
        best = logits.argmax(-1)
        # plain lists: slicing a tensor for every answer would take longer than the forward pass
        said, wanted, cost = best.tolist(), targets.tolist(), losses.double().tolist()
        start, valued = 0, []
        for i, count in zip(one.indices, one.counts, strict=True):
            question, end = questions[i], start + count
            right = [a == b for a, b in zip(said[start:end], wanted[start:end], strict=True)]
            ended = said[end - 1] in asked.stops[question.stop] if question.stop else right[-1]
            counted = cost[start : end - 1] if question.stop else cost[start:end]
            em[i] = all(right[:-1]) and ended
            free[i] = all(right[asked.formats[question.given] : -1])
            nats[i], tokens[i], hits[i] = sum(counted), len(counted), sum(right[: len(counted)])
            # of an answer that is all format, its last token
            first = start + min(asked.formats[question.given], max(0, count - 2))
            valued.append((first, max(end - 1, first + 1)))
            start = end
        if entropy is not None and entropy_first is not None and top_first is not None:
            found = _predictive(logits, valued)
            entropy[one.indices], entropy_first[one.indices], top_first[one.indices] = found
    return Answers(em, free, nats, tokens, hits, entropy, entropy_first, top_first)


def _predictive(logits: torch.Tensor, spans: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean entropy over each span of positions, entropy at its first and the largest probability there, (spans,)."""
    rows = torch.tensor([row for start, end in spans for row in range(start, end)], device=logits.device)
    logs = logits[rows].float().log_softmax(-1)
    chances = logs.exp()
    # x log x is 0 at 0, where a masked logit would make it not a number
    entropy = -(chances * logs.clamp_min(-1e4)).sum(-1).double().cpu().numpy()
    sizes = np.array([end - start for start, end in spans])
    firsts = np.cumsum(sizes) - sizes
    top = chances[torch.from_numpy(firsts).to(logits.device)].amax(-1).double().cpu().numpy()
    return np.add.reduceat(entropy, firsts) / sizes, entropy[firsts], top


@dataclass(frozen=True)
class _Pass:
    """Which questions go through the model together, their padded batch, and how many answer tokens each has."""

    indices: list[int]
    batch: dict[str, torch.Tensor]
    counts: list[int]


@dataclass(frozen=True)
class _Asked:
    passes: list[_Pass]
    stops: dict[tuple[str, ...], list[int]]  # token ids
    formats: dict[str, int]  # tokens of `given`


@lru_cache(maxsize=32)  # a curve asks the same questions at each of its points
def _asked(tokenizer: Any, questions: tuple[Question, ...], max_length: int, token_budget: int) -> _Asked:
    """All that answering takes and no model changes."""
    encoded = encode(tokenizer, [Row(q.prompt, q.answer) for q in questions], max_length)
    stops = {s: tokenizer.convert_tokens_to_ids(list(s)) for s in {q.stop for q in questions}}
    formats = {
        g: len(tokenizer(g, add_special_tokens=False)["input_ids"]) if g else 0 for g in {q.given for q in questions}
    }
    order = sorted(range(len(questions)), key=lambda i: (len(encoded[i]["input_ids"]), i))
    passes = []
    for indices in _together(order, encoded, token_budget):
        batch = collate([encoded[i] for i in indices], tokenizer.pad_token_id)
        passes.append(_Pass(indices, batch, (batch["labels"][:, 1:] != IGNORED).sum(1).tolist()))
    return _Asked(passes, stops, formats)


def _together(order: list[int], encoded: list[dict[str, list[int]]], token_budget: int):
    batch: list[int] = []
    for i in order:  # ascending length, so the newest row is the widest
        if batch and (len(batch) + 1) * len(encoded[i]["input_ids"]) > token_budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
