"""Randomly initialised miniatures of the models of conf/model/ that are loaded from the hub, as folders."""

import torch
from tokenizers import processors
from transformers import AutoConfig, AutoModelForCausalLM

from train.models import word_tokenizer
from train.scratch import byte_tokenizer

LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "max_position_embeddings": 128}
# what makes each of them what it is, as its config.json on the hub has it: the rest is small
MINIATURES = {
    "smollm2_135m": {
        "model_type": "llama",
        "hidden_size": 36,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
        "rope_theta": 100000,
    },
    "smollm2_360m": {
        "model_type": "llama",
        "hidden_size": 60,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "tie_word_embeddings": True,
        "rope_theta": 100000,
    },
    "qwen25_05b": {
        "model_type": "qwen2",
        "hidden_size": 56,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6,
    },
    "llama32_1b": {
        "model_type": "llama",
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "rope_theta": 500000.0,
        "rope_scaling": {**LLAMA3, "factor": 32.0},
    },
    "llama2_7b": {
        "model_type": "llama",
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
    "llama31_8b": {
        "model_type": "llama",
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
        "rope_theta": 500000.0,
        "rope_scaling": {**LLAMA3, "factor": 8.0},
    },
}


def save(folder, name, vocabulary):
    """The miniature and a tokeniser: Llama's begin every text with a token of their own, Qwen's knows bytes only."""
    tokenizer = byte_tokenizer([], 300) if name.startswith("qwen") else word_tokenizer([*vocabulary, "<s>"])
    if name.startswith("llama"):
        tokenizer.add_special_tokens({"bos_token": "<s>"})
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
        )
    tokenizer.pad_token = None  # as with Llama's: another has to stand in
    torch.manual_seed(0)
    keys = {**SMALL, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, **MINIATURES[name]}
    settings = AutoConfig.for_model(**keys, bos_token_id=tokenizer.bos_token_id)
    AutoModelForCausalLM.from_config(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
