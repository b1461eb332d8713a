"""Several processes inside one run (torchrun, accelerate launch): each computes a part of every batch.

The first process does what a run does; the others follow it into the training and out of it (train/follower.py). The
loss is normalised by the response tokens of the whole step, whoever computes them, so that the curve is that of one
process with the same batch. Without torchrun, and in what the others are not called to, such as a reward model's
training, every function here does nothing.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from . import UserError
from .batches import IGNORED, response_loss
from .config import TrainingConfig

# torchrun's processes wait for the first one while it prepares, evaluates and writes. That one of them is dead is seen
# by torchrun and not by a clock.
PATIENCE = timedelta(days=7)
PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")  # by which accelerate knows that it is one of several

T = TypeVar("T")
_place: dict[str, str] = {}
_called = False
_out_of_step = False


class Stopped(RuntimeError):
    """The first process gave the run up; the others leave the training with it."""


def join() -> None:
    """Become one of torchrun's processes. What is not training goes on as if there were none beside this one."""
    _place.update({name: os.environ.pop(name) for name in PLACE if name in os.environ})
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(_place["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    with _placed():
        distributed.init_process_group(backend, timeout=PATIENCE)


def launched() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if _place else 1


def processes() -> int:
    """How many take part in what is trained now: all that there are where they were called to it, else this one."""
    return launched() if _called else 1


@contextmanager
def called() -> Iterator[None]:
    """Inside, a training is that of all processes."""
    global _called
    _called = True
    try:
        yield
    finally:
        _called = False


def rank() -> int:
    """Which of them this is; 0 writes the store."""
    return distributed.get_rank() if _place else 0


@contextmanager
def _placed() -> Iterator[None]:
    os.environ.update(_place)
    try:
        yield
    finally:
        for name in _place:
            os.environ.pop(name, None)


@contextmanager
def together(training: TrainingConfig) -> Iterator[None]:
    """Inside, transformers and accelerate know of the other processes.

    Raises UserError for a batch that leaves some of them without a row, or an order that they would not share.
    """
    global _out_of_step
    if processes() == 1:
        yield
        return
    rows = training.batch_size // training.accumulate
    if rows < processes():
        most = training.batch_size // processes()
        mend = f"lower it to {most} at most" if most else f"raise training.batch_size to {processes()}"
        raise UserError(f"training.accumulate={training.accumulate}: {rows} rows for {processes()} processes; {mend}")
    if training.group_by_length:
        raise UserError("training.group_by_length=true: its order is not shared by several processes; set it to false")
    try:
        with _placed():
            yield
    except BaseException as error:
        _out_of_step = not getattr(error, "shared", False)  # else the others wait for this one in a step
        raise


def share(rows: Sequence[dict[str, list[int]]]) -> Sequence[dict[str, list[int]]]:
    """This process's part of a batch: every n-th row, or a row without labels where there is none for it."""
    if processes() == 1:
        return rows
    mine = rows[rank() :: processes()]
    nothing = {"input_ids": rows[0]["input_ids"], "labels": [IGNORED] * len(rows[0]["labels"])}
    return mine or [nothing]


def whole_batches(loader: Any) -> Any:
    """The Trainer's loader giving each process the whole batches that one process would see; `share` divides them.

    accelerate deals out batches instead, and fills up an epoch's last one with rows from its beginning.
    """
    if processes() > 1:
        shard = loader.batch_sampler
        shard.num_processes, shard.process_index, shard.even_batches = 1, 0, False
    return loader


def loss(model: Any, batch: dict[str, torch.Tensor], items: torch.Tensor | int | None) -> torch.Tensor:
    """`batches.response_loss`, through the wrapper that averages gradients where there is one.

    `items` are counted over all processes. The wrapper takes the mean of the gradients of what must be a sum, hence
    the factor.
    """
    if not isinstance(model, DistributedDataParallel):
        return response_loss(model, batch, items)
    module = model.module
    forward = module.__dict__.get("forward")

    def compute(*arguments: Any) -> torch.Tensor:  # in the place of forward, for one call
        if forward is None:
            del module.forward
        else:
            module.forward = forward
        return response_loss(module, *arguments)

    module.forward = compute
    return model(batch, items) * processes()


def summed(loss: torch.Tensor, tokens: int) -> tuple[float, int]:
    """Loss and tokens of a micro-batch over all processes; `loss` as `loss` above gives it."""
    if processes() == 1:
        return float(loss), tokens
    both = torch.tensor([float(loss) / processes(), tokens], dtype=torch.float64, device=loss.device)
    distributed.all_reduce(both)
    return float(both[0]), int(both[1])


def by_the_first(evaluate: Callable[[Any, T], None]) -> Callable[[Any, T], None]:
    """`evaluate` on the first process, while the others wait for it; if it fails they leave with `Stopped`."""

    def at_point(model: Any, point: T) -> None:
        if processes() == 1:
            evaluate(model, point)
        elif rank():
            if not heard():
                error = Stopped("the first process gave this run up")
                error.shared = True  # type: ignore[attr-defined]
                raise error
        else:
            try:
                evaluate(model, point)
            except BaseException as error:
                error.shared = True  # type: ignore[attr-defined]
                say(False)
                raise
            say(True)

    return at_point


def say(value: Any) -> None:
    """From the first process to all others. Raises RuntimeError when they no longer listen."""
    if _out_of_step:
        raise RuntimeError("the other processes were left in the middle of a step by an earlier failure; start again")
    distributed.broadcast_object_list([value], src=0, device=torch.device("cpu"))


def heard() -> Any:
    """What the first process says next."""
    box: list[Any] = [None]
    distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def out_of_step() -> bool:
    """Whether a failure has left the processes at different places; only a new start helps."""
    return _out_of_step
