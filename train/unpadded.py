"""Rows without their padding: all tokens of a batch go through the model as one row, apart only where they attend.

A third of a batch of short rows is padding, which a model computes like text. With a GPU and flash attention
transformers has a way around it; this is one for scaled_dot_product_attention, on a CPU too. Attention puts the rows
beside each other again; padding on the right is then behind everything that a causal model looks at.
"""

from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "sdpa_unpadded"
# Their layers hand on to attention what the model is given, and attend to all that came before. A family that did not
# would mix rows without a word, hence names instead of a guess.
FAMILIES = ("llama", "qwen2")


def where_possible(model: Any) -> Any:
    """The model, which `hidden` now takes if its attention is PyTorch's own and of a known kind."""
    config = model.config
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    if config.model_type in FAMILIES and layers == {"full_attention"} and config._attn_implementation == "sdpa":
        config._attn_implementation = NAME
    return model


def possible(model: Any) -> bool:
    """Whether `hidden` takes this model."""
    return model.config._attn_implementation == NAME


def hidden(decoder: Any, ids: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Last hidden states (tokens, width) of `ids` (rows, longest), padded on the right, its rows one after another;
    `at` (tokens,) says where each token stands in the flattened batch."""
    rows, width = ids.shape
    return decoder(
        input_ids=ids.flatten()[at][None],
        attention_mask=torch.ones_like(at)[None],  # else transformers would draw up a mask that keeps the rows apart
        position_ids=(at % width)[None],
        use_cache=False,
        places=(rows, width, at),
    ).last_hidden_state[0]


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    places: tuple[int, int, torch.Tensor] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of (1, heads, tokens, size) row by row where `places` says which row a token is of, else PyTorch's."""
    if places is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **options
        )
    rows, width, at = places

    def beside(packed: torch.Tensor) -> torch.Tensor:  # (rows, heads, width, size); index_copy has a quick gradient
        _, heads, _, size = packed.shape
        padded = packed.new_zeros(rows * width, heads, size).index_copy(0, at, packed[0].transpose(0, 1))
        return padded.view(rows, width, heads, size).transpose(1, 2)

    grouped = query.shape[1] != key.shape[1]
    out = functional.scaled_dot_product_attention(
        beside(query), beside(key), beside(value), is_causal=True, scale=scaling, dropout_p=dropout, enable_gqa=grouped
    )
    return out.transpose(1, 2).flatten(0, 1).index_select(0, at)[None], None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
