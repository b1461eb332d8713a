"""What every scorer that runs a model shares: loading it, naming it, and keeping what it said."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from datasets import Dataset
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hf_logging

from curate.errors import UserError
from curate.example import column, digest, render
from curate.progress import Progress
from curate.scoring.cache import Batch, Portions, Scores, cached_scores

Batches = Callable[[list[str], list[str]], Iterator[tuple[list[int], list[float]]]]
NO_SCORE = "the model's output is not a number"
# What a model of the hub gets as the prompt of a row: the bare request.
BARE = {"without_input": "{instruction}", "with_input": "{instruction}\n\n{input}"}


def texts(pool: Dataset, template: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """(prompts, responses) of a pool."""
    requests = zip(column(pool, "instruction"), column(pool, "input"), strict=True)
    return [render(template, instruction, extra) for instruction, extra in requests], column(pool, "output")


def cached_by_model(
    model_id: str,
    name: str,
    prompts: Sequence[str],
    responses: Sequence[str],
    load: Callable[[ExitStack], Batches],
    cache: Path | None,
    progress: Progress | None,
) -> Scores:
    """Scores from the cache, or from what `load` returns, timed with all that they need: loading and tokenising too.

    The seconds are those of a GPU, or of a core of a CPU, whatever else the machine does. `name` and the content of the
    model are the scorer's identity. What `load` returns maps prompts and responses to
    batches of (positions among them, scores); what it enters in the stack is held open over all portions of the rows.
    """

    def compute(portions: Portions) -> Iterator[Batch]:
        clock = time.perf_counter if torch.cuda.is_available() else time.process_time
        started = clock()
        with ExitStack() as held:
            batches = load(held)
            for rows in portions:
                for some, values in batches([prompts[row] for row in rows], [responses[row] for row in rows]):
                    now = clock()
                    reasons = {rows[at]: NO_SCORE for at, value in zip(some, values, strict=True) if math.isnan(value)}
                    yield Batch([rows[at] for at in some], values, now - started, reasons)
                    started = now

    pairs = list(zip(prompts, responses, strict=True))
    keys = [digest(prompt, response) for prompt, response in pairs]
    sizes = [len(prompt) + len(response) for prompt, response in pairs]
    identity = f"{name}-{model_identity(model_id)}" if cache else ""
    return cached_scores(cache, identity, keys, compute, sizes=sizes, progress=progress)


def device_of(device: str | None) -> str:
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def budget(token_budget: int | None, device: str) -> int:
    return token_budget or (512 if device == "cpu" else 16_384)


def model_identity(model_id: str) -> str:
    """Hash of a folder's files, or the commit of a model on the hub."""
    folder = Path(model_id)
    if not folder.is_dir():
        return f"{model_id.replace('/', '--')}-{_config(model_id)._commit_hash}"
    hashed = blake2b(digest_size=8)
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        hashed.update(f"{path.name}\x1f{path.stat().st_size}\x1f".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                hashed.update(block)
    return hashed.hexdigest()


def _config(model_id: str) -> Any:
    try:
        return AutoConfig.from_pretrained(model_id, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _unusable(model_id, error) from None


def load_model(model_id: str, kind: Any, dtype: str = "float32") -> tuple[Any, Any]:
    """(model, tokenizer). Safetensors, else pickles read as weights only; never a model's own code."""
    _config(model_id)
    with _quiet():
        model, tokenizer, info = _read(model_id, kind, dtype)
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise UserError(f"model {model_id}: has no trained weights for {missing}; name a model tuned for this task")
    return model, tokenizer


def load_causal(model_id: str) -> tuple[Any, Any]:
    """(causal language model, tokenizer)."""
    return load_model(model_id, AutoModelForCausalLM)


def _read(model_id: str, kind: Any, dtype: str) -> tuple[Any, Any, dict[str, Any]]:
    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "output_loading_info": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_id, trust_remote_code=False)
        try:
            model, info = kind.from_pretrained(model_id, use_safetensors=True, **options)
        except OSError:
            model, info = kind.from_pretrained(model_id, use_safetensors=False, weights_only=True, **options)
            print(f"{model_id} has no safetensors: its pickled weights were read as weights only", file=sys.stderr)
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise _unusable(model_id, error) from None
    return model, tokenizer, info


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar and no table from transformers while weights are read; what is wrong with them, we say."""
    bar, verbosity = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity_error()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bar:
            hf_logging.enable_progress_bar()


def _unusable(model_id: str, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
    return UserError(f"model {model_id}: cannot be loaded ({reason}); name a Hugging Face folder or a model of the hub")
