"""How likely a model finds a response: the feature that carries knowledge.

Also how rows become tokens and batches for every scorer here.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from curate.errors import UserError
from curate.scoring.onednn import onednn_linears


def opening(tokenizer: Any) -> list[int]:
    """The start token where the tokeniser puts one before every text, as Llama's do, else nothing."""
    start = tokenizer.bos_token_id
    return [start] if start is not None and tokenizer("")["input_ids"][:1] == [start] else []


def encode_joined(
    tokenizer: Any, prompts: Sequence[str], responses: Sequence[str], max_length: int
) -> list[tuple[list[int], list[int]]]:
    """(prompt ids, response ids) of each row: tokenised apart, an end token after the response, `max_length` in all.

    A response is cut from the right; a prompt that leaves it less than half of `max_length` is cut from the left.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise UserError("the tokenizer has no end token (eos_token); name one in its tokenizer_config.json")
    if not prompts:
        return []
    start = opening(tokenizer)
    max_length -= len(start)
    encoded = []
    before = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    after = tokenizer(list(responses), add_special_tokens=False)["input_ids"]
    for prompt, response in zip(before, after, strict=True):
        response = [*response, end]
        response = response[: max(max_length - len(prompt), min(len(response), max_length // 2))]
        encoded.append(([*start, *prompt[max(0, len(prompt) + len(response) - max_length) :]], response))
    return encoded


def by_length(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Batches of row numbers, longest rows first: at most `token_budget` tokens, padding included, or a single row.

    On a CPU small batches of equal lengths are fastest; padding in order of arrival is slower than no batches at all.
    Hence a row of less than three quarters of a batch's longest starts the next one.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
        longest = lengths[batches[-1][0]] if batches else 0
        if batches and (len(batches[-1]) + 1) * longest <= token_budget and 4 * lengths[row] >= 3 * longest:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def pad(sequences: Sequence[Sequence[int]], value: int, device: str) -> torch.Tensor:
    """(rows, longest) int64, filled up on the right."""
    width = max(map(len, sequences))
    return torch.tensor([[*sequence, *[value] * (width - len(sequence))] for sequence in sequences], device=device)


def likelihood_batches(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    responses: Sequence[str],
    *,
    max_length: int,
    token_budget: int,
    device: str = "cpu",
    skip: int = 0,
) -> Iterator[tuple[list[int], list[float]]]:
    """`mean_log_likelihood` batch by batch: (rows, values), without the first `skip` tokens of a response."""
    model.to(device).eval()
    encoded = encode_joined(tokenizer, prompts, responses, max_length)
    with onednn_linears(model):
        for rows in by_length([len(prompt) + len(response) for prompt, response in encoded], token_budget):
            # Nothing predicts the first token of an empty prompt's response.
            starts = [max(1, len(encoded[row][0]) + skip) for row in rows]
            tokens = [[*encoded[row][0], *encoded[row][1]] for row in rows]
            ids, mask = pad(tokens, 0, device), pad([[1] * len(sequence) for sequence in tokens], 0, device)
            first = min(starts) - 1
            with torch.inference_mode():
                # Only positions that predict a response's token are projected to the vocabulary, by the model's head.
                keep = torch.arange(first, ids.shape[1] - 1, device=device)
                logits = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=keep).logits.float()
                targets = ids[:, first + 1 :]
                gained = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
            spans = [
                slice(start - 1 - first, len(some) - 1 - first) for start, some in zip(starts, tokens, strict=True)
            ]
            yield rows, [gained[at, span].mean().item() for at, span in enumerate(spans)]


def mean_log_likelihood(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    responses: Sequence[str],
    *,
    max_length: int,
    token_budget: int,
    device: str = "cpu",
) -> np.ndarray:
    """(rows,) float64: mean log-likelihood in nats of a response token, end token included, given the prompt.

    `model` is a causal LM of transformers. The result does not depend on the batches but for rounding.
    """
    values = np.empty(len(prompts))
    batches = likelihood_batches(
        model, tokenizer, prompts, responses, max_length=max_length, token_budget=token_budget, device=device
    )
    for rows, some in batches:
        values[rows] = some
    return values
