"""The fast path of DeBERTa-v2 gives what the library gives."""

import warnings
from typing import Any

import pytest
import torch
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from curate.scoring.deberta import _BIAS, cached_positions


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32,
        "max_position_embeddings": 64, "type_vocab_size": 0, "position_biased_input": False, "num_labels": 1,
        "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "initializer_range": 0.3, **options,
    }  # fmt: skip
    return DebertaV2ForSequenceClassification(DebertaV2Config(**settings)).eval()


def batch(*lengths: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 50, (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


V3 = {"share_att_key": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm"}


@pytest.mark.parametrize(
    "options",
    [
        V3,
        {**V3, "position_buckets": 4, "max_relative_positions": 16},
        {"position_buckets": -1},
        {"share_att_key": True, "position_buckets": -1},
        {**V3, "share_att_key": False},
        {**V3, "pos_att_type": ["c2p"]},
        {**V3, "pos_att_type": ["p2c"]},
        {**V3, "pos_att_type": []},
        {**V3, "relative_attention": False, "position_biased_input": True},
        {**V3, "num_hidden_layers": 1},
        {**V3, "conv_kernel_size": 3},
        {**V3, "conv_kernel_size": 3, "num_hidden_layers": 1},
    ],
)
@pytest.mark.parametrize("lengths", [(1,), (2, 1), (7,), (40, 3, 17), (64, 64)])
def test_scores_are_the_librarys(options: dict[str, Any], lengths: tuple[int, ...]) -> None:
    model, inputs = build(**options), batch(*lengths)
    with torch.inference_mode():
        plain = model(**inputs).logits
        with cached_positions(model):
            fast = model(**inputs).logits
        after = model(**inputs).logits
    assert len(lengths) == 1 or len(set(plain.flatten().tolist())) > 1
    assert torch.allclose(fast, plain, atol=1e-5, rtol=0)
    assert torch.equal(after, plain)


def test_inside_another_one_it_does_nothing() -> None:
    model, inputs = build(**V3), batch(7, 3)
    with torch.inference_mode(), cached_positions(model):
        fast, kept = model(**inputs).logits, [vars(module).get(_BIAS) for module in model.modules()]
        with cached_positions(model):
            assert torch.equal(model(**inputs).logits, fast)
        assert [vars(module).get(_BIAS) for module in model.modules()] == kept
        assert torch.equal(model(**inputs).logits, fast)
    assert any(kept) and not any(_BIAS in vars(module) for module in model.modules())


def queries_of_each_layer(model: Any, inputs: dict[str, torch.Tensor]) -> list[int]:
    seen: list[int] = []
    hooks = [
        layer.intermediate.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1]))
        for layer in model.deberta.encoder.layer
    ]
    with torch.inference_mode():
        model(**inputs)
    for hook in hooks:
        hook.remove()
    return seen


def test_the_last_layer_is_computed_for_the_first_token_only() -> None:
    model, inputs = build(**V3, num_hidden_layers=3), batch(9, 4)
    with cached_positions(model):
        assert queries_of_each_layer(model, inputs) == [9, 9, 1]
    assert queries_of_each_layer(model, inputs) == [9, 9, 9]


def test_an_encoder_without_a_head_keeps_all_its_tokens() -> None:
    encoder, inputs = build(**V3).deberta, batch(9)
    with torch.inference_mode():
        plain = encoder(**inputs).last_hidden_state
        with cached_positions(encoder):
            fast = encoder(**inputs).last_hidden_state
    assert plain.shape == (1, 9, 24)
    assert torch.allclose(fast, plain, atol=1e-5, rtol=0)


def test_gradients_are_the_same_before_and_after() -> None:
    model, inputs = build(**V3), batch(9, 4)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(**inputs).logits.sum().backward()
        return [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]

    before = gradients()
    with torch.inference_mode(), cached_positions(model):
        model(**inputs)
    after = gradients()
    assert any(gradient.any() for gradient in before)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_bfloat16_drifts_no_more_than_in_the_library() -> None:
    model, inputs = build(**V3), batch(*[3 + at % 40 for at in range(64)])
    with torch.inference_mode():
        exact = model(**inputs).logits
        model.bfloat16()
        plain = model(**inputs).logits
        with cached_positions(model):
            fast = model(**inputs).logits
    assert fast.dtype == torch.bfloat16
    drift, librarys = ((scores - exact).square().mean().sqrt() for scores in (fast, plain))
    assert 0 < drift < 1.3 * librarys < 0.1 * exact.std()


def test_the_cache_is_used_and_then_gone() -> None:
    model, inputs = build(**V3), batch(9)
    with torch.inference_mode(), cached_positions(model):
        before = model(**inputs).logits
        for module in model.modules():
            if hasattr(module, "get_rel_embedding"):
                module.rel_embeddings.weight.data.zero_()
        assert torch.equal(model(**inputs).logits, before)  # the positions of before
    with torch.inference_mode():
        assert not torch.equal(model(**inputs).logits, before)
    assert not any("disentangled_attention_bias" in vars(module) for module in model.modules())


def test_an_error_inside_leaves_the_model_as_it_was() -> None:
    model = build(**V3)
    with pytest.raises(RuntimeError), cached_positions(model):
        raise RuntimeError
    assert not any("disentangled_attention_bias" in vars(module) for module in model.modules())


def test_unknown_parts_are_scored_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = build(**V3), batch(5, 3)
    with torch.inference_mode():
        plain = model(**inputs).logits
    for module in model.modules():
        if hasattr(module, "pos_ebd_size"):
            monkeypatch.setattr(module, "attention_head_size", None, raising=False)
            del module.attention_head_size
    with torch.inference_mode(), pytest.warns(UserWarning, match="the slow way"), cached_positions(model):
        assert torch.equal(model(**inputs).logits, plain)


def test_other_models_are_left_alone() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with cached_positions(torch.nn.Module.__new__(_Other)):
            pass


class _Other(torch.nn.Module):
    class config:
        model_type = "bert"
