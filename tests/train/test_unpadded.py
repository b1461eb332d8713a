"""Without padding the same logits and gradients as with it, for every family that is trusted with it, and no other."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from train import unpadded
from train.batches import Row, collate, encode, response_logits, response_loss
from train.config import LoraConfig
from train.models import with_lora

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "attn_implementation": "sdpa",
}  # fmt: skip
ROWS = [Row("<q> w1 w2 <a>", "ok : w3"), Row("<q> w4 <a>", " ".join(["w5"] * 20)), Row("<q> w9 <a>", "ok")]


def pair(tokenizer, family: str):
    """The same model twice: as it is, and as rows go through it without padding."""
    config, kind = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}[family]
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(kind(config(vocab_size=len(tokenizer), **SIZES)))
    return models[0], unpadded.where_possible(models[1])


@pytest.mark.parametrize("family", unpadded.FAMILIES)
@pytest.mark.parametrize("lora", [False, True])
def test_logits_and_gradients_are_those_of_padded_rows(tokenizer, family, lora):
    padded, packed = pair(tokenizer, family)
    assert unpadded.possible(packed) and not unpadded.possible(padded)
    if lora:
        padded, packed = (
            with_lora(m, tokenizer, LoraConfig(r=2, alpha=4, target="all-linear"), ("<q>",), 0)
            for m in (padded, packed)
        )
    batch = collate(encode(tokenizer, ROWS, 64), tokenizer.pad_token_id)
    (wanted, targets), (found, same) = (response_logits(m, batch) for m in (padded, packed))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(targets, same)
    for model in (padded, packed):
        response_loss(model, batch).backward()
    for (name, a), (_, b) in zip(padded.named_parameters(), packed.named_parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            torch.testing.assert_close(b.grad, a.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_it_is_the_tokens_that_go_through_the_layers_and_rows_do_not_see_each_other(tokenizer):
    _, model = pair(tokenizer, "llama")
    seen = []
    model.model.layers[0].mlp.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[:2].numel()))
    batch = collate(encode(tokenizer, ROWS, 64), tokenizer.pad_token_id)
    before, _ = response_logits(model, batch)
    assert seen == [batch["attention_mask"].sum()] and seen[0] < batch["input_ids"].numel()
    batch["input_ids"][1, :10] += 1  # of the row in the middle
    after, _ = response_logits(model, batch)
    counts = (batch["labels"][:, 1:] != -100).sum(1).tolist()
    first, middle, last = zip(before.split(counts), after.split(counts), strict=True)
    assert torch.equal(*first) and torch.equal(*last) and not torch.equal(*middle)


def test_such_a_model_generates_as_any_other(tokenizer):
    padded, packed = pair(tokenizer, "llama")
    rows = {
        "input_ids": torch.tensor([[0, 0, 5, 6], [3, 4, 5, 6]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1], [1] * 4]),
    }
    said = [m.eval().generate(**rows, max_new_tokens=6, do_sample=False, eos_token_id=None) for m in (padded, packed)]
    assert torch.equal(*said)


def test_models_that_look_only_so_far_back_keep_their_padding(tokenizer):
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}
    model = unpadded.where_possible(Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **SIZES, **window)))
    assert "sliding_attention" in model.config.layer_types and not unpadded.possible(model)
    eager = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SIZES | {"attn_implementation": "eager"}))
    assert not unpadded.possible(unpadded.where_possible(eager))
