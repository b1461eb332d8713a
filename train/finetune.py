"""One fine-tuning run: rows, a model and a budget in; a tuned model and its curve out."""

import functools
import math
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import accelerate.optimizer
import numpy as np
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import set_seed

from . import UserError, checkpoints, distributed
from .batches import IGNORED, Row, collate, encode
from .config import TrainingConfig
from .models import device, token_ids

# At every step accelerate searches the import path twice for an optimiser that nobody has: half a millisecond of twenty
if hasattr(accelerate.optimizer, "is_lomo_available"):
    accelerate.optimizer.is_lomo_available = functools.cache(accelerate.optimizer.is_lomo_available)


@dataclass(frozen=True)
class Point:
    """Where on the curve: optimiser steps done, epochs, tokens seen (padding not counted), training seconds so far.

    Seconds are those of a GPU, or of one core of a CPU: what else the machine does, or that it sleeps, costs nothing.
    `loss` is the mean training loss of the last LOSS_WINDOW steps, in nats a response token.
    """

    step: int
    epoch: float
    tokens: int
    train_s: float
    last: bool
    loss: float


@dataclass
class Curve:
    """What one run did."""

    points: list[Point] = field(default_factory=list)
    row_tokens: int = 0  # of one pass over the rows
    eval_s: float = 0.0
    losses: list[float] = field(default_factory=list)  # of every optimiser step, nats a response token


@dataclass(frozen=True)
class Checkpoint:
    """Where an interrupted run goes on from, and what its caller keeps there (JSON) beside model and curve."""

    path: Path
    every_s: float  # seconds between two of them
    kept: Callable[[], Any]
    restore: Callable[[Any], None]


LOSS_WINDOW = 20  # steps that a point's loss is the mean of
SPIKE_WINDOW, SPIKE_WIDTH = 25, 6.0


def spikes(losses: Sequence[float], warmup: int) -> tuple[int, int]:
    """How many steps after the warm-up are loss spikes, and of how many steps that could be said.

    A spike is a loss above median + 6 * 1.4826 * MAD of the 25 losses before it: six standard deviations of a normal
    sample, by estimates that neither the fall of the loss nor an earlier spike pulls along. The first 25 steps have
    no such window.
    """
    values = np.asarray(losses, float)
    if len(values) <= SPIKE_WINDOW:
        return 0, 0
    windows = np.lib.stride_tricks.sliding_window_view(values, SPIKE_WINDOW)[:-1]
    median = np.median(windows, 1)
    deviation = 1.4826 * np.median(np.abs(windows - median[:, None]), 1)
    high = values[SPIKE_WINDOW:] > median + SPIKE_WIDTH * deviation
    judged = high[max(0, warmup - SPIKE_WINDOW) :]
    return int(judged.sum()), len(judged)


Evaluate = Callable[[Any, Point], None]


class NotFinite(RuntimeError):
    """The loss left the finite numbers; the run is lost and says at which step."""

    certain = True  # the same steps lead there again
    shared = True  # of several processes all see it, at the same step

    def __init__(self, step: int):
        super().__init__(f"the loss is not finite at step {step}")
        self.step = step


