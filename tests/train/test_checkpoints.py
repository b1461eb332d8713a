"""A run that was interrupted and one that was not give the same bytes; what is torn is set aside."""

import os
import signal
from dataclasses import replace

import pytest
import torch

from tests.train.test_finetune import ROWS, training
from train import checkpoints
from train.config import LoraConfig
from train.finetune import Checkpoint, finetune
from train.models import with_lora


class Killed(Exception):
    pass


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def tuned(model, tokenizer, path, *, every_s=0.0, at_point=lambda model, point: None, kept=(), **keys):
    """The curve, less the seconds of its points, and what the caller kept."""
    kept = list(kept)

    def evaluate(model, point):
        at_point(model, point)
        kept.append(point.step)

    checkpoint = path and Checkpoint(path, every_s, lambda: kept, lambda found: kept.extend(found))
    curve = finetune(model, tokenizer, ROWS, training(**keys), 0, evaluate, checkpoint)
    return [replace(point, train_s=0) for point in curve.points], curve.losses, curve.row_tokens, kept


def killed_at(step):
    def at_point(model, point):
        if point.step == step:
            raise Killed

    return at_point


SETTINGS = {"plain": {}, "accumulated": {"accumulate": 2}, "long": {"steps": 23, "points": [3, 5, 10, 17]}}


@pytest.mark.parametrize("step", [4, 8])
@pytest.mark.parametrize("name", SETTINGS)
def test_it_goes_on_to_the_same_bytes(tokenizer, make_model, tmp_path, name, step):
    keys = {"points": [4, 8], **SETTINGS[name]}
    if name == "long":
        step = {4: 10, 8: 17}[step]
    whole, broken, resumed = make_model(), make_model(), make_model()
    wanted = tuned(whole, tokenizer, None, **keys)
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        tuned(broken, tokenizer, path, at_point=killed_at(step), **keys)
    asked = []
    found = tuned(resumed, tokenizer, path, at_point=lambda model, point: asked.append(point.step), **keys)
    assert found == wanted
    assert asked == [s for s in wanted[3] if s >= step]  # earlier points were kept
    assert torch.equal(weights(whole), weights(resumed))


def test_adapters_and_their_dropout_go_on_too(tokenizer, make_model, tmp_path):
    adapters = LoraConfig(r=4, alpha=8, dropout=0.3)
    whole, broken, resumed = (with_lora(make_model(), tokenizer, adapters, ("<q>", "<a>"), 0) for _ in range(3))
    wanted = tuned(whole, tokenizer, None)
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        tuned(broken, tokenizer, path, at_point=killed_at(8))
    assert path.stat().st_size < 200_000  # adapters, not the model
    assert tuned(resumed, tokenizer, path) == wanted
    assert torch.equal(weights(whole), weights(resumed))


def test_ctrl_c_leaves_a_checkpoint_after_the_batch(tokenizer, make_model, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    handler = signal.getsignal(signal.SIGINT)

    def interrupt(model, point):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        tuned(make_model(), tokenizer, path, every_s=3600, at_point=interrupt)
    assert signal.getsignal(signal.SIGINT) is handler
    resumed, whole = make_model(), make_model()
    assert tuned(resumed, tokenizer, path) == tuned(whole, tokenizer, None)  # the point that was made is not made again
    assert torch.equal(weights(whole), weights(resumed))


def test_a_second_ctrl_c_does_not_wait(tokenizer, make_model, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    reached = []

    def interrupt(model, point):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        reached.append(point.step)

    with pytest.raises(KeyboardInterrupt):
        tuned(make_model(), tokenizer, path, every_s=3600, at_point=interrupt)
    assert not path.exists() and not reached


def test_short_runs_write_nothing(tokenizer, make_model, tmp_path):
    tuned(make_model(), tokenizer, tmp_path / "checkpoint.safetensors", every_s=3600)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("harm", ["cut", "emptied", "another model"])
def test_what_is_torn_is_set_aside_and_the_run_begins_again(tokenizer, make_model, tmp_path, harm):
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        tuned(make_model(), tokenizer, path, at_point=killed_at(8))
    if harm == "another model":
        checkpoints.save(path, make_model(hidden=16), torch.optim.AdamW(make_model().parameters()), {})
    else:
        path.write_bytes(path.read_bytes()[: 1000 if harm == "cut" else 0])
    again, whole = make_model(), make_model()
    assert tuned(again, tokenizer, path, every_s=3600) == tuned(whole, tokenizer, None)
    assert torch.equal(weights(whole), weights(again))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors.corrupt"]
