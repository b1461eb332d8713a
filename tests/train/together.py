"""Small trainings for torchrun's processes: `torchrun --nproc-per-node 2 -m tests.train.together FOLDER`.

FOLDER/base is the model. The first process writes FOLDER/found.json, what `trainings` returns.
"""

import json
import sys
from pathlib import Path

from train import UserError, distributed, follower
from train.batches import Row
from train.config import ModelConfig, RewardModelConfig, TrainingConfig
from train.finetune import NotFinite, finetune
from train.models import load_to_tune, with_lora

# 41 rows of many lengths: the last batch of an epoch is a single row, of which one of two processes has nothing
ROWS = [Row(f"<q> w{i % 40} <a>", "ok : " + f"w{(7 * i + 3) % 40} " * (1 + i % 5)) for i in range(41)]
REWARD = RewardModelConfig(epochs=1, lr=1e-3, batch_size=8, max_length=16, held_out=0.1)
ADAPTERS = {"r": 4, "alpha": 8}
# name -> keys of the training, adapters; one after the other, so that what one leaves behind is felt by the next
CASES = {
    "plain": ({}, None),
    "too many": ({"accumulate": 8}, None),
    "by length": ({"group_by_length": True}, None),
    "full disk": ({}, None),
    "between": ({}, None),
    "accumulated": ({"accumulate": 3, "batch_size": 9}, None),
    "diverged": ({"lr": 1e30, "warmup": 0}, None),
    "adapters": ({"tokens_trained": ("ok", ":")}, ADAPTERS),
}


def trainings(base: Path) -> dict:
    """Of every case the losses, the tokens at its points, the size of its weights, or how it failed."""
    found = {}
    for name, (keys, lora) in CASES.items():
        config = ModelConfig(kind="hf", path=str(base), lora=lora, reward=REWARD)
        defaults = {"steps": 12, "points": [5], "batch_size": 8, "lr": 3e-3, "warmup": 2, "max_length": 16}
        training = TrainingConfig(**{**defaults, **keys})
        model, tokenizer = load_to_tune(base, config)
        if config.lora is not None:
            model = with_lora(model, tokenizer, config.lora, training.tokens_trained, 0)

        def evaluate(model, point, name=name):
            if name == "full disk" and point.step == 5:
                raise OSError("no space left on device")

        if name == "between":  # of the first process alone: the others are not there, and are not waited for
            finetune(load_to_tune(base, config)[0], tokenizer, ROWS, training, 1, evaluate)
        try:
            with follower.together(follower.Call(base, config, ROWS, training, 0)):
                curve = finetune(model, tokenizer, ROWS, training, 0, evaluate)
        except (NotFinite, OSError, UserError) as error:
            found[name] = {"error": str(error)}
            continue
        sizes = [float(p.detach().double().abs().sum()) for p in model.parameters() if p.requires_grad]
        tokens = [point.tokens for point in curve.points]
        found[name] = {"losses": curve.losses, "tokens": tokens, "row_tokens": curve.row_tokens, "sizes": sizes}
    return found


if __name__ == "__main__":
    distributed.join()
    if distributed.rank():
        sys.exit(follower.follow())
    folder = Path(sys.argv[1])
    found = trainings(folder / "base") | {"processes": distributed.launched()}
    follower.release()
    (folder / "found.json").write_text(json.dumps(found))