def steps_of(budget: TrainingConfig, rows: int, row_tokens: int) -> int:
    """The budget as optimiser steps: given as steps, or as epochs or tokens over these rows."""
    per_epoch = -(-rows // budget.batch_size)
    if budget.steps is not None:
        return budget.steps
    if budget.epochs is not None:
        return max(1, round(budget.epochs * per_epoch))
    assert budget.tokens is not None
    return max(1, round(budget.tokens / row_tokens * per_epoch))


def points_of(budget: TrainingConfig, steps: int) -> list[int]:
    """The steps after which the run is evaluated; the last step always is."""
    chosen = {round(p * steps) if isinstance(p, float) else p for p in budget.points}
    return sorted({s for s in chosen if 0 < s < steps} | {steps})


def finetune(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    training: TrainingConfig,
    seed: int,
    evaluate: Evaluate,
    checkpoint: Checkpoint | None = None,
    at_step: Callable[[int], None] = lambda step: None,
) -> Curve:
    """Tune `model` in place on `rows` with a constant rate after the warm-up, calling `evaluate` at every point.

    `at_step` is told of every step, before an evaluation and after it. With a constant rate a point of the curve is
    what a shorter run would have given. The order of the rows comes from `seed` alone. What `checkpoint` finds is
    gone on with, to the same bytes on a CPU as without the break; Ctrl-C leaves one after the batch in hand.
    Raises UserError for an empty set, NotFinite when the loss diverges.
    """
    if not rows:
        raise UserError("selection: no row is left to train on; keep at least one")
    encoded = encode(tokenizer, rows, training.max_length)
    curve = Curve(row_tokens=sum(len(e["input_ids"]) for e in encoded))
    steps = steps_of(training, len(encoded), curve.row_tokens)
    model.to(device())  # the Trainer would, and later
    release = _train_only(model, tokenizer, training.tokens_trained)
    # the Trainer wants a folder, and writes nothing into it
    with tempfile.TemporaryDirectory() as nowhere, distributed.together(training):
        trainer = _CompletionTrainer(
            model=model,
            args=_arguments(training, steps, seed, nowhere),
            train_dataset=encoded,  # a list serves as a map-style data set
            data_collator=lambda batch: collate(distributed.share(batch), tokenizer.pad_token_id),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.losses = curve.losses
        evaluate = distributed.by_the_first(evaluate)
        points = _Points(trainer, points_of(training, steps), evaluate, curve, at_step)
        trainer.add_callback(points)
        resumed = None
        if checkpoint and (found := checkpoints.load(checkpoint.path, model)):
            resumed = _resume(found, trainer, points, Path(nowhere))
            checkpoint.restore(found[0]["kept"])
        model.config.use_cache = False
        writes = checkpoint is not None and distributed.rank() == 0
        with _stop_after_the_batch(writes) as asked:
            if checkpoint and writes:
                trainer.add_callback(_Checkpoints(trainer, points, checkpoint, asked))  # after the points: they count
            trainer.train(resume_from_checkpoint=resumed)
    release()
    return curve


class _CompletionTrainer(Trainer):
    """Loss on responses only, with what it was at every step, and a count of the tokens that were seen."""

    tokens = 0
    tokens_here = 0  # of this process's part of the last micro-batch
    losses: list[float]
    position: dict[str, Any]  # of the checkpoint that is gone on with, and the optimiser's state in it
    slots: dict[int, dict[str, torch.Tensor]]

    # The Trainer's own checkpoints are pickles; where it would read one, it is given what `checkpoints` has read.

    def _load_from_checkpoint(self, *_: Any) -> None:
        pass  # the weights are in the model already

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.set_slots(self.optimizer, self.slots)
            self.lr_scheduler.load_state_dict(self.position["schedule"])
            for group, rate in zip(self.optimizer.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
                group["lr"] = rate

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.set_random_states(self.position["random"])

    def floating_point_ops(self, inputs):
        return 0  # asked for at every step, a walk over all parameters, and told to nobody

    def get_train_dataloader(self):
        return distributed.whole_batches(super().get_train_dataloader())

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        rows = (inputs["labels"] != IGNORED).any(1)  # one without labels stands for no row: `distributed.share`
        self.tokens_here = int(inputs["attention_mask"][rows].sum())
        return distributed.loss(model, inputs, num_items_in_batch)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        value, tokens = distributed.summed(loss, self.tokens_here)
        if not math.isfinite(value):
            raise NotFinite(self.state.global_step + 1)
        if self.state.global_step == len(self.losses):
            self.losses.append(0.0)
        self.losses[-1] += value  # the losses of a step's micro-batches sum up to its own
        self.tokens += tokens
        return loss


class _Points(TrainerCallback):
    def __init__(
        self,
        trainer: _CompletionTrainer,
        points: list[int],
        evaluate: Evaluate,
        curve: Curve,
        at_step: Callable[[int], None],
    ):
        self.trainer, self.points, self.evaluate, self.curve = trainer, set(points), evaluate, curve
        self.at_step = at_step
        self.before = 0.0  # seconds that the run had taken when it was interrupted
        self.seconds = time.perf_counter if torch.cuda.is_available() else time.process_time
        self.started = self.seconds()

    def on_train_begin(self, args, state, control, **kwargs):
        self.started = self.seconds() - self.before

    def on_step_end(self, args, state, control, **kwargs):
        self.at_step(state.global_step)  # before the evaluation too, which may take its time
        if state.global_step not in self.points:
            return
        now = self.seconds()
        point = Point(
            step=state.global_step,
            epoch=round(float(state.epoch or 0), 6),
            tokens=self.trainer.tokens,
            train_s=now - self.started - self.curve.eval_s,
            last=state.global_step == state.max_steps,
            loss=float(np.mean(self.curve.losses[-LOSS_WINDOW:])),
        )
        self.curve.points.append(point)
        model = kwargs["model"]
        model.eval()
        self.evaluate(model, point)
        model.train()
        self.curve.eval_s += self.seconds() - now
        self.at_step(state.global_step)


class _Checkpoints(TrainerCallback):
    def __init__(self, trainer: _CompletionTrainer, points: _Points, checkpoint: Checkpoint, asked: Callable[[], bool]):
        self.trainer, self.points, self.checkpoint, self.asked = trainer, points, checkpoint, asked
        self.last = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        stop = self.asked()
        if state.global_step == state.max_steps or not (
            stop or time.perf_counter() - self.last >= self.checkpoint.every_s
        ):
            return
        position = {
            "curve": asdict(self.points.curve),
            "tokens": self.trainer.tokens,
            "seconds": self.points.seconds() - self.points.started,
            "random": checkpoints.random_states(),
            "schedule": kwargs["lr_scheduler"].state_dict(),
            "trainer": asdict(state),
            "kept": self.checkpoint.kept(),
        }
        checkpoints.save(self.checkpoint.path, self.trainer.model, kwargs["optimizer"], position)
        self.last = time.perf_counter()
        if stop:
            raise KeyboardInterrupt


def _resume(found: tuple[dict[str, Any], Any], trainer: _CompletionTrainer, points: _Points, folder: Path) -> str:
    """Set the trainer to where the checkpoint was left; returns the folder in which it looks for its own state."""
    position, slots = found
    trainer.position, trainer.slots, trainer.tokens = position, slots, position["tokens"]
    curve = points.curve
    curve.points[:] = [Point(**point) for point in position["curve"]["points"]]
    curve.losses[:] = position["curve"]["losses"]
    curve.eval_s = position["curve"]["eval_s"]
    points.before = position["seconds"]
    TrainerState(**position["trainer"]).save_to_json(str(folder / TRAINER_STATE_NAME))
    return str(folder)


@contextmanager
def _stop_after_the_batch(wanted: bool) -> Iterator[Callable[[], bool]]:
    """Inside, a first Ctrl-C is only noted, which the value tells; a second one interrupts at once."""
    asked = False

    def note(*_: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    if not wanted or threading.current_thread() is not threading.main_thread():  # only there signals may be handled
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def _arguments(training: TrainingConfig, steps: int, seed: int, folder: str) -> TrainingArguments:
    return quiet_arguments(
        folder,
        seed,
        max_steps=steps,
        per_device_train_batch_size=training.batch_size // training.accumulate,
        gradient_accumulation_steps=training.accumulate,
        learning_rate=training.lr,
        weight_decay=training.weight_decay,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=training.warmup,
        max_grad_norm=training.max_grad_norm,
        bf16=training.bf16,
        train_sampling_strategy="group_by_length" if training.group_by_length else "random",
    )


def quiet_arguments(folder: str, seed: int, **keys: Any) -> TrainingArguments:
    """Arguments of a Trainer that saves, logs and prints nothing, and draws everything from `seed`."""
    set_seed(seed)  # new heads, adapters and dropout draw from the global generators
    arguments = TrainingArguments(
        output_dir=folder,
        optim="adamw_torch_fused",
        seed=seed,
        data_seed=seed,
        remove_unused_columns=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,  # there are none, and looking for them costs a pass over the graph
        **keys,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # a process has one GPU; for several there is torchrun
    return arguments


def _train_only(model: Any, tokenizer: Any, tokens: tuple[str, ...] | None) -> Callable[[], None]:
    """Freeze the embedding matrix but for the rows of `tokens`; None trains it whole. Returns the undoing.

    With a tied matrix and a few thousand rows, the drift of the embeddings is what makes small models forget what
    they know; the rows of the format are the ones that a base has not learnt.
    """
    if tokens is None or hasattr(model, "peft_config"):  # adapters hold the rows of `tokens` themselves: `with_lora`
        return lambda: None
    weight = model.get_input_embeddings().weight
    ids = token_ids(tokenizer, tokens)
    mask = torch.zeros(weight.shape[0], 1, device=weight.device)
    mask[ids] = 1
    return weight.register_hook(lambda gradient: gradient * mask).remove
