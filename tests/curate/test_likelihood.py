"""The likelihood of a response: batches change nothing, and it is what it says."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from curate import UserError
from curate.scoring.likelihood import by_length, encode_joined, mean_log_likelihood

PROMPTS = ["explain recursion .", "what is inflation ?", "", "write python that adds two numbers . " * 4, "a"]
RESPONSES = [
    "a function calls itself",
    "prices rise",
    "so that each coin buys less",
    "def add",
    "sorry , i am not sure",
]


def llama(tokenizer: Any) -> Any:
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    return LlamaForCausalLM(config)


def gpt2(tokenizer: Any) -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=128))


def gemma(tokenizer: Any) -> Any:
    """Rescales its logits, which only its own head knows."""
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        final_logit_softcapping=2.0,
    )
    return Gemma2ForCausalLM(config)


def by_the_book(model: Any, tokenizer: Any, prompt: str, response: str) -> float:
    """One row, one pass, every position."""
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    after = [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([before + after])).logits[0].log_softmax(-1)
    gained = [logits[at - 1, (before + after)[at]].item() for at in range(max(1, len(before)), len(before + after))]
    return float(np.mean(gained))


@pytest.mark.parametrize("build", [llama, gpt2, gemma])
@pytest.mark.parametrize("budget", [1, 16, 64, 10_000])
def test_equal_to_row_by_row(tokenizer: Any, build: Any, budget: int) -> None:
    torch.manual_seed(0)
    model = build(tokenizer).eval()
    expected = [by_the_book(model, tokenizer, *pair) for pair in zip(PROMPTS, RESPONSES, strict=True)]
    found = mean_log_likelihood(model, tokenizer, PROMPTS, RESPONSES, max_length=128, token_budget=budget)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(set(np.round(expected, 4))) == len(expected)


def test_encoding_cuts_response_right_and_prompt_left(tokenizer: Any) -> None:
    words = [f"w{at}" for at in range(20)]
    ids = tokenizer.convert_tokens_to_ids
    end = tokenizer.eos_token_id
    [(before, after)] = encode_joined(tokenizer, ["explain recursion"], ["a function calls"], 10)
    assert before == ids(["explain", "recursion"])
    assert after == [*ids(["a", "function", "calls"]), end]
    [(before, after)] = encode_joined(tokenizer, ["explain recursion"], ["a " * 20], 10)
    assert (len(before), len(after)) == (2, 8)
    assert end not in after
    [(before, after)] = encode_joined(tokenizer, [" ".join([*words, "recursion"])], ["a function calls itself on"], 10)
    assert (len(before), len(after)) == (5, 5)
    assert before[-1] == ids("recursion")


def test_a_text_begins_as_its_tokeniser_begins_texts(tokenizer: Any) -> None:
    from tokenizers import processors

    tokenizer = copy.deepcopy(tokenizer)  # all tests share the fixture
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    start, ids = tokenizer.bos_token_id, tokenizer.convert_tokens_to_ids
    tokenizer.backend_tokenizer.post_processor = None
    [(before, _)] = encode_joined(tokenizer, ["explain recursion"], ["a function calls"], 10)
    assert before == ids(["explain", "recursion"])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", start)]
    )
    [(before, after)] = encode_joined(tokenizer, ["explain recursion"], ["a " * 20], 10)
    assert before == [start, *ids(["explain", "recursion"])]
    assert len(before + after) == 10


def test_batches_by_length() -> None:
    lengths = [3, 9, 4, 4, 9, 1, 30]
    batches = by_length(lengths, 20)
    assert batches == [[6], [1, 4], [2, 3, 0], [5]]  # 1 is too short for a batch of 4
    assert sorted(row for batch in batches for row in batch) == list(range(7))
    assert by_length(lengths, 1) == [[6], [1], [4], [2], [3], [0], [5]]
    assert by_length([], 20) == []
    assert by_length([250, 10, 9, 8, 7], 512) == [
        [0],
        [1, 2, 3],
        [4],
    ]  # a long row is not what short ones are padded to


def test_nothing_to_score_and_no_end_token(tokenizer: Any) -> None:
    model = llama(tokenizer)
    assert len(mean_log_likelihood(model, tokenizer, [], [], max_length=8, token_budget=8)) == 0
    end, tokenizer.eos_token = tokenizer.eos_token, None
    try:
        with pytest.raises(UserError, match="no end token"):
            mean_log_likelihood(model, tokenizer, ["a"], ["b"], max_length=8, token_budget=8)
    finally:
        tokenizer.eos_token = end
