"""DeBERTa-v2 and -v3 at inference: what its attention makes of relative positions is computed once, not every time.

Its disentangled attention (He et al. 2021, arXiv:2006.03654, section 3.1; arXiv:2111.09543) adds to each score a
product of the content with the relative position and one of the position with the content. The library projects all
512 relative positions anew in every layer of every forward pass, as much arithmetic as an average pair of texts, and
then gathers single numbers. Here the projections are kept, only the positions that a batch's length needs are
multiplied, and the numbers are read off by a view. The score is made of the first token alone, so the last layer is
computed for that token only. The result is the same but for rounding.
"""

import functools
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DebertaV2ForSequenceClassification

_BIAS = "disentangled_attention_bias"  # the method that makes the position terms


@contextmanager
def cached_positions(model: Any) -> Iterator[None]:
    """Inside, the model's attention takes its position terms from the cache, and a classifier's last layer gives the
    first token only; outside, it is what it was.

    For inference only: weights must not change inside. Inside another one it does nothing. A model of another
    architecture is left alone; so is a DeBERTa-v2 whose parts the installed transformers calls otherwise, with a
    warning.
    """
    parts = _parts(model)
    hook = None
    if parts and isinstance(model, DebertaV2ForSequenceClassification):
        hook = model.deberta.encoder.layer[-1].register_forward_pre_hook(_first_token, with_kwargs=True)
    try:
        for attention, keys, queries in parts:
            attention.disentangled_attention_bias = functools.partial(_bias, keys, queries)
        yield
    finally:
        if hook is not None:
            hook.remove()
        for attention, _, _ in parts:
            attention.__dict__.pop(_BIAS, None)


def _first_token(_: Any, args: tuple[torch.Tensor, torch.Tensor], options: dict[str, Any]) -> tuple[Any, Any]:
    """A layer's arguments, with the first token as the only query: all states stay its keys and values."""
    states, mask = args
    return (states, mask[:, :, :1]), {**options, "query_states": states[:, :1]}


def _parts(model: Any) -> list[tuple[Any, torch.Tensor | None, torch.Tensor | None]]:
    """Each attention with the projected positions, (heads, 2 x span, head width), that its terms need."""
    if model.config.model_type != "deberta-v2" or not getattr(model.config, "relative_attention", False):
        return []
    try:
        encoder = next(module for module in model.modules() if hasattr(module, "get_rel_embedding"))
        with torch.inference_mode():
            positions = encoder.get_rel_embedding()
            return [
                (module, *_project(module, positions))
                for module in model.modules()
                if hasattr(module, _BIAS) and _BIAS not in vars(module)
            ]
    except (AttributeError, StopIteration) as error:
        warnings.warn(f"scoring {model.config.model_type} the slow way: {error!r}", stacklevel=3)
        return []


def _project(attention: Any, positions: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """(keys, queries) of all relative positions, divided by the scale that scores get; None where a term is missing."""
    kinds, heads = attention.pos_att_type, attention.num_attention_heads
    span = attention.pos_ebd_size
    scale = math.sqrt(attention.attention_head_size * (1 + ("c2p" in kinds) + ("p2c" in kinds)))

    def project(layer: Any) -> torch.Tensor:
        made = layer(positions[: 2 * span]) / scale
        return made.view(len(made), heads, -1).transpose(0, 1).contiguous()

    shared = attention.share_att_key
    keys = project(attention.key_proj if shared else attention.pos_key_proj) if "c2p" in kinds else None
    queries = project(attention.query_proj if shared else attention.pos_query_proj) if "p2c" in kinds else None
    return keys, queries


def _bias(
    keys: torch.Tensor | None,
    queries: torch.Tensor | None,
    query: torch.Tensor,
    key: torch.Tensor,
    relative: torch.Tensor,
    *_: Any,
) -> torch.Tensor | int:
    """(batch x heads, q, n): both position terms. `query` is (batch x heads, q, width) of the first q tokens, `key`
    (batch x heads, n, width). `relative` says of (query, key) which of the positions is theirs, and depends on their
    distance alone."""
    q, n = query.shape[1], key.shape[1]
    relative = relative.reshape(relative.shape[-2:])
    # positions by distance, from q - 1 down to 1 - n: the first column upwards, then the first row
    distances = torch.cat([relative[:q, 0].flip(0), relative[0, 1:]])
    total: torch.Tensor | int = 0
    if keys is not None:
        at = (distances + keys.shape[1] // 2).clamp(0, keys.shape[1] - 1)
        total = _by_distance(query, keys[:, at], n)
    if queries is not None:
        at = (distances + queries.shape[1] // 2).clamp(0, queries.shape[1] - 1)
        total = total + _by_distance(key, queries[:, at.flip(0)], q).transpose(-1, -2)
    return total if isinstance(total, int) else total.reshape(-1, q, n)


def _by_distance(content: torch.Tensor, positions: torch.Tensor, columns: int) -> torch.Tensor:
    """(batch, heads, rows, columns): row i, column j is content i times position rows - 1 - i + j.

    `content` is (batch x heads, rows, width), `positions` (heads, rows + columns - 1, width).
    """
    (heads, across, width), rows = positions.shape, content.shape[1]
    by_head = content.view(-1, heads, rows, width).transpose(0, 1).reshape(heads, -1, width)
    products = torch.bmm(by_head, positions.transpose(1, 2))  # (heads, batch x rows, across)
    batch = products.shape[1] // rows
    # each row starts one step further left than the one above
    return products.as_strided(
        (batch, heads, rows, columns), (rows * across, batch * rows * across, across - 1, 1), storage_offset=rows - 1
    )
