"""A small Llama in one operation: the states and gradients of transformers' layers, and no other model by it."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from train import fused
from train.batches import IGNORED, Row, collate, encode, response_logits, response_loss
from train.config import LoraConfig
from train.models import with_lora

SIZES = {
    "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 3,
    "num_key_value_heads": 3, "max_position_embeddings": 64, "pad_token_id": 0, "tie_word_embeddings": True,
}  # fmt: skip
ROWS = [Row("<q> w1 w2 <a>", "ok : w3"), Row("<q> w4 <a>", " ".join(["w5"] * 20)), Row("<q> w9 <a>", "ok")]
LONGEST = 64


def llama(tokenizer, **keys):
    """One whose norms do something: at their start they are 1 and a gradient that forgot them would not be seen."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SIZES | keys))
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 2.0)
        else:
            weight.data *= 8  # attention and the gates of new weights are all but linear
    return model


def responses(tokenizer):
    return collate(encode(tokenizer, ROWS, LONGEST), tokenizer.pad_token_id)


def everything(tokenizer):
    ids = torch.randint(3, len(tokenizer), (4, 9), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def both_ways(monkeypatch, of):
    """What `of` gives by transformers' layers and in one operation."""
    with monkeypatch.context() as patch:
        patch.setattr(fused, "possible", lambda *_, **__: False)
        wanted = of()
    return wanted, of()


@pytest.mark.parametrize("batch", [responses, everything])
@pytest.mark.parametrize("shape", [{}, {"num_hidden_layers": 1}, {"head_dim": 16}, {"rms_norm_eps": 0.1}], ids=str)
def test_logits_and_gradients_are_those_of_the_layers(tokenizer, monkeypatch, batch, shape):
    model, rows = llama(tokenizer, **shape), batch(tokenizer)
    assert fused.possible(model.get_decoder(), LONGEST)

    def found():
        model.zero_grad()
        logits, targets = response_logits(model, rows)
        response_loss(model, rows).backward()
        return logits.detach(), targets, {name: weight.grad.clone() for name, weight in model.named_parameters()}

    (wanted, targets, gradients), (logits, same, others) = both_ways(monkeypatch, found)
    assert torch.equal(targets, same) and len(targets) == (rows["labels"][:, 1:] != IGNORED).sum()
    assert wanted.abs().max() > 1  # not near zero, where anything is close
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=1e-4)
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 1e-4, name
        torch.testing.assert_close(
            others[name] / gradient.abs().max(), gradient / gradient.abs().max(), atol=1e-4, rtol=0
        )


def test_it_is_what_training_and_evaluation_go_through(tokenizer, monkeypatch):
    model, rows = llama(tokenizer), responses(tokenizer)
    monkeypatch.setattr(model.model, "forward", None)  # not to be called
    with torch.inference_mode():
        seen, _ = response_logits(model, rows)
    trained, _ = response_logits(model, rows)
    assert torch.equal(seen, trained)  # evaluation and training compute the same bytes
    assert trained.requires_grad and not seen.requires_grad


def test_a_token_sees_its_own_row_and_nothing_that_comes_later(tokenizer):
    model, rows = llama(tokenizer), everything(tokenizer)
    before, _ = response_logits(model, rows)
    changed = {**rows, "input_ids": rows["input_ids"].clone()}
    changed["input_ids"][1, 5] += 1
    after, _ = response_logits(model, changed)
    moved = (before != after).any(1).view(4, 8)
    assert not moved[[0, 2, 3]].any() and not moved[1, :5].any() and moved[1, 5:].all()


def test_a_gradient_can_be_asked_for_again_and_comes_out_the_same(tokenizer):
    model, rows = llama(tokenizer), responses(tokenizer)
    weights = list(model.parameters())
    loss = response_loss(model, rows)
    first = torch.autograd.grad(loss, weights, retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(loss, weights)))
    assert all(map(torch.equal, first, torch.autograd.grad(response_loss(model, rows), weights)))


def test_a_batch_in_which_nothing_is_asked_for_costs_nothing(tokenizer):
    """As the share of one of several processes may be: train/distributed.py."""
    model, rows = llama(tokenizer), responses(tokenizer)
    rows["labels"][:] = IGNORED
    loss = response_loss(model, rows, items=1)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not any(weight.grad.any() for weight in model.parameters())


def test_what_is_frozen_gets_no_gradient(tokenizer):
    model = llama(tokenizer)
    frozen = [model.model.layers[0].self_attn.q_proj.weight, model.model.norm.weight]
    for weight in frozen:
        weight.requires_grad_(False)
    response_loss(model, responses(tokenizer)).backward()
    assert all(weight.grad is None for weight in frozen)
    assert model.model.layers[0].self_attn.k_proj.weight.grad is not None


@pytest.mark.parametrize(
    "keys",
    [
        {"num_attention_heads": 4, "num_key_value_heads": 2},
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"attention_dropout": 0.1},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
        {"hidden_size": 1026},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_another_architecture_goes_its_own_way(tokenizer, keys):
    assert not fused.possible(llama(tokenizer, **keys).get_decoder(), LONGEST)


def test_adapters_other_precisions_and_long_rows_go_their_own_way(tokenizer):
    decoder = llama(tokenizer).get_decoder()
    assert fused.possible(decoder, 512) and not fused.possible(decoder, 513)
    with torch.autocast("cpu", torch.bfloat16):
        assert not fused.possible(decoder, LONGEST)
    assert not fused.possible(llama(tokenizer).to(torch.bfloat16).get_decoder(), LONGEST)
    checkpointing = llama(tokenizer)
    checkpointing.model.gradient_checkpointing = True
    assert not fused.possible(checkpointing.get_decoder(), LONGEST)
    for target, tokens in (("all-linear", None), (["v_proj"], None), (["down_proj"], ("<q>",))):
        lora = LoraConfig(r=2, alpha=4, target=target)
        assert not fused.possible(
            with_lora(llama(tokenizer), tokenizer, lora, tokens, 0).get_base_model().get_decoder(), 9
        )
