"""Pools, and a small reward model that is trained here: a two-layer BERT on preference pairs written below."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from curate.example import make_pool

SUBJECTS = (
    ("gradient descent", "it follows the slope of the loss downhill in small steps until the error stops falling"),
    ("photosynthesis", "plants turn light , water and carbon dioxide into sugar and oxygen in their leaves"),
    ("a binary search", "it halves the sorted list at each step , so that a million entries need twenty steps"),
    ("inflation", "prices rise when more money chases the same goods , so that each coin buys less"),
    ("a neural network", "layers of weights transform the input , and training adjusts the weights to lower the error"),
    ("the water cycle", "the sun lifts vapour from the sea , clouds form , and rain brings the water back"),
    ("recursion", "a function calls itself on a smaller problem until the answer is plain"),
    ("the moon's phases", "we see more or less of its lit half as it moves around the earth"),
    ("a hash table", "a key is turned into a number that says in which slot its value lies"),
    ("natural selection", "those that fit their surroundings leave more young , so their traits spread"),
    ("compound interest", "interest is paid on earlier interest too , so that savings grow faster each year"),
    ("vaccination", "a harmless piece of a germ teaches the body to know it , so that it can defend itself"),
)
CODE = (
    ("adds two numbers", "def add ( a , b ) : return a + b"),
    ("doubles a number", "double = lambda x : x * 2"),
    ("joins words", "def join ( words ) : return ' ' . join ( words )"),
    ("sorts a list", "def order ( items ) : return sorted ( items )"),
    ("takes the last item", "def last ( items ) : return items [ -1 ]"),
    ("copies a list", "def copy ( items ) : return items [ : ]"),
    ("counts letters", "def count ( text ) : return len ( text )"),
    ("makes text lower case", "lower = lambda s : s . lower ( )"),
)
NOISE = ("qwerqwer", "zxcvzxcv", "hjklhjkl", "lorem lorem", "aaaa", "??? ???")
CANNED = (
    "i'm sorry , but i don't understand . please rephrase your question .",
    "as an ai language model , i cannot help with that .",
    "sorry , i am not sure what you mean . how can i help you today ?",
    "i'm sorry , i cannot answer that question .",
)


def _pairs() -> list[tuple[str, str, str]]:
    """(prompt, better response, worse response)"""
    pairs = [(f"explain {name} .", text, CANNED[at % 4]) for at, (name, text) in enumerate(SUBJECTS)]
    pairs += [(f"what is {name} ?", text, CANNED[(at + 1) % 4]) for at, (name, text) in enumerate(SUBJECTS)]
    pairs += [(f"write python that {what} .", text, CANNED[at % 4]) for at, (what, text) in enumerate(CODE)]
    pairs += [(text, "that looks like a slip of the keyboard", CANNED[at % 4]) for at, text in enumerate(NOISE)]
    return pairs


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Word-level, over the words of the pairs, with the role tokens of the chapter template."""
    special = ["[PAD]", "[UNK]", "<|prompter|>", "<|assistant|>", "<|endoftext|>"]
    words = sorted({word for pair in _pairs() for text in pair for word in text.split()})
    plain = Tokenizer(models.WordLevel({word: at for at, word in enumerate([*special, *words])}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain.add_special_tokens(special)
    plain.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1")
    return PreTrainedTokenizerFast(
        tokenizer_object=plain,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="<|endoftext|>",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@pytest.fixture(scope="session")
def reward_model_folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with the trained model; takes a few seconds."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
            num_labels=1,
        )
    )
    template = "<|prompter|>{}<|endoftext|><|assistant|>{}<|endoftext|>"
    texts = [template.format(prompt, good) for prompt, good, _ in _pairs()]
    texts += [template.format(prompt, bad) for prompt, _, bad in _pairs()]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        scores = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.squeeze(-1)
        good, bad = scores.chunk(2)
        # A margin, so that the threshold of 1.5 means something, and scores centred on zero.
        loss = -functional.logsigmoid(good - bad - 6).mean() + 0.1 * (good + bad).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("reward_model")
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reference(reference_folder: Path) -> Any:
    """A tiny causal language model, untrained."""
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(reference_folder).eval()


@pytest.fixture(scope="session")
def reference_folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, initializer_range=0.5))
    folder = tmp_path_factory.mktemp("causal")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def pool() -> Dataset:
    """400 rows of 1 to 40 words, three categories of 50, 100 and 250 rows, every response its own."""
    rows = []
    for at in range(400):
        words = " ".join(f"word{at * 7 % 90 + step}" for step in range(1 + at * 17 % 40))
        category = "rare" if at % 8 == 0 else "some" if at % 4 == 1 else "common"
        rows.append({"instruction": f"Question {at}?", "output": f"Answer {at}: {words}.", "category": category})
    return make_pool(rows, source="test")


@pytest.fixture(scope="session")
def alpaca() -> Path:
    """Stanford Alpaca's file, where it is there."""
    root = Path(os.environ.get("QVQ_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")
    path = root / "alpaca" / "alpaca_data.json"
    if not path.exists():
        pytest.skip(f"no {path}; set QVQ_SHARED_DATA to the folder that holds alpaca/")
    return path


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small models are no faster on more, and the scores do not depend on how busy the machine is."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
