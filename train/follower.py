"""What torchrun's processes but the first do: the trainings that it calls them to, and nothing else.

They write nothing and evaluate nothing. Files that a run starts from must be visible to all of them.
"""

import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from . import UserError, distributed
from .batches import Row
from .config import ModelConfig, TrainingConfig
from .finetune import Checkpoint, NotFinite, finetune
from .models import load_to_tune, with_lora


@dataclass(frozen=True)
class Call:
    """A training to take part in: where the model lies, what it is tuned on, and where a checkpoint may lie."""

    base: Path
    model: ModelConfig
    rows: Sequence[Row]
    training: TrainingConfig
    seed: int
    checkpoint: Path | None = None


@contextmanager
def together(wanted: Call) -> Iterator[None]:
    """Inside, the first process does the training that the others are called to. Without others nothing happens."""
    if distributed.launched() > 1:
        distributed.say(wanted)
    with distributed.called():
        yield


def release() -> None:
    """Send the others home: there is nothing more to train."""
    if distributed.launched() > 1 and not distributed.out_of_step():
        with suppress(RuntimeError):  # they are gone already
            distributed.say(None)


def follow() -> int:
    """Take part in what the first process calls for until it has no more; returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to answer; torchrun ends the others
    while (found := distributed.heard()) is not None:
        take_part(found)
    return 0


def take_part(wanted: Call) -> None:
    """One training; its weights are lost afterwards. A run that the first process gives up is left without a word."""
    model, tokenizer = load_to_tune(wanted.base, wanted.model)
    if wanted.model.lora is not None:
        model = with_lora(model, tokenizer, wanted.model.lora, wanted.training.tokens_trained, wanted.seed)
    with suppress(NotFinite, distributed.Stopped, UserError), distributed.called():
        # the first process writes it; those that go on from it need what is in it too
        path = wanted.checkpoint
        checkpoint = Checkpoint(path, math.inf, list, lambda kept: None) if path else None
        finetune(model, tokenizer, wanted.rows, wanted.training, wanted.seed, lambda *_: None, checkpoint)
