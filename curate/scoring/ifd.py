"""Instruction-following difficulty and perplexity under any causal language model.

IFD (Li et al. 2023, arXiv:2308.12032, section 2.3) is the mean loss of the response given its prompt over the mean loss
of the response alone: near 1, the prompt does not help the model at all. High is "difficult" and, the paper says, worth
training on; at 1 or above prompt and response do not belong together, and the paper drops the row.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from curate.config import ScorerConfig
from curate.progress import Progress
from curate.scoring.cache import Scores
from curate.scoring.likelihood import likelihood_batches
from curate.scoring.loading import BARE, Batches, budget, cached_by_model, device_of, load_causal, texts
from curate.scoring.onednn import onednn_linears


def perplexity(
    pool: Dataset,
    model: str,
    config: ScorerConfig,
    *,
    template: Mapping[str, str] | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Scores:
    """(rows,) mean log-likelihood in nats of a response token given the prompt: -log perplexity, so more is better.

    `template` renders the prompt; None: the bare request.
    """
    prompts, responses = texts(pool, template or BARE)
    return cached_by_model(
        model,
        f"likelihood-{config.max_length}",
        prompts,
        responses,
        _loader(model, config, _likelihood),
        cache,
        progress,
    )


def ifd(
    pool: Dataset,
    model: str,
    config: ScorerConfig,
    *,
    template: Mapping[str, str] | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Scores:
    """(rows,) loss of the response given the prompt over its loss alone, over the same tokens: all but the first.

    Rows at `config.max_ifd` or above rank below all others, the nearest to it first: their score is less their IFD.
    The paper drops them; so does a selection that has enough others. A row whose response the model is certain of
    without the prompt has no score, and a reason.
    """
    prompts, responses = texts(pool, template or BARE)
    load = _loader(model, config, _ifd)
    found = cached_by_model(model, f"ifd-{config.max_length}", prompts, responses, load, cache, progress)
    sure = np.isinf(found.values)
    values = np.where(sure, np.nan, found.values)
    if config.max_ifd is not None:
        values = np.where(values >= config.max_ifd, -values, values)
    reasons = {int(row): "the model is certain of the response without the prompt" for row in np.flatnonzero(sure)}
    return Scores(values, found.seconds, found.computed, {**found.reasons, **reasons})


def _loader(model_id: str, config: ScorerConfig, measure: Any) -> Any:
    def load(held: ExitStack) -> Batches:
        model, tokenizer = load_causal(model_id)
        device = device_of(None)
        held.enter_context(onednn_linears(model.to(device).eval()))
        options: dict[str, Any] = {"max_length": config.max_length, "token_budget": budget(None, device)}
        return functools.partial(
            measure, functools.partial(likelihood_batches, model, tokenizer, device=device, **options)
        )

    return load


def _likelihood(batches: Any, prompts: list[str], responses: list[str]) -> Iterator[tuple[list[int], list[float]]]:
    return batches(prompts, responses)


def _ifd(batches: Any, prompts: list[str], responses: list[str]) -> Iterator[tuple[list[int], list[float]]]:
    for rows, given in batches(prompts, responses, skip=1):
        alone = np.empty(len(rows))
        for some, values in batches([""] * len(rows), [responses[row] for row in rows]):
            alone[some] = values
        yield rows, [-a / -b if b else math.inf for a, b in zip(given, alone, strict=True)]
