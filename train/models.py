"""Tokenisers and causal language models: built from scratch, or loaded from a folder, the hub or a package."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from . import UserError


def word_tokenizer(vocabulary: list[str]) -> PreTrainedTokenizerFast:
    """A word-level tokeniser over a closed vocabulary that holds <pad>, <eos> and <unk>; words are split at spaces."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", clean_up_tokenization_spaces=False
    )


def new_llama(tokenizer: Any, *, hidden: int, layers: int, heads: int, mlp: int, positions: int, seed: int) -> LlamaForCausalLM:
    """A Llama-architecture causal LM with random weights and tied embeddings."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=mlp,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def load_causal_lm(name: str | Path) -> tuple[Any, Any]:
    """Model (fp32, on the CPU) and tokeniser of a Hugging Face folder or hub id.

    Raises UserError when nothing loadable is there.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name))
        model = AutoModelForCausalLM.from_pretrained(str(name), dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"model.path: {name} cannot be loaded ({reason}); give a Hugging Face folder or hub id") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def load_tokenizer(name: str | Path) -> Any:
    """The tokeniser alone."""
    return AutoTokenizer.from_pretrained(str(name))
