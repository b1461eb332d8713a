"""Scores of a reward model: a sequence classifier with one output, or a folder with a likelihood beside it."""

import functools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as hf_logging

from curate.errors import UserError
from curate.example import column, digest, render
from curate.progress import Progress
from curate.scoring.cache import Batch, Portions, Scores, cached_scores
from curate.scoring.likelihood import by_length, encode_joined, likelihood_batches, pad

Batches = Callable[[list[str], list[str]], Iterator[tuple[list[int], list[float]]]]
NO_SCORE = "the model's output is not a number"
# What a reward model of the hub gets as the prompt of a row: the bare request.
BARE = {"without_input": "{instruction}", "with_input": "{instruction}\n\n{input}"}


def filter_sft_data(
    prompts: list[str],
    responses: list[str],
    model_id: str = "OpenAssistant/reward-model-deberta-v3-large-v2",
    threshold: float = 1.5,
    *,
    template: str = "chapter",
    token_budget: int | None = None,
    device: str | None = None,
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

    Raises UserError (a ValueError) for lists of unequal length, items that are not strings, or a model that is unknown
    or has no single trained output.
    """
    for name, texts in (("prompts", prompts), ("responses", responses)):
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise UserError(f"{name} is of type {type(texts).__name__}: give a list of strings")
        for at, text in enumerate(texts):
            if not isinstance(text, str):
                raise UserError(f"{name}[{at}] is of type {type(text).__name__}: prompts and responses must be strings")
    if len(prompts) != len(responses):
        raise UserError(f"{len(prompts)} prompts but {len(responses)} responses: give one response for each prompt")
    if template not in ("chapter", "pair"):
        raise UserError(f"template={template!r}: choose 'chapter' or 'pair'")
    if not prompts:
        return []
    scores = _head_scores(model_id, prompts, responses, template, 512, None, token_budget, progress, device)
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
    cache: Path | None = None,
    token_budget: int | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Scores of a pool's rows under a sequence-classification model of the hub or of a Hugging Face folder."""
    return _head_scores(model_id, *texts(pool, BARE), template, 512, cache, token_budget, progress)


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


def texts(pool: Dataset, template: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """(prompts, responses) of a pool."""
    requests = zip(column(pool, "instruction"), column(pool, "input"), strict=True)
    return [render(template, instruction, extra) for instruction, extra in requests], column(pool, "output")


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
) -> Scores:
    def load() -> Batches:
        model, tokenizer = load_model(model_id, AutoModelForSequenceClassification)
        if model.config.num_labels != 1:
            raise UserError(f"model {model_id}: has {model.config.num_labels} outputs; choose a reward model, with one")
        where = device_of(device)
        most = budget(token_budget, where)
        return lambda some, replies: _head_batches(model, tokenizer, some, replies, template, max_length, most, where)

    return cached_by_model(model_id, f"head-{template}-{max_length}", prompts, responses, load, cache, progress)


def _likelihoods(
    model_id: str,
    prompts: Sequence[str],
    responses: Sequence[str],
    max_length: int,
    cache: Path | None,
    token_budget: int | None,
    progress: Progress | None,
) -> Scores:
    def load() -> Batches:
        model, tokenizer = load_causal(model_id)
        where = device_of(None)
        return functools.partial(
            likelihood_batches,
            model,
            tokenizer,
            max_length=max_length,
            token_budget=budget(token_budget, where),
            device=where,
        )

    return cached_by_model(model_id, f"likelihood-{max_length}", prompts, responses, load, cache, progress)


def cached_by_model(
    model_id: str,
    name: str,
    prompts: Sequence[str],
    responses: Sequence[str],
    load: Callable[[], Batches],
    cache: Path | None,
    progress: Progress | None,
) -> Scores:
    """Scores from the cache, or from what `load` returns, timed with all that they need: loading and tokenising too.

    `name` and the content of the model are the scorer's identity. What `load` returns maps prompts and responses to
    batches of (positions among them, scores).
    """

    def compute(portions: Portions) -> Iterator[Batch]:
        started = time.perf_counter()
        batches = load()
        for rows in portions:
            for some, values in batches([prompts[row] for row in rows], [responses[row] for row in rows]):
                now = time.perf_counter()
                reasons = {rows[at]: NO_SCORE for at, value in zip(some, values, strict=True) if math.isnan(value)}
                yield Batch([rows[at] for at in some], values, now - started, reasons)
                started = now

    pairs = list(zip(prompts, responses, strict=True))
    keys = [digest(prompt, response) for prompt, response in pairs]
    sizes = [len(prompt) + len(response) for prompt, response in pairs]
    identity = f"{name}-{model_identity(model_id)}" if cache else ""
    return cached_scores(cache, identity, keys, compute, sizes=sizes, progress=progress)


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
    texts: tuple[list[str], ...] = (list(prompts), list(responses))
    if template == "chapter":
        pairs = zip(prompts, responses, strict=True)
        texts = ([f"<|prompter|>{prompt}<|endoftext|><|assistant|>{reply}<|endoftext|>" for prompt, reply in pairs],)
    made = tokenizer(*texts, truncation=True, max_length=max_length)
    return made["input_ids"], made.get("token_type_ids")


def device_of(device: str | None) -> str:
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def budget(token_budget: int | None, device: str) -> int:
    return token_budget or (512 if device == "cpu" else 16_384)


def model_identity(model_id: str) -> str:
    """Hash of a folder's files, or the commit of a model on the hub."""
    folder = Path(model_id)
    if not folder.is_dir():
        return f"{model_id.replace('/', '--')}-{_config(model_id)._commit_hash}"
    hashed = blake2b(digest_size=8)
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        hashed.update(f"{path.name}\x1f{path.stat().st_size}\x1f".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                hashed.update(block)
    return hashed.hexdigest()


def _config(model_id: str) -> Any:
    try:
        return AutoConfig.from_pretrained(model_id, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _unusable(model_id, error) from None


def load_model(model_id: str, kind: Any) -> tuple[Any, Any]:
    """(model in fp32, tokenizer). Safetensors, else pickles read as weights only; never a model's own code."""
    _config(model_id)
    with _quiet():
        model, tokenizer, info = _read(model_id, kind)
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise UserError(f"model {model_id}: has no trained weights for {missing}; name a model tuned for this task")
    return model, tokenizer


def load_causal(model_id: str) -> tuple[Any, Any]:
    """(causal language model, tokenizer)."""
    return load_model(model_id, AutoModelForCausalLM)


def _read(model_id: str, kind: Any) -> tuple[Any, Any, dict[str, Any]]:
    options: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_id, trust_remote_code=False)
        try:
            model, info = kind.from_pretrained(model_id, use_safetensors=True, **options)
        except OSError:
            model, info = kind.from_pretrained(model_id, use_safetensors=False, weights_only=True, **options)
            print(f"{model_id} has no safetensors: its pickled weights were read as weights only", file=sys.stderr)
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise _unusable(model_id, error) from None
    return model, tokenizer, info


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar and no table from transformers while weights are read; what is wrong with them, we say."""
    bar, verbosity = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity_error()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bar:
            hf_logging.enable_progress_bar()


def _unusable(model_id: str, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
    return UserError(f"model {model_id}: cannot be loaded ({reason}); name a Hugging Face folder or a model of the hub")
