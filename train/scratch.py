"""A model that has read nothing: random weights, and a tokeniser of its own, as a Hugging Face folder."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from .config import ScratchConfig
from .models import new_llama, word_tokenizer

SPECIAL = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
POSITIONS = 2048


def byte_tokenizer(texts: Sequence[str], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE (Radford et al. 2019) of at most `size` tokens, learnt from `texts`; no text is unknown."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False, **SPECIAL)


def scratch(
    out: Path, settings: ScratchConfig, seed: int, *, vocabulary: list[str] | None, texts: Sequence[str] = ()
) -> None:
    """Write model and tokeniser into the folder `out`; the weights come from `seed`.

    With a closed `vocabulary` of words the tokeniser knows these; without one it is learnt from `texts`.
    """
    tokenizer = word_tokenizer(vocabulary) if vocabulary else byte_tokenizer(texts, settings.vocabulary)
    model = new_llama(
        tokenizer,
        hidden=settings.hidden,
        layers=settings.layers,
        heads=settings.hidden // settings.head,
        mlp=settings.hidden * settings.mlp,
        positions=POSITIONS,
        seed=seed,
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
