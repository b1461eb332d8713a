"""Scores of a reward model: a sequence classifier with one output, or a folder with a likelihood beside it."""

import functools
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification

from curate.errors import UserError
from curate.progress import Progress
from curate.scoring.cache import Scores
from curate.scoring.deberta import cached_positions
from curate.scoring.likelihood import by_length, encode_joined, likelihood_batches, pad
from curate.scoring.loading import BARE, Batches, budget, cached_by_model, device_of, load_causal, load_model, texts
from curate.scoring.onednn import onednn_linears

TEMPLATES = ("chapter", "pair", "chat")


def filter_sft_data(
    prompts: list[str],
    responses: list[str],
    model_id: str = "OpenAssistant/reward-model-deberta-v3-large-v2",
    threshold: float = 1.5,
    *,
    template: str = "chapter",
    token_budget: int | None = None,
    device: str | None = None,
    dtype: str = "float32",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Keep the pairs that a reward model scores at `threshold` or higher.

    Returns a dict `prompt, response, score` for each pair kept, in input order; the score is rounded to 3 places after
    the comparison. Scores equal those of one pair at a time in fp32 to 1e-5: batches are made by length, with at most
    `token_budget` tokens (None: 512 on a CPU, 16,384 on a GPU), and equal pairs are scored once. `device` None takes a
    GPU if there is one. `progress` is called with (pairs done, all pairs) after each batch.

    `template="chapter"` scores the text `<|prompter|>{prompt}<|endoftext|><|assistant|>{response}<|endoftext|>`,
    truncated at 512 tokens. The model cards of OpenAssistant's DeBERTa family encode prompt and response as a text
    pair instead, `tokenizer(prompt, response)`: that is `template="pair"`. The two give different scores.
    `template="chat"` is the model's own chat template. `dtype="bfloat16"` is for GPUs, and drifts.

    Raises UserError (a ValueError) for lists of unequal length, items that are not strings, or a model that is unknown
    or has no single trained output.
    """
    for name, given in (("prompts", prompts), ("responses", responses)):
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise UserError(f"{name} is of type {type(given).__name__}: give a list of strings")
        for at, text in enumerate(given):
            if not isinstance(text, str):
                raise UserError(f"{name}[{at}] is of type {type(text).__name__}: prompts and responses must be strings")
    if len(prompts) != len(responses):
        raise UserError(f"{len(prompts)} prompts but {len(responses)} responses: give one response for each prompt")
    if template not in TEMPLATES:
        raise UserError(f"template={template!r}: choose one of {', '.join(TEMPLATES)}")
    if not prompts:
        return []
    scores = _head_scores(model_id, prompts, responses, template, 512, None, token_budget, progress, device, dtype)
    return [
        {"prompt": prompt, "response": response, "score": round(score, 3)}
        for prompt, response, score in zip(prompts, responses, scores.values.tolist(), strict=True)
        if score >= threshold
    ]


def score_pairs(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    responses: Sequence[str],
    *,
    template: str,
    max_length: int = 512,
    token_budget: int = 512,
    device: str = "cpu",
    progress: Progress | None = None,
) -> np.ndarray:
    """(pairs,) float32: the model's score of each pair, equal to one-at-a-time scoring to 1e-5 in fp32.

    template "chapter" or "pair" as in `filter_sft_data`; "joined": the ids of prompt and response and an end token, as
    causal models are tuned.
    """
    values = np.empty(len(prompts), dtype=np.float32)
    done = 0
    for rows, some in _head_batches(model, tokenizer, prompts, responses, template, max_length, token_budget, device):
        values[rows] = some
        done += len(rows)
        if progress is not None:
            progress(done, len(prompts))
    return values


def score_model(
    model_id: str,
    pool: Dataset,
    *,
    template: str = "chapter",
    dtype: str = "float32",
    cache: Path | None = None,
    token_budget: int | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Scores of a pool's rows under a sequence-classification model of the hub or of a Hugging Face folder."""
    return _head_scores(model_id, *texts(pool, BARE), template, 512, cache, token_budget, progress, dtype=dtype)


def score_folder(
    folder: Path,
    pool: Dataset,
    *,
    features: Sequence[str] | None = None,
    cache: Path | None = None,
    token_budget: int | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Scores of a pool's rows under a reward model folder: `reward.json`, `head/` and perhaps `reference/`.

    features ["head"]: the head's score; ["likelihood"]: the mean log-likelihood of the response under the reference;
    both: their sum with the weights of reward.json; None: all that the folder has. The features are cached apart.
    """
    try:
        card = json.loads((folder / "reward.json").read_text(encoding="utf-8"))
        has, weights, template, max_length = (card[key] for key in ("features", "weights", "template", "max_length"))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"reward model {folder}: reward.json cannot be used ({error!r}); train it anew") from None
    features = features or has
    if not set(features) <= set(has):
        raise UserError(f"scorer.features={features}: {folder} has only {has}; choose among these")
    prompts, responses = texts(pool, template)
    parts: list[tuple[float, Scores]] = []
    for name in sorted(set(features)):
        part = (
            _head_scores(
                str(folder / "head"), prompts, responses, card.get("head_template", "joined"), max_length, cache,
                token_budget, progress,
            )
            if name == "head"
            else _likelihoods(str(folder / "reference"), prompts, responses, max_length, cache, token_budget, progress)
        )  # fmt: skip
        parts.append((weights[name], part))
    if len(parts) == 1:
        return parts[0][1]
    return Scores(
        np.sum([weight * part.values for weight, part in parts], axis=0),
        sum(part.seconds for _, part in parts),
        max(part.computed for _, part in parts),
    )


def _head_scores(
    model_id: str,
    prompts: Sequence[str],
    responses: Sequence[str],
    template: str,
    max_length: int,
    cache: Path | None,
    token_budget: int | None,
    progress: Progress | None,
    device: str | None = None,
    dtype: str = "float32",
) -> Scores:
    def load(held: ExitStack) -> Batches:
        model, tokenizer = load_model(model_id, AutoModelForSequenceClassification, dtype)
        if model.config.num_labels != 1:
            raise UserError(f"model {model_id}: has {model.config.num_labels} outputs; choose a reward model, with one")
        where = device_of(device)
        most = budget(token_budget, where)
        held.enter_context(_fast(model.to(where).eval()))  # for all portions of the rows, and not for each anew
        return lambda some, replies: _head_batches(model, tokenizer, some, replies, template, max_length, most, where)

    name = f"head-{template}-{max_length}" + ("" if dtype == "float32" else f"-{dtype}")
    return cached_by_model(model_id, name, prompts, responses, load, cache, progress)


def _likelihoods(
    model_id: str,
    prompts: Sequence[str],
    responses: Sequence[str],
    max_length: int,
    cache: Path | None,
    token_budget: int | None,
    progress: Progress | None,
) -> Scores:
    def load(held: ExitStack) -> Batches:
        model, tokenizer = load_causal(model_id)
        where = device_of(None)
        held.enter_context(onednn_linears(model.to(where).eval()))
        return functools.partial(
            likelihood_batches,
            model,
            tokenizer,
            max_length=max_length,
            token_budget=budget(token_budget, where),
            device=where,
        )

    return cached_by_model(model_id, f"likelihood-{max_length}", prompts, responses, load, cache, progress)


@contextmanager
def _fast(model: Any) -> Iterator[None]:
    with onednn_linears(model), cached_positions(model):
        yield


def _head_batches(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    responses: Sequence[str],
    template: str,
    max_length: int,
    token_budget: int,
    device: str,
) -> Iterator[tuple[list[int], list[float]]]:
    model.to(device).eval()
    ids, types = _encode(tokenizer, prompts, responses, template, max_length)
    filler = model.config.pad_token_id if model.config.pad_token_id is not None else tokenizer.pad_token_id
    if model.config.pad_token_id is None:
        token_budget = 1  # a decoder finds the end of a row by the padding token; without one it takes single rows only
    with _fast(model):
        for rows in by_length([len(row) for row in ids], token_budget):
            inputs = {
                "input_ids": pad([ids[row] for row in rows], filler or 0, device),
                "attention_mask": pad([[1] * len(ids[row]) for row in rows], 0, device),
            }
            if types is not None:
                inputs["token_type_ids"] = pad([types[row] for row in rows], 0, device)
            with torch.inference_mode():
                yield rows, model(**inputs).logits.float().squeeze(-1).tolist()


def _encode(
    tokenizer: Any, prompts: Sequence[str], responses: Sequence[str], template: str, max_length: int
) -> tuple[list[list[int]], list[list[int]] | None]:
    """Token ids of each pair, and token types if the tokenizer makes them."""
    if template == "joined":
        return [before + after for before, after in encode_joined(tokenizer, prompts, responses, max_length)], None
    if not prompts:
        return [], None
    pairs = list(zip(prompts, responses, strict=True))
    both: tuple[list[str], ...] = (list(prompts), list(responses))
    if template == "chapter":
        both = ([f"<|prompter|>{prompt}<|endoftext|><|assistant|>{reply}<|endoftext|>" for prompt, reply in pairs],)
    elif template == "chat":
        if not tokenizer.chat_template:
            raise UserError("template=chat: the model has no chat template of its own; choose chapter or pair")
        turns = [
            [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}] for prompt, reply in pairs
        ]
        both = (tokenizer.apply_chat_template(turns, tokenize=False),)
    # a chat template writes its special tokens itself
    made = tokenizer(*both, truncation=True, max_length=max_length, add_special_tokens=template != "chat")
    return made["input_ids"], made.get("token_type_ids")
