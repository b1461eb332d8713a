"""Pre-training: it stops by the probe, resumes where it was, and says so when the probe never passes."""

import json
import shutil

import pytest
import torch

from train import UserError
from train.config import PretrainingConfig
from train.models import load_causal_lm
from train.pretrain import pretrain

WORDS = ["<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(20))]


def settings(**keys):
    defaults = {
        "hidden": 32, "layers": 1, "heads": 2, "mlp": 32, "lr": 1e-2, "batch": 4, "length": 16, "warmup": 2,
        "weight_decay": 0.0, "cooldown": 6, "max_steps": 400, "probe_every": 5, "cools_at": {"pairs": 0.7},
        "pass_at": {"pairs": 0.9}, "beta2": 0.95, "checkpoint_every": 5,
    }  # fmt: skip
    return PretrainingConfig(**{**defaults, **keys})


def sentences(rng):
    while True:
        i = int(rng.random() * 10)
        yield f"w{i} w{i + 10}"


def probe(model, tokenizer):
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(["<eos>", f"w{i}"]) for i in range(10)])
    best = model(input_ids=ids).logits[:, -1].argmax(-1)
    wanted = torch.tensor(tokenizer.convert_tokens_to_ids([f"w{i + 10}" for i in range(10)]))
    return {"pairs": (best == wanted).float().mean().item()}


def run(out, report=lambda *_: None, **keys):
    out.mkdir(exist_ok=True)
    return pretrain(out, WORDS, sentences, probe, settings(**keys), 0, report)


def test_it_stops_after_the_probe_has_passed_and_the_rate_cooled_down(tmp_path):
    heard = []
    result = run(tmp_path / "a", lambda step, found: heard.append((step, found["pairs"])))
    passed = next(step for step, known in heard if known >= 0.7)
    assert result["steps"] == passed + 6
    assert result["probe"]["pairs"] >= 0.9
    files = {f.name for f in (tmp_path / "a").iterdir()}
    assert "model.safetensors" in files and not any(f.startswith("checkpoint") or f.endswith(".bin") for f in files)
    model, tokenizer = load_causal_lm(tmp_path / "a")
    assert probe(model.eval(), tokenizer)["pairs"] == result["probe"]["pairs"]


class Killed(Exception):
    pass


def test_an_interrupted_run_ends_as_an_undisturbed_one(tmp_path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    run(whole)

    def kill_at(limit):
        def report(step, found):
            if step == limit:
                raise Killed

        return report

    for limit in (10, 15):
        with pytest.raises(Killed):
            run(torn, kill_at(limit))
        assert (torn / "checkpoint.safetensors").exists()
    run(torn)
    assert (whole / "model.safetensors").read_bytes() == (torn / "model.safetensors").read_bytes()
    steps = [json.loads((f / "pretraining.json").read_text())["steps"] for f in (whole, torn)]
    assert steps[0] == steps[1]
    shutil.rmtree(torn)


def test_a_seed_that_does_not_settle_cools_down_even_so(tmp_path):
    heard = {}
    result = run(tmp_path / "a", lambda step, found: heard.update({step: found["pairs"]}), max_steps=5, cooldown=100)
    assert heard[5] < 0.7 and result["probe"]["pairs"] >= 0.9 and result["steps"] == 105


def test_a_probe_that_never_passes_is_an_error_that_names_the_seed(tmp_path):
    never = {"cools_at": {"pairs": 1.1}, "pass_at": {"pairs": 1.1}}
    said = r"pretraining\.max_steps=20, cooldown=6: the base of seed 0 .* 26 steps .*pairs 0\.\d\d of 1\.1"
    with pytest.raises(UserError, match=said):
        run(tmp_path / "b", **never, max_steps=20, checkpoint_every=5)
    with pytest.raises(UserError, match=r"26 steps"):  # nor is it tried again from the start
        run(tmp_path / "b", lambda step, _: pytest.fail("trained"), **never, max_steps=20)
    # what started the cool-down is not enough
    with pytest.raises(UserError, match=r"7 steps .*pairs 0\.\d\d of 0\.9\)"):
        run(tmp_path / "c", cools_at={"pairs": 0.0}, cooldown=2)
