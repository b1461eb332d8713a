"""What gradients say about the rows they come from: do micro-batches agree, and is there a signal above their noise?"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .batches import Row, collate, encode, response_loss
from .models import token_ids

BATCHES, ROWS = 16, 8  # micro-batches of a group and rows in each


def gradient_agreement(
    model: Any,
    tokenizer: Any,
    groups: Mapping[str, Sequence[Row]],
    *,
    tokens: tuple[str, ...] | None,
    max_length: int,
    seed: int,
) -> dict[str, float]:
    """Cosines and signal-to-noise of the micro-batch gradients of groups of rows, at the model as it stands.

    Of each group 16 micro-batches of 8 different rows are drawn (fewer where it is small; a group of less than two
    is left out). Over everything that is trained, the embedding rows of `tokens` alone among the embeddings:

    cosine_NAME: mean cosine of two micro-batches of the group; cosine_between: of one micro-batch of each of two
    groups. Negative means conflict (Yu et al. 2020, arXiv:2001.06782).
    snr_NAME: squared length of the mean gradient over the trace of the covariance of a micro-batch's (McCandlish et
    al. 2018, arXiv:1812.06162: the inverse of the noise scale in micro-batches), both without the sampling error that
    a plain mean of 16 would put into the first.

    Nothing of the training is touched: no optimiser, no random state, no gradient is left behind.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    mask = _mask(model, tokenizer, tokens)
    found: dict[str, torch.Tensor] = {}
    for name, rows in groups.items():
        order = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(len(rows))[: BATCHES * ROWS]
        chosen = [order[i : i + ROWS] for i in range(0, len(order) - ROWS + 1, ROWS)]
        if len(chosen) < 2:
            continue
        encoded = [encode(tokenizer, [rows[i] for i in batch], max_length) for batch in chosen]
        found[name] = torch.stack([_gradient(model, tokenizer, trained, mask, batch) for batch in encoded])
    metrics: dict[str, float] = {}
    units = {name: g / g.norm(dim=1, keepdim=True).clamp_min(1e-12) for name, g in found.items()}
    for name, unit in units.items():
        n = len(unit)
        metrics[f"cosine_{name}"] = float(((unit @ unit.T).sum() - (unit * unit).sum()) / (n * (n - 1)))
        metrics[f"snr_{name}"] = _signal_to_noise(found[name])
    if len(units) == 2:
        one, other = units.values()
        metrics["cosine_between"] = float((one @ other.T).mean())
    return metrics


def _signal_to_noise(gradients: torch.Tensor) -> float:
    """|mean|^2 / trace of the covariance of rows (n, parameters), unbiased in both."""
    n = len(gradients)
    trace = gradients.var(dim=0).sum()
    return float((gradients.mean(0).square().sum() - trace / n) / trace.clamp_min(1e-30))


def _mask(model: Any, tokenizer: Any, tokens: tuple[str, ...] | None) -> tuple[Any, torch.Tensor] | None:
    """The embedding matrix and which of its rows are trained; None where that is all, or the adapters' business."""
    if tokens is None or hasattr(model, "peft_config"):
        return None
    weight = model.get_input_embeddings().weight
    rows = torch.zeros(weight.shape[0], 1, device=weight.device)
    rows[token_ids(tokenizer, tokens)] = 1
    return weight, rows


def _gradient(
    model: Any, tokenizer: Any, trained: list[Any], mask: tuple[Any, torch.Tensor] | None, encoded: list[Any]
) -> torch.Tensor:
    batch = {k: v.to(trained[0].device) for k, v in collate(encoded, tokenizer.pad_token_id).items()}
    # not backward(): nothing is added to the parameters' own gradients
    parts = torch.autograd.grad(response_loss(model, batch), trained, allow_unused=True)
    flat = []
    for parameter, part in zip(trained, parts, strict=True):
        part = torch.zeros_like(parameter) if part is None else part
        flat.append((part * mask[1] if mask is not None and parameter is mask[0] else part).flatten())
    return torch.cat(flat).float()
