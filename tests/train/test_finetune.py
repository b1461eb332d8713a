"""Fine-tuning: it learns, repeats itself bit for bit, keeps to its budget, and trains what it should."""

import numpy as np
import pytest
import torch

from train import UserError
from train.batches import Row
from train.config import LoraConfig, TrainingConfig
from train.finetune import NotFinite, finetune, points_of, spikes, steps_of
from train.models import trainable_share, with_lora

ROWS = [Row(f"<q> w{i} <a>", f"ok : w{(7 * i + 3) % 40}") for i in range(40)]


def training(**keys):
    defaults = {"steps": 12, "points": [4, 8], "batch_size": 8, "lr": 3e-3, "warmup": 2, "max_length": 16}
    return TrainingConfig(**{**defaults, **keys})


def tune(model, tokenizer, rows=ROWS, seed=0, **keys):
    seen = []
    curve = finetune(model, tokenizer, rows, training(**keys), seed, lambda m, p: seen.append((p.step, m.training)))
    return curve, seen


def test_points_tokens_and_modes(tokenizer, make_model):
    curve, seen = tune(make_model(), tokenizer)
    assert seen == [(4, False), (8, False), (12, False)]
    assert [p.last for p in curve.points] == [False, False, True]
    assert curve.row_tokens == 40 * 7  # <q> w <a> ok : w <eos>
    assert [p.tokens for p in curve.points] == [4 * 8 * 7, 8 * 8 * 7, (12 * 8 - 0) * 7]
    assert curve.points[1].epoch == pytest.approx(8 * 8 / 40)


def test_it_learns(tokenizer, make_model):
    from train.batches import collate, encode, response_loss

    model = make_model()
    batch = collate(encode(tokenizer, ROWS, 16), tokenizer.pad_token_id)
    before = response_loss(model, batch).item()
    tune(model, tokenizer, steps=150, points=[])
    assert response_loss(model, batch).item() < before / 4


def test_a_shorter_run_is_the_beginning_of_a_longer_one(tokenizer, make_model):
    """The rate is constant once it is warm: one curve serves every budget."""
    weights = []
    for steps in (12, 8):
        model = make_model()

        def keep(model, point):
            if point.step == 8:
                weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))

        finetune(model, tokenizer, ROWS, training(steps=steps, points=[8]), 0, keep)
    assert torch.equal(*weights)


def test_the_first_steps_are_small(tokenizer, make_model):
    moved = []
    for warmup in (8, 0):
        model = make_model()
        before = model.lm_head.weight.detach().clone()
        tune(model, tokenizer, steps=1, points=[], warmup=warmup)
        moved.append((model.lm_head.weight - before).abs().max().item())
    assert moved[0] < moved[1] / 2


def test_same_seed_same_bytes_and_another_seed_another_model(tokenizer, make_model):
    models = [make_model(), make_model(), make_model()]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        torch.manual_seed(12345 + seed)  # what was drawn before must not matter
        tune(model, tokenizer, seed=seed)
    one, two, three = (torch.cat([p.flatten() for p in m.parameters()]) for m in models)
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_only_the_named_rows_of_the_embeddings_move(tokenizer, make_model):
    model = make_model()
    before = model.get_input_embeddings().weight.detach().clone()
    tune(model, tokenizer, tokens_trained=("<q>", "<a>", "<eos>", "ok", ":"))
    moved = (model.get_input_embeddings().weight != before).any(1).nonzero().flatten().tolist()
    assert moved == sorted(tokenizer.convert_tokens_to_ids(["<q>", "<a>", "<eos>", "ok", ":"]))
    assert not model.get_input_embeddings().weight._backward_hooks


def test_an_unknown_token_to_train_is_named(tokenizer, make_model):
    with pytest.raises(UserError, match=r"training\.tokens_trained: 'zebra'"):
        tune(make_model(), tokenizer, tokens_trained=("zebra",))


def test_budgets_are_steps_epochs_or_tokens():
    assert steps_of(training(), 100, 700) == 12
    assert steps_of(training(steps=None, epochs=2), 100, 700) == 26
    assert steps_of(training(steps=None, tokens=1400), 100, 700) == 26
    assert points_of(training(points=[4, 0.5, 99]), 20) == [4, 10, 20]
    with pytest.raises(ValueError, match="2 of them are set; set one"):
        training(epochs=1)


def test_accumulation_gives_the_same_model(tokenizer, make_model):
    whole, parts = make_model(), make_model()
    uneven = [Row(r.prompt, r.response + " w9" * (i % 7)) for i, r in enumerate(ROWS)]
    tune(whole, tokenizer, uneven, batch_size=8, max_length=32)
    tune(parts, tokenizer, uneven, batch_size=8, max_length=32, accumulate=2)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_divergence_names_its_step(tokenizer, make_model):
    model = make_model()
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(NotFinite) as error:
        tune(model, tokenizer)
    assert error.value.step == 1


