"""The decoder of a small Llama as one operation, its gradient written out, for short rows on a CPU.

A model of some 100,000 weights spends most of a step beside its matrix products: in the many small operations of its
layers, and in what autograd does about each. Here the norms' weights are multiplied into the matrices that follow them;
queries, keys and values come from one product, as do gate and up; the rotation (Su et al. 2021, arXiv:2104.09864) is
one product of complex numbers; attention's gradient is four products; and the last layer stops after attention where
nothing is asked of a token. The numbers are those of transformers' LlamaModel up to rounding.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

WEIGHTS = 9  # of a layer
SMALL = 512  # hidden units, and tokens of a row


def possible(decoder: Any, longest: int) -> bool:
    """Whether `hidden` is for this decoder and rows of up to `longest` tokens: a plain Llama in float32 on a CPU.

    Not one with a part that is wrapped or switched on; nor a large one or long rows, which would gain nothing and pay
    for a second copy of the weights and for all of attention at once.
    """
    config = decoder.config
    if config.model_type != "llama" or max(config.hidden_size, longest) > SMALL:
        return False
    if config.hidden_act != "silu" or decoder.rotary_emb.rope_type != "default" or config.attention_dropout:
        return False
    if config.num_key_value_heads != config.num_attention_heads or decoder.gradient_checkpointing:
        return False
    if torch.is_autocast_enabled("cpu") or type(decoder.embed_tokens) is not nn.Embedding:
        return False
    parts = [part for layer in decoder.layers for part in _matrices(layer)]
    if any(type(part) is not nn.Linear or part.bias is not None for part in parts):
        return False
    return all(
        p.weight.dtype == torch.float32 and p.weight.device.type == "cpu" for p in [decoder.embed_tokens, *parts]
    )


def hidden(decoder: Any, ids: Tensor, at: Tensor, wanted: Tensor) -> Tensor:
    """Last hidden states (wanted, hidden) of rows `ids` (rows, longest), padded on the right.

    `at` (tokens,) says where each token stands in the flattened `ids`, `wanted` the numbers of the tokens whose states
    are asked for. Gradients are of the first order only.
    """
    heads, size = decoder.config.num_attention_heads, decoder.layers[0].self_attn.head_dim
    rows, width = ids.shape
    places = _places(rows, width, heads, size, at, wanted, decoder.rotary_emb.inv_freq)
    weights = [decoder.embed_tokens.weight, decoder.norm.weight]
    for layer in decoder.layers:
        weights += [layer.input_layernorm.weight, layer.post_attention_layernorm.weight]
        weights += [part.weight for part in _matrices(layer)]
    return _Decoder.apply(ids.flatten()[at], places, decoder.config.rms_norm_eps, torch.is_grad_enabled(), *weights)


def _matrices(layer: Any) -> list[nn.Linear]:
    a, mlp = layer.self_attn, layer.mlp
    return [a.q_proj, a.k_proj, a.v_proj, a.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj]


@dataclass(frozen=True)
class _Places:
    """How the tokens stand in rows and heads, and what follows from that."""

    batch: int  # rows * heads
    width: int
    heads: int
    size: int  # of a head
    wanted: Tensor
    every: Tensor  # where each vector (token, query or key or value, head) stands in (3, batch, width)
    one: Tensor  # where each vector (token, head) stands in (batch, width)
    some: Tensor  # the same of the wanted tokens
    turn: Tensor  # (tokens, 1, size / 2), complex
    future: Tensor  # (width, width): -inf where a token must not look

    def beside(self, packed: Tensor, index: Tensor) -> Tensor:
        """Vectors (tokens, parts * heads * size) as (parts, batch, width, size), zeros where no token is."""
        parts = packed.shape[1] // (self.heads * self.size)
        out = packed.new_zeros(parts * self.batch * self.width, self.size)
        return out.index_copy_(0, index, packed.view(-1, self.size)).view(parts, self.batch, self.width, self.size)

    def packed(self, apart: Tensor, index: Tensor, parts: int) -> Tensor:
        """The inverse of `beside`."""
        vectors = apart.view(-1, self.size).index_select(0, index)
        return vectors.view(-1, parts * self.heads * self.size)

    def rotate(self, packed: Tensor, turn: Tensor) -> None:
        """Queries and keys of (tokens, 3 * heads * size), in place; what is turned together stands side by side."""
        both = packed[:, : 2 * self.heads * self.size].view(len(packed), 2 * self.heads, self.size // 2, 2)
        torch.view_as_complex(both).mul_(turn)

    def paired(self, weight: Tensor) -> Tensor:
        """The rows of a query or key matrix with those that are turned together side by side."""
        return weight.view(self.heads, 2, self.size // 2, -1).transpose(1, 2).reshape(weight.shape)

    def unpaired(self, weight: Tensor) -> Tensor:
        """The inverse of `paired`."""
        return weight.view(self.heads, self.size // 2, 2, -1).transpose(1, 2).reshape(weight.shape)


def _places(rows: int, width: int, heads: int, size: int, at: Tensor, wanted: Tensor, frequencies: Tensor) -> _Places:
    angles = torch.arange(width)[:, None] * frequencies
    column = at % width
    # (row, head, column) of each token and head, flattened
    one = ((at - column) * heads + column)[:, None] + torch.arange(heads) * width
    every = one[:, None] + (torch.arange(3) * (rows * heads * width))[:, None]
    return _Places(
        batch=rows * heads,
        width=width,
        heads=heads,
        size=size,
        wanted=wanted,
        every=every.flatten(),
        one=one.flatten(),
        some=one[wanted].flatten(),
        turn=torch.polar(torch.ones_like(angles), angles)[column][:, None],
        future=torch.full((width, width), float("-inf")).triu(1),
    )


class _Decoder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, places: _Places, eps: float, keep: bool, *weights: Tensor) -> Tensor:
        embedding, last, *rest = weights
        x = embedding.index_select(0, ids)
        kept = []
        for start in range(0, len(rest), WEIGHTS):
            final = start + WEIGHTS == len(rest)
            x, saved = _layer(places, eps, final, x, *rest[start : start + WEIGHTS])
            if keep:
                kept.append(saved)
        x, r = _normed(x, eps)
        if keep:
            ctx.save_for_backward(*weights)
            ctx.ids, ctx.places, ctx.kept, ctx.normed = ids, places, kept, (x, r)
        return x * last

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        embedding, last, *rest = ctx.saved_tensors
        normed, r = ctx.normed
        found: list[Tensor] = []
        gx = _norm_backward(torch.zeros_like(gradient), gradient * last, normed, r)
        for number, saved in reversed(list(enumerate(ctx.kept))):
            first, second, _, _, _, o, _, _, down = rest[WEIGHTS * number : WEIGHTS * (number + 1)]
            final = number == len(ctx.kept) - 1
            gx, of_layer = _layer_backward(ctx.places, final, gx, saved, first, second, o, down)
            found = of_layer + found
        of_embedding = torch.zeros_like(embedding).index_add_(0, ctx.ids, gx)
        return None, None, None, None, of_embedding, (gradient * normed).sum(0), *found


def _normed(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x over its root mean square, and one over that, (tokens, 1)."""
    r = (torch.linalg.vector_norm(x, dim=1, keepdim=True).square_() / x.shape[1] + eps).rsqrt_()
    return x * r, r


