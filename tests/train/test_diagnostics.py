"""Gradient agreement: known gradients give known cosines, and looking changes nothing."""

import copy

import pytest
import torch

from train.batches import Row, collate, encode, response_loss
from train.config import LoraConfig, TrainingConfig
from train.diagnostics import BATCHES, ROWS, _signal_to_noise, gradient_agreement
from train.finetune import finetune
from train.models import with_lora

TOKENS = ("<q>", "<a>", "<eos>", "ok", ":")
CLEAN = [Row(f"<q> w{i} <a>", f"ok : w{(7 * i + 3) % 40}") for i in range(40)]
NOISY = [Row(f"<q> w{i} <a>", f"w{i} w{i}") for i in range(40)]


def look(model, tokenizer, groups, seed=0, tokens=TOKENS):
    return gradient_agreement(model, tokenizer, groups, tokens=tokens, max_length=16, seed=seed)


def test_one_row_agrees_with_itself_and_contradictions_conflict(tokenizer, make_model):
    model = make_model().eval()
    same = [CLEAN[0]] * 32
    found = look(model, tokenizer, {"clean": same, "noisy": same})
    assert found["cosine_clean"] == pytest.approx(1, abs=1e-4) == found["cosine_between"]
    assert found["snr_clean"] > 1e6
    mixed = look(model, tokenizer, {"clean": CLEAN, "noisy": NOISY})
    assert set(mixed) == {"cosine_clean", "cosine_noisy", "cosine_between", "snr_clean", "snr_noisy"}
    assert mixed["cosine_between"] < min(mixed["cosine_clean"], mixed["cosine_noisy"]) < 1
    assert 0 < mixed["snr_clean"] < 1e3


def test_the_cosine_is_that_of_the_gradients_that_training_would_take(tokenizer, make_model):
    model = make_model().eval()
    embeddings = model.get_input_embeddings().weight
    vectors = []
    for row in (CLEAN[0], CLEAN[1]):
        model.zero_grad()
        response_loss(model, collate(encode(tokenizer, [row], 16), tokenizer.pad_token_id)).backward()
        keep = torch.zeros(len(embeddings), 1)
        keep[tokenizer.convert_tokens_to_ids(list(TOKENS))] = 1
        embeddings.grad *= keep
        vectors.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    model.zero_grad()
    wanted = torch.cosine_similarity(*vectors, dim=0).item()
    found = look(model, tokenizer, {"one": [CLEAN[0]] * 2 * ROWS, "two": [CLEAN[1]] * 2 * ROWS})
    assert found["cosine_between"] == pytest.approx(wanted, abs=1e-4)


def test_signal_to_noise_of_known_gradients():
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, 10, generator=rng)
    assert _signal_to_noise(noise + 2.0) == pytest.approx(4.0, rel=0.05)
    assert _signal_to_noise(noise) == pytest.approx(0.0, abs=2e-3)


def test_groups_too_small_for_two_batches_are_left_out(tokenizer, make_model):
    model = make_model().eval()
    assert set(look(model, tokenizer, {"clean": CLEAN, "noisy": NOISY[: 2 * ROWS - 1]})) == {
        "cosine_clean",
        "snr_clean",
    }
    many = CLEAN * BATCHES
    assert look(model, tokenizer, {"clean": many}) == look(model, tokenizer, {"clean": many})
    assert look(model, tokenizer, {"clean": many}, seed=1) != look(model, tokenizer, {"clean": many})


@pytest.mark.parametrize("adapters", [False, True])
def test_looking_changes_nothing(tokenizer, make_model, adapters):
    groups = {"clean": CLEAN, "noisy": NOISY}
    budget = TrainingConfig(
        steps=12, points=[4, 8], batch_size=8, lr=3e-3, warmup=2, max_length=16, tokens_trained=TOKENS
    )
    made, seen = [], []
    for looks in (False, True):
        model = make_model()
        if adapters:
            model = with_lora(model, tokenizer, LoraConfig(r=4, alpha=8, dropout=0.1), TOKENS, seed=0)

        def at_point(model, point, looks=looks):
            if looks:
                before = copy.deepcopy([p.grad for p in model.parameters()])
                seen.append(look(model, tokenizer, groups))
                after = [p.grad for p in model.parameters()]
                assert all(a is b is None or torch.equal(a, b) for a, b in zip(before, after, strict=True))

        curve = finetune(model, tokenizer, CLEAN + NOISY, budget, 0, at_point)
        made.append((curve.losses, [p.detach().clone() for p in model.parameters()]))
    (losses, weights), (losses_too, weights_too) = made
    assert losses == losses_too and all(torch.equal(a, b) for a, b in zip(weights, weights_too, strict=True))
    assert len(seen) == 3 and seen[0] != seen[1]