def test_an_empty_set_is_the_users_to_mend(tokenizer, make_model):
    with pytest.raises(UserError, match="no row is left"):
        tune(make_model(), tokenizer, rows=[])


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("tokens", [None, ("<q>", "<a>", "<eos>", "ok", ":")])
def test_lora_trains_a_fraction_and_leaves_the_rest(tokenizer, make_model, dora, tokens):
    model = make_model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    tuned = with_lora(model, tokenizer, LoraConfig(r=4, alpha=8, dora=dora), tokens, seed=0)
    assert 0 < trainable_share(tuned, tokens) < 0.5
    assert dora == any("magnitude" in name for name, p in tuned.named_parameters() if p.requires_grad)
    tune(tuned, tokenizer, tokens_trained=tokens)
    after = tuned.state_dict()
    moved = [k for k, v in after.items() if "lora_B" in k and v.abs().sum() > 0]
    assert moved
    for key, value in before.items():
        if "embed_tokens" in key or "lm_head" in key:
            continue
        kept = after[next(k for k in after if k.endswith(key) or k.replace(".base_layer", "").endswith(key))]
        assert torch.equal(kept, value), key
    rows = tuned.merge_and_unload().get_input_embeddings().weight
    was = before["model.embed_tokens.weight"]
    assert (rows != was).any(1).nonzero().flatten().tolist() == sorted(tokenizer.convert_tokens_to_ids(tokens or []))


def test_the_share_that_is_trained(tokenizer, make_model):
    model = make_model()
    n, embeddings = sum(p.numel() for p in model.parameters()), model.get_input_embeddings().weight.numel()
    assert trainable_share(model, None) == 1.0
    assert trainable_share(model, ("ok", ":")) == pytest.approx((n - embeddings + 2 * 32) / n)
    tuned = with_lora(model, tokenizer, LoraConfig(r=4, alpha=8, target=["q_proj"]), ("ok", ":"), seed=0)
    own = 2 * 4 * (32 + 32) + 2 * 32  # two layers' adapters of q, two rows
    assert trainable_share(tuned, ("ok", ":")) == pytest.approx(own / (n + own))
    with pytest.raises(UserError, match=r"training\.tokens_trained: 'zebra'"):
        with_lora(make_model(), tokenizer, LoraConfig(r=4, alpha=8), ("zebra",), seed=0)


def test_a_saved_adapter_holds_the_trained_rows(tokenizer, make_model, tmp_path):
    from peft import PeftModel

    tokens = ("<q>", "<a>", "<eos>", "ok", ":")
    tuned = with_lora(make_model(), tokenizer, LoraConfig(r=4, alpha=8), tokens, seed=0)
    tune(tuned, tokenizer, tokens_trained=tokens)
    tuned.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make_model(), tmp_path)
    ids = torch.tensor([[3, 10, 4, 5]])
    torch.testing.assert_close(again.eval()(input_ids=ids).logits, tuned.eval()(input_ids=ids).logits)


def test_the_losses_of_all_steps_are_kept(tokenizer, make_model):
    from train.batches import collate, encode, response_loss

    model = make_model()
    same = [ROWS[0]] * 8  # one batch, whatever the order
    first = response_loss(model, collate(encode(tokenizer, same, 16), tokenizer.pad_token_id)).item()
    curve, _ = tune(model, tokenizer, same)
    assert len(curve.losses) == 12 and curve.losses[0] == pytest.approx(first, abs=1e-5)
    assert curve.losses[-1] < first
    assert curve.points[0].loss == pytest.approx(sum(curve.losses[:4]) / 4)
    whole, _ = tune(make_model(), tokenizer, steps=30, batch_size=8)
    parts, _ = tune(make_model(), tokenizer, steps=30, batch_size=8, accumulate=4)
    assert whole.losses == pytest.approx(parts.losses, rel=1e-3)
    assert whole.points[-1].loss == pytest.approx(sum(whole.losses[10:]) / 20)


def test_spikes_are_counted_by_the_stated_rule():
    rng = np.random.default_rng(0)
    calm = (3 * np.exp(-np.arange(300) / 60) + 0.3 + 0.05 * rng.standard_normal(300)).tolist()
    assert spikes(calm, 10) == (0, 275)
    jumped = [loss + 1.0 * (step in (5, 100, 101, 250)) for step, loss in enumerate(calm)]
    assert spikes(jumped, 10) == (3, 275)  # step 5 has no window before it
    assert spikes(jumped, 150) == (1, 150)
    window = [1.0, 2.0, 3.0, 4.0, 5.0] * 5  # median 3, MAD 1
    bar = 3 + 6 * 1.4826
    assert spikes([*window, bar + 1e-6], 0) == (1, 1) and spikes([*window, bar - 1e-6], 0) == (0, 1)
    assert spikes(window, 0) == (0, 0)
    assert spikes([0.0] * 13 + [1.0] * 12 + [0.5], 0) == (1, 1)  # median and MAD are 0 without the loss itself, .5 with
