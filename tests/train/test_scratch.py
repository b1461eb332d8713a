"""A model that has read nothing: its tokeniser loses nothing, its weights come from the seed."""

import pytest
import torch

from tests.stories import stories
from train.config import ModelConfig, ScratchConfig
from train.models import load_causal_lm
from train.scratch import byte_tokenizer, scratch

SIZES = ScratchConfig(hidden=32, layers=1, head=16, mlp=2, vocabulary=320)
REWARD = {"epochs": 1, "lr": 1e-3, "batch_size": 1, "max_length": 8, "held_out": 0.1}


def test_any_text_comes_back_as_it_was():
    tokenizer = byte_tokenizer(stories(50), 400)
    for text in (stories(60)[55], "naïve ☃ \n\t two  spaces", "Ω"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert tokenizer.unk_token_id not in ids
    assert len(tokenizer) == 400
    longer = len(byte_tokenizer(stories(50), 300)(stories(60)[55])["input_ids"])
    assert len(tokenizer(stories(60)[55])["input_ids"]) < longer


def test_the_tokeniser_is_the_same_whenever_it_is_learnt():
    one, other = (byte_tokenizer(stories(100), 500).backend_tokenizer.to_str() for _ in range(2))
    assert one == other


def test_the_folder_holds_weights_of_the_seed(tmp_path):
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        scratch(tmp_path / name, SIZES, seed, vocabulary=None, texts=stories(50))
        model, tokenizer = load_causal_lm(tmp_path / name)
        assert len(tokenizer) == 320 == model.config.vocab_size
        assert model.config.num_attention_heads == 2
        weights.append(model.get_input_embeddings().weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    scratch(tmp_path / "words", SIZES, 0, vocabulary=["<pad>", "<eos>", "<unk>", "red"])
    assert load_causal_lm(tmp_path / "words")[1]("red red")["input_ids"] == [3, 3]


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="head: 16 does not divide hidden = 40"):
        ScratchConfig(hidden=40, layers=1, head=16, mlp=2, vocabulary=320)
    for kind, sizes in (("scratch", None), ("smollm2", SIZES)):
        with pytest.raises(ValueError, match="scratch: its sizes"):
            ModelConfig(kind=kind, scratch=sizes, reward=REWARD)
