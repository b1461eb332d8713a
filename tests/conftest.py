"""A tiny language shared by the tests: no download, milliseconds a step."""

import copy
import gc
import io
import threading
from collections.abc import Iterator

import pytest
import torch
from omegaconf import OmegaConf

from tests.curate.stub import SECRET, Stub
from train.models import new_llama, word_tokenizer

WORDS = ["<pad>", "<eos>", "<unk>", "<q>", "<a>", "ok", ":", *(f"w{i}" for i in range(40))]


def pytest_collection_finish():
    """Every Trainer that begins collects garbage; it need not look through all that the tests import."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def parsed_once() -> Iterator[None]:
    """Hydra parses two dozen files for each config that it composes, most of them the same: here each text once."""
    load, parsed = OmegaConf.load, {}

    def load_once(file):
        if not hasattr(file, "read"):
            return load(file)
        text = file.read()
        if text not in parsed:
            parsed[text] = load(io.StringIO(text))
        return copy.deepcopy(parsed[text])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", staticmethod(load_once))
        yield


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


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """A model server that fails as it is told; its API key is in JUDGE_KEY."""
    pytest.importorskip("openai")
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    with Stub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()