def _norm_backward(onto: Tensor, gradient: Tensor, normed: Tensor, r: Tensor) -> Tensor:
    """Adds to `onto` the gradient of what `_normed` was given."""
    along = (gradient * normed).sum(1, keepdim=True).mul_(r).div_(-normed.shape[1])
    return onto.addcmul_(gradient, r).addcmul_(normed, along)


def _layer(
    places: _Places, eps: float, final: bool, x: Tensor, first: Tensor, second: Tensor,
    q: Tensor, k: Tensor, v: Tensor, o: Tensor, gate: Tensor, up: Tensor, down: Tensor,
) -> tuple[Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """What a layer makes of (tokens, hidden), the last one of the wanted alone, and what its gradient needs."""
    n1, r1 = _normed(x, eps)
    qkv = torch.cat([places.paired(q), places.paired(k), v])
    from_n1 = qkv * first
    packed = n1 @ from_n1.t()
    places.rotate(packed, places.turn)
    queries, keys, values = places.beside(packed, places.every)
    p = torch.baddbmm(places.future, queries, keys.transpose(1, 2), alpha=places.size**-0.5).softmax(-1)
    a = places.packed(p @ values, places.some if final else places.one, 1)
    x = torch.addmm(x.index_select(0, places.wanted) if final else x, a, o.t())
    n2, r2 = _normed(x, eps)
    both = torch.cat([gate, up])
    from_n2 = both * second
    g, u = (n2 @ from_n2.t()).chunk(2, 1)
    s = torch.sigmoid(g)
    t = g * s
    act = t * u
    saved = (n1, r1, qkv, from_n1, queries, keys, values, p, a, n2, r2, both, from_n2, u, s, t, act)
    return torch.addmm(x, act, down.t()), saved


def _layer_backward(
    places: _Places, final: bool, gx: Tensor, saved: tuple[Tensor, ...],
    first: Tensor, second: Tensor, o: Tensor, down: Tensor,
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """The gradients of a layer's input and of its weights, given that of its output, which is written over."""
    n1, r1, qkv, from_n1, queries, keys, values, p, a, n2, r2, both, from_n2, u, s, t, act = saved
    of_act, of_down = gx @ down, gx.t() @ act
    inside = gx.new_empty(len(gx), 2 * u.shape[1])
    of_g, of_u = inside.chunk(2, 1)
    torch.mul(of_act, t, out=of_u)
    torch.mul(of_act.mul_(u), (s + t).addcmul_(s, t, value=-1), out=of_g)  # silu' = s + t - s t
    of_both = inside.t() @ n2
    _norm_backward(gx, inside @ from_n2, n2, r2)
    of_second = (of_both * both).sum(0)
    of_gate, of_up = of_both.mul_(second).chunk(2)

    (of_a,) = places.beside(gx @ o, places.some if final else places.one)
    of_o = gx.t() @ a
    apart = of_a.new_empty(3, *of_a.shape)
    of_queries, of_keys, of_values = apart
    torch.bmm(p.transpose(1, 2), of_a, out=of_values)
    of_p = of_a @ values.transpose(1, 2)
    of_p.sub_((of_p * p).sum(-1, keepdim=True)).mul_(p).mul_(places.size**-0.5)
    torch.bmm(of_p, keys, out=of_queries)
    torch.bmm(of_p.transpose(1, 2), queries, out=of_keys)
    packed = places.packed(apart, places.every, 3)
    places.rotate(packed, places.turn.conj())
    of_qkv = packed.t() @ n1
    if final:
        gx = gx.new_zeros(n1.shape).index_copy_(0, places.wanted, gx)
    _norm_backward(gx, packed @ from_n1, n1, r1)
    of_first = (of_qkv * qkv).sum(0)
    of_q, of_k, of_v = of_qkv.mul_(first).chunk(3)
    return gx, [of_first, of_second, places.unpaired(of_q), places.unpaired(of_k), of_v, of_o, of_gate, of_up, of_down]
