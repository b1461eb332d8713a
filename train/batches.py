"""Rows to batches: prompt and response tokenised apart, labels on the response only, padding on the right."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from . import fused, unpadded

IGNORED = -100


@dataclass(frozen=True)
class Row:
    """One training example: the rendered prompt and the response that carries the loss."""

    prompt: str
    response: str


def opening(tokenizer: Any) -> list[int]:
    """The start token where the tokeniser puts one before every text, as Llama's do, else nothing."""
    start = tokenizer.bos_token_id
    return [start] if start is not None and tokenizer("")["input_ids"][:1] == [start] else []


def encode(tokenizer: Any, rows: Sequence[Row], max_length: int) -> list[dict[str, list[int]]]:
    """Token ids and labels of each row: opening + prompt + response + end, cut at `max_length` tokens from the right.

    The prompt is tokenised apart from the response, so that no token spans the border and training, scoring and
    generation see the same ids. A prompt that leaves no room for its response is cut from the left instead.
    """
    prompts = tokenizer([r.prompt for r in rows], add_special_tokens=False)["input_ids"] if rows else []
    responses = tokenizer([r.response for r in rows], add_special_tokens=False)["input_ids"] if rows else []
    start = opening(tokenizer)
    max_length -= len(start)
    encoded = []
    for prompt, response in zip(prompts, responses, strict=True):
        response = [*response, tokenizer.eos_token_id]
        room = max(max_length - len(prompt), min(len(response), max_length // 2))
        response = response[:room]
        prompt = [*start, *prompt[max(0, len(prompt) + len(response) - max_length) :]]
        encoded.append({"input_ids": [*prompt, *response], "labels": [IGNORED] * len(prompt) + response})
    return encoded


def collate(encoded: Sequence[dict[str, list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """Padded tensors (rows, longest): input_ids, attention_mask, labels."""
    lengths = np.array([len(e["input_ids"]) for e in encoded])
    real = np.arange(lengths.max()) < lengths[:, None]

    def padded(name: str, filler: int) -> torch.Tensor:  # at once: a list of lists takes torch four times as long
        values = np.full(real.shape, filler, np.int64)
        values[real] = np.fromiter(chain.from_iterable(e[name] for e in encoded), np.int64)
        return torch.from_numpy(values)

    mask = torch.from_numpy(real.astype(np.int64))
    return {"input_ids": padded("input_ids", pad), "attention_mask": mask, "labels": padded("labels", IGNORED)}


def response_logits(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (positions, vocabulary) and targets (positions,) where a label stands, rows one after another.

    Only these positions are projected to the vocabulary: with 49,000 entries the projection of whole prompts costs
    as much as a fifth of the model. Models that rescale their logits go through their own forward pass.
    """
    labels = batch["labels"][:, 1:]
    carries = labels != IGNORED
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    rescales = any(getattr(inner.config, k, None) for k in ("final_logit_softcapping", "logit_scale", "logits_scaling"))
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    if rescales:
        return model(**inputs, use_cache=False).logits[:, :-1][carries], labels[carries]
    decoder, head = inner.get_decoder(), inner.get_output_embeddings()
    in_one = fused.possible(decoder, longest=batch["labels"].shape[1])
    if in_one or (unpadded.possible(inner) and not inputs["attention_mask"].all()):
        at = inputs["attention_mask"].flatten().nonzero()[:, 0]
        carrying = functional.pad(carries, (0, 1)).flatten()[at].nonzero()[:, 0]
        if in_one:
            return head(fused.hidden(decoder, inputs["input_ids"], at, carrying)), labels[carries]
        hidden = unpadded.hidden(decoder, inputs["input_ids"], at)
        return head(hidden.index_select(0, carrying)), labels[carries]
    hidden = decoder(**inputs, use_cache=False).last_hidden_state
    return head(hidden[:, :-1][carries]), labels[carries]


def response_loss(model: Any, batch: dict[str, torch.Tensor], items: torch.Tensor | int | None = None) -> torch.Tensor:
    """Cross-entropy in nats over the response tokens: their mean, or their sum over `items` (completion-only loss).

    `items` is the number of response tokens of the whole optimiser step when this batch is a part of it.
    """
    logits, targets = response_logits(model, batch)
    if items is None:
        return functional.cross_entropy(logits.float(), targets)
    return functional.cross_entropy(logits.float(), targets, reduction="sum") / items
