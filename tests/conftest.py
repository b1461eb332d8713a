"""A tiny language shared by the tests: no download, milliseconds a step."""

import pytest
import torch

from train.models import new_llama, word_tokenizer

WORDS = ["<pad>", "<eos>", "<unk>", "<q>", "<a>", "ok", ":", *(f"w{i}" for i in range(40))]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def tokenizer():
    return word_tokenizer(WORDS)


@pytest.fixture
def make_model(tokenizer):
    def make(seed=0, hidden=32):
        return new_llama(tokenizer, hidden=hidden, layers=2, heads=2, mlp=64, positions=128, seed=seed)

    return make
