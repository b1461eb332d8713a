"""A reward model from preference pairs, for `python -m curate scorer=reward_model scorer.model=FOLDER`.

    python -m experiments.reward_model pairs=car/expert_pairs_train.csv valid=car/expert_pairs_valid.csv out=FOLDER

`conf/reward_model.yaml` explains each key. Exit codes: 0 done, 2 a mistake in what was asked for, 130 interrupted.
"""

import json
import os
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

import curate
import train
from curate.config import explain
from experiments import UserError, hydra_command, mistaken
from experiments.prepare import read_pairs
from experiments.store import cached_folder
from train.config import RewardModelConfig

CONF = Path(__file__).resolve().parent.parent / "conf"
MISTAKES = (UserError, curate.UserError, train.UserError, HydraException, OmegaConfBaseException, OSError)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="reward_model")
def _app(config: DictConfig) -> None:
    try:
        print(make(OmegaConf.to_container(config, resolve=True)))  # type: ignore[arg-type]
    except MISTAKES as error:
        mistaken(error)  # here, since Hydra would put a line of its own before it


def make(values: dict[str, Any]) -> str:
    """Train the reward model of a config and say how good it is; raises UserError for the first thing wrong."""
    from curate.scoring.embedding import minilm
    from train.reward_model import Pair, train_reward_model

    for key in ("pairs", "out"):
        if values[key] is None:
            raise UserError(f"{key}=null: name {'a file of preference pairs' if key == 'pairs' else 'a new folder'}")
    out = Path(str(values["out"]))
    if out.exists():
        raise UserError(f"out={out}: is there already; name a new folder")
    try:
        config = RewardModelConfig.model_validate(values["reward"])
    except ValidationError as error:
        raise UserError(explain(error, "reward")) from None
    if config.backbone is None or config.template is None:
        raise UserError("reward.backbone, reward.template: null; name an encoder and the prompt it reads")
    template = config.template
    pairs, valid = (
        [] if values[key] is None else [Pair(*pair) for pair in read_pairs(str(values[key]), template, config.unescape)]
        for key in ("pairs", "valid")
    )
    backbone = minilm() if config.backbone == "minilm" else config.backbone

    def build(folder: Path) -> None:
        train_reward_model(folder, backbone, pairs, config, template=template, seed=values["seed"], valid=valid)

    card = json.loads((cached_folder(out, build) / "reward.json").read_text())
    accuracy, tested = card["pairwise_accuracy"], card["pairs"]["test"]
    return (
        f"{out}: pairwise accuracy {accuracy['joint']:.3f} on {tested} pairs, {card['balanced_accuracy']:.3f} with"
        f" longer and shorter chosen ones counted alike; more words win {accuracy['more_words_win']:.3f}"
    )


def main() -> None:
    """Run the Hydra app; a user's mistake is one line on stderr."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    hydra_command(_app)


if __name__ == "__main__":
    main()
