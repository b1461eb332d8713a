"""A step on a randomly initialised miniature of every model of conf/model/ that is loaded from the hub."""

import math

import pytest
import torch

from experiments.config import config_hash
from tests.conftest import WORDS
from tests.experiments.runs import run
from tests.miniatures import MINIATURES, save
from train import models, unpadded
from train.batches import Row, encode
from train.finetune import finetune
from train.models import load_to_tune, with_lora

ROWS = [Row(f"<q> w{i} <a>", f"ok : w{(7 * i + 3) % 40}") for i in range(40)]
STEP = [
    "training=lora_gpu",
    "training.epochs=null",
    "training.steps=1",
    "training.points=[]",
    "training.warmup=0",
    "training.batch_size=32",
]


def all_models(conf):
    return {path.stem for path in (conf / "model").glob("*.yaml") if "defaults: [hf]" in path.read_text()}


@pytest.mark.parametrize("name", MINIATURES)
def test_one_step_moves_the_adapters_and_nothing_else(name, configured, tmp_path, capsys):
    from experiments.run import CONF

    assert all_models(CONF) == set(MINIATURES)
    save(tmp_path / "miniature", name, WORDS)
    models.attention_here.cache_clear()
    config = configured(f"model={name}", f"model.path={tmp_path / 'miniature'}", *STEP)
    model, tokenizer = load_to_tune(config.model.path, config.model)
    large = name in ("llama2_7b", "llama31_8b")
    assert config.model.dtype == ("bfloat16" if large else "float32")
    assert {str(p.dtype) for p in model.parameters()} == {f"torch.{config.model.dtype}"}
    assert model.config.tie_word_embeddings is MINIATURES[name]["tie_word_embeddings"]
    assert config.training.bf16
    said = capsys.readouterr().err
    assert ("sdpa is used" in said) is large and unpadded.possible(model)
    assert tokenizer.decode(encode(tokenizer, ROWS, 64)[3]["input_ids"]).replace(" ", "").endswith("ok:w24<eos>")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model = with_lora(model, tokenizer, config.model.lora, config.training.tokens_trained, seed=0)
    curve = finetune(model, tokenizer, ROWS, config.training, 0, lambda *_: None)
    assert len(curve.losses) == 1
    assert curve.losses[0] == pytest.approx(math.log(len(tokenizer)), rel=0.2)
    adapters = {key: value for key, value in model.named_parameters() if "lora_" in key}
    assert all(value.requires_grad and value.dtype == torch.float32 for value in adapters.values())
    assert not [key for key, value in adapters.items() if "lora_B" in key and not value.any()]
    assert len(adapters) == 2 * 7 * 2  # a pair for each matrix of two layers
    after = {
        key.replace(".base_layer", "").removeprefix("base_model.model."): v for key, v in model.state_dict().items()
    }
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_checkpointing_computes_the_same_step(configured, tmp_path):
    save(tmp_path / "miniature", "llama32_1b", WORDS)
    weights = []
    for on in ("true", "false"):
        path = f"model.path={tmp_path / 'miniature'}"
        config = configured("model=llama32_1b", path, f"model.checkpointing={on}", *STEP, "training.steps=3")
        model, tokenizer = load_to_tune(config.model.path, config.model)
        layers = [m for m in model.modules() if hasattr(m, "gradient_checkpointing")]
        assert layers and all(layer.gradient_checkpointing is (on == "true") for layer in layers)
        model = with_lora(model, tokenizer, config.model.lora, None, seed=0)
        finetune(model, tokenizer, ROWS, config.training, 0, lambda *_: None)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad]))
    assert torch.equal(*weights)


def test_a_miniature_of_billions_goes_from_pool_to_record(make, tmp_path):
    """Everything of a run that has to cope with weights in bfloat16 and texts that begin with a token."""
    from curate import microworld

    save(tmp_path / "miniature", "llama31_8b", microworld.vocabulary(microworld.build_world(0)))
    config = make("model=llama31_8b", f"model.path={tmp_path / 'miniature'}", "training.lr=0.01", "model.save=true")
    record, folder = run(config)
    before, end = record["metrics"]["step:0"]["ood"]["nll"], record["metrics"]["end"]["ood"]["nll"]
    assert math.isfinite(end["value"]) and end["value"] < before["value"]
    assert (folder / "model" / "adapter_model.safetensors").exists()


def test_how_the_arithmetic_is_laid_out_is_no_part_of_a_run_and_the_weights_precision_is(make):
    base = make("model=llama2_7b")
    assert config_hash(make("model=llama2_7b", "model.attention=sdpa")) == config_hash(base)
    assert config_hash(make("model=llama2_7b", "model.checkpointing=false")) == config_hash(base)
    plain = make("model=llama2_7b", "model.attention=null", "model.dtype=float32")
    assert config_hash(plain) != config_hash(base)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.lora=null"], "model.dtype=bfloat16: too coarse"),
        (["model.dtype=float32"], "model.attention=flash_attention_2: knows no float32"),
        (["model.attention=fast"], "model.attention=fast"),
    ],
)
def test_what_does_not_go_together_is_said_in_a_line(make, overrides, said):
    from experiments import UserError

    with pytest.raises(UserError, match=said) as error:
        make("model=llama2_7b", *overrides)
    assert "\n" not in str(error.value)
