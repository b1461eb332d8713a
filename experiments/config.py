"""From Hydra's composed tree to a checked, frozen config, and from a config to the id of its run.

Nothing is read from disk before every key is checked. A run's id depends on what determines its result and on nothing
else, so that equal runs of different experiments are one run.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from curate import microworld
from curate.config import (
    SCORER_KEYS,
    DataConfig,
    DuplicationConfig,
    NoiseConfig,
    RewriteConfig,
    ScorerConfig,
    SelectionConfig,
    explain,
)  # fmt: skip
from curate.reading import HUB
from curate.select import USES_SEED, uses_scores
from experiments import UserError
from experiments.suites.config import EvaluationConfig
from train.config import ModelConfig, RewardModelConfig, TrainingConfig

# Raised when the results of a package change; part of every run's id.
RESULTS_VERSION = {"curate": 2, "experiments": 3, "train": 1}
DECODER_VERSION = 2  # of what small models go through: train/fused.py; 1 was the layers of transformers

SEEDED = ("micro", "scratch")  # models whose weights come from seed.base

# root keys that say which runs to make, where, and how to show them, not what a run is
NOT_OF_A_RUN = ("experiment", "plan", "cluster", "report", "figures")
REPLIES = {"model", "base_url", "json_schema", "max_tokens"}  # keys of an endpoint on which its replies depend
PATHS = (
    "path",
    "pairs",
    "pairs_valid",
    "model",
    "backbone",
    "target",
    "encoder",
)  # keys whose value may be a file or folder


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Seeds(Frozen):
    """A pair's seeds: arms of one pair share them; the base model cycles over `bases`, the others differ by pair."""

    pair: int = Field(ge=0)
    world: int = Field(0, ge=0)
    bases: int = Field(3, ge=1)
    base: int = Field(ge=0)
    data: int = Field(ge=0)
    select: int = Field(ge=0)
    train: int = Field(ge=0)

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, raw: Any) -> Any:
        pair, bases = raw.get("pair"), raw.get("bases", 3)
        if not (isinstance(pair, int) and isinstance(bases, int) and bases > 0):
            return raw  # the fields' own checks say what is wrong
        derived = {"base": pair % bases, "data": pair, "select": pair, "train": pair}
        return {**raw, **{name: seed for name, seed in derived.items() if raw.get(name) is None}}


OF_NO_MATTER = ("tracking", "store", "survival")  # where a run is kept and how it is looked after changes no result


class TrackingConfig(Frozen):
    """Where wandb mirrors a run to; `models`, the model that the run kept, and `page`, that of the report, too."""

    mode: Literal["offline", "online", "none"] = "offline"
    project: str = Field("quality-vs-quantity", min_length=1)
    entity: str | None = None
    models: bool = False
    page: bool = True


class StoreConfig(Frozen):
    root: str = Field("runs", min_length=1)


class SurvivalConfig(Frozen):
    checkpoint_minutes: float = Field(default=10, gt=0)
    retries: int = Field(default=1, ge=0)
    hang_minutes: float = Field(default=60, gt=0)


class ExperimentConfig(Frozen):
    """Which runs to make and what to judge with them."""

    name: str | None = Field(None, pattern=r"^[\w.-]+$")
    title: str = ""
    pairs: int = Field(6, ge=1)
    pairs_at_most: int | None = Field(None, ge=1)
    sweep: list[dict[str, Any]] = []
    claims: list[str] = []

    @model_validator(mode="after")
    def _stages(self) -> "ExperimentConfig":
        if self.pairs_at_most is not None and self.pairs_at_most < self.pairs:
            raise ValueError(f"pairs_at_most={self.pairs_at_most} is below pairs={self.pairs}; raise it or set null")
        return self


class Config(Frozen):
    """All that a run is made of."""

    data: DataConfig
    noise: NoiseConfig
    scorer: ScorerConfig
    selection: SelectionConfig
    rewrite: RewriteConfig
    duplication: DuplicationConfig
    model: ModelConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    tracking: TrackingConfig
    store: StoreConfig
    survival: SurvivalConfig = SurvivalConfig()
    seed: Seeds
    arm: str = Field(min_length=1)


def plain(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Hydra's tree as plain dicts, interpolations resolved."""
    return OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else dict(cfg)  # type: ignore[return-value]


def validate(cfg: DictConfig | Mapping[str, Any]) -> Config:
    """The config of one run; raises `UserError` with one line that names key, value and mend."""
    try:
        config = Config(**{key: value for key, value in plain(cfg).items() if key not in NOT_OF_A_RUN})
    except ValidationError as error:
        raise UserError(explain(error)) from None
    if config.tracking.models and config.tracking.mode != "none" and not config.model.save:
        raise UserError("tracking.models=true: needs the models that model.save=true keeps; set that too")
    if config.model.kind == "scratch" and config.data.name not in ("text", "world_text"):
        raise UserError(f"model.kind=scratch: has read nothing, and data={config.data.name} asks; use data=stories")
    if config.model.kind in SEEDED:
        return config
    # a model that is loaded is one base, whatever the pair
    return config.model_copy(update={"seed": config.seed.model_copy(update={"base": 0})})


def validate_experiment(cfg: DictConfig | Mapping[str, Any]) -> ExperimentConfig:
    """The part of the tree that says which runs to make."""
    try:
        return ExperimentConfig(**(plain(cfg).get("experiment") or {}))
    except ValidationError as error:
        raise UserError(explain(error, prefix="experiment")) from None


# --- a run's identity -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _digest(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(path: Path) -> str:
    """A hash of a file's bytes, or of all files of a folder with their names; read once per process while unchanged."""
    if path.is_file():
        stat = path.stat()
        return _digest(str(path), stat.st_size, stat.st_mtime_ns)
    parts = [f"{file.relative_to(path)} {content_hash(file)}" for file in sorted(path.rglob("*")) if file.is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def data_root(config: Config) -> Path | None:
    """Where companions of the data lie: data.root, else the folder above the one that holds data.path."""
    if config.data.root:
        return Path(config.data.root)
    path = config.data.path
    return Path(path).resolve().parent.parent if path and not path.startswith(HUB) else None


def _by_content(value: Any, root: Path | None, key: str = "") -> Any:
    """`value` with every path of something that exists, here or under `root`, replaced by the hash of its content."""
    if isinstance(value, dict):
        return {name: _by_content(item, root, name) for name, item in value.items()}
    if isinstance(value, str) and value and key in PATHS:
        for path in [Path(value), *([root / value] if root else [])]:
            if path.exists():
                return f"sha256:{content_hash(path)}"
    return value


def located(config: Config, name: str) -> str:
    """The path `name` as it is, or under the data root where only there is such a file; hub:NAME stays what it is."""
    root = data_root(config)
    under = root is not None and not name.startswith(HUB) and not Path(name).exists() and (root / name).exists()
    return str(root / name) if root is not None and under else name


def check_paths(config: Config) -> None:
    """Raise `UserError` for a data file, a file of a selection, or a path of a model, that does not exist."""
    for key, path in (("data.path", config.data.path), ("selection.path", config.selection.path)):
        if path and not path.startswith(HUB) and not Path(located(config, path)).is_file():
            where = f" here or under data.root={config.data.root}" if config.data.root else ""
            raise UserError(f"{key}={path}: no such file{where}; give a .json, .jsonl, .csv or .parquet file")
    models = [("model.path", config.model.path), *(("scorer.model", one.model) for one in config.scorer.models())]
    for key, value in models:
        of_hub = value and not value.startswith(("/", ".", "~")) and value.count("/") < 2  # NAME or OWNER/NAME
        if value and not of_hub and not Path(value).is_dir():
            raise UserError(f"{key}={value}: no such folder; give a Hugging Face model folder or a hub id")


def essence(config: Config) -> dict[str, Any]:
    """What determines a run's result: the config less what does not matter to it, files by their content."""
    tree = config.model_dump(mode="json", exclude={*OF_NO_MATTER, "arm"})
    seed, selection, duplication = tree["seed"], tree["selection"], tree["duplication"]
    del tree["data"]["root"]  # says where companions are looked for; what is found is named by its content
    if config.data.facts == "all":
        del tree["data"]["facts"]
    for name in ("primary", "mode"):  # what a report leads with
        tree["evaluation"].pop(name, None)
    # what came later and is off is no part of a run, so that older runs keep their ids
    if config.evaluation.generate is None:
        del tree["evaluation"]["generate"]
    if config.evaluation.pairwise is not None:
        tree["evaluation"]["pairwise"]["endpoint"] = config.evaluation.pairwise.endpoint.model_dump(include=REPLIES)
    for name in ("styles", "drop_asked"):
        if not tree["data"][name]:
            del tree["data"][name]

    # how the model's arithmetic is laid out on the device, and no part of what is learnt
    del tree["model"]["attention"], tree["model"]["checkpointing"]
    if config.model.dtype == "float32":
        del tree["model"]["dtype"]

    _without_unset(tree)
    if config.noise.kind == "none" or config.noise.rate == 0:
        tree["noise"] = None
    duplicates = config.duplication.mode != "none" and config.duplication.rate > 0
    if not duplicates:
        tree["duplication"] = None
    else:
        tree["duplication"] = {name: value for name, value in duplication.items() if value is not None}
    if config.selection.kind == "all":
        tree["selection"] = None
    else:
        tree["selection"] = {name: value for name, value in selection.items() if value is not None}
    tree["scorer"] = _scorer(config.scorer) if scores_are_used(config) else None
    if config.rewrite.by == "none":
        del tree["rewrite"]
    if trains_reward_model(config):
        tree["model"]["reward"] = reward_essence(config.model.reward)
    else:
        del tree["model"]["reward"], tree["data"]["pairs"], tree["data"]["pairs_valid"]

    del seed["pair"], seed["bases"]  # they only choose the other seeds
    if config.model.kind not in SEEDED:
        del seed["base"]
    random_scores = scores_are_used(config) and any(one.kind == "random" for one in config.scorer.models())
    drawn = config.selection.kind in USES_SEED or (config.selection.kind == "from_file" and config.selection.k)
    if not (duplicates or drawn or random_scores):
        del seed["select"]
    return _by_content(tree, data_root(config))


def _without_unset(tree: dict[str, Any]) -> None:
    """Drop keys that came later and say nothing where they are null: what does not use them keeps its id."""
    newer = ("entities", "wrong_share", "words", "side", "max_length_ratio")
    places = [(tree["data"], newer), (tree["model"], ("scratch",))]
    places += [(tree["evaluation"], ("probe", "pairwise"))]
    places += [(suite, ("text", "entities", "at")) for suite in tree["evaluation"]["suites"].values()]
    with_what_counts(tree["evaluation"])
    for place, names in places:
        for name in names:
            if place[name] is None:
                del place[name]


def with_what_counts(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The tree of an evaluation, changed: without suites' keys that are newer than published runs and not set."""
    for suite in evaluation["suites"].values():
        for name in ("items", "max_new_tokens"):
            if suite[name] is None:
                del suite[name]
    return evaluation


def scores_are_used(config: Config) -> bool:
    """Whether this run scores its pool."""
    return uses_scores(config.selection.kind, config.selection.floor)


def trains_reward_model(config: Config) -> bool:
    """Whether this run scores its pool with the reward model that is trained here."""
    own = any(one.kind == "reward_model" and one.model is None for one in config.scorer.models())
    return own and scores_are_used(config)


def reward_essence(reward: RewardModelConfig) -> dict[str, Any]:
    """What determines a reward model; keys that are newer than published results are left out where they do nothing."""
    tree = reward.model_dump(mode="json")
    for name in ("length_orthogonal", "padding", "unescape", "head_lr", "bf16"):
        if not tree[name]:
            del tree[name]
    return tree


def _scorer(scorer: ScorerConfig) -> dict[str, Any]:
    """What determines the scores: the keys that the kind reads; of a judge's endpoint what the replies depend on."""
    tree = {"kind": scorer.kind, **{k: getattr(scorer, k) for k in SCORER_KEYS.get(scorer.kind, ())}}
    if scorer.members:
        tree["members"] = [_scorer(member) for member in scorer.members]
    if scorer.endpoint:
        tree["endpoint"] = scorer.endpoint.model_dump(include=REPLIES)
    return {name: value for name, value in tree.items() if value is not None}


def fingerprint(value: Any) -> str:
    """16 hexadecimal digits that stand for a JSON-like value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def config_hash(config: Config) -> str:
    """Of what determines the result, whatever the version of the code."""
    return fingerprint(essence(config))


def reads_world(config: Config) -> bool:
    """Whether the embedded world has a part in this run: its rows, its text, its questions, or a base that read it."""
    asks = any(suite.world for suite in config.evaluation.suites.values())
    return config.data.name in ("microworld", "world_text") or config.model.kind == "micro" or asks


def versions(config: Config) -> dict[str, int]:
    """Of all code that makes this run's result; of the embedded world and the small decoder where they have a part."""
    parts = {"world": microworld.VERSION} if reads_world(config) else {}
    if config.model.kind != "smollm2":  # too large for it, and of another attention
        parts["decoder"] = DECODER_VERSION
    return {**RESULTS_VERSION, **parts}


def run_id(config: Config) -> str:
    """Names the run: its essence and the versions of the code that makes its result."""
    return fingerprint({"config": essence(config), "code": versions(config)})


# --- an experiment's cells ------------------------------------------------------------------------------------------


def _values(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _pairs(own: list[Any] | None, asked: list[int] | None, pairs: int) -> set[int]:
    """Which pairs a block has: of those that were asked for, its own; all where it says nothing."""
    if own is None:
        return set(asked or range(pairs))
    chosen = set(range(min(own[0], pairs)) if len(own) == 1 else own)
    return chosen & set(asked) if asked else chosen


def expand(blocks: Iterable[Mapping[str, Any]], axes: Mapping[str, Iterable[Any]], pairs: int) -> list[dict[str, Any]]:
    """The cells of an experiment, one whole pair of arms after the other.

    Args:
        blocks: each maps keys to a value or a list of values; the axes of a block are crossed, blocks are added. A
            block's own `seed.pair` says which pairs it has: n stands for the first n, a list for those in it.
        axes: key to values from the command line. They take the place of the same key in every block, except that
            `arm` chooses among the blocks' arms where it can: `arm=full` is not "every recipe under the name full".
        pairs: `seed.pair` runs over range(pairs) unless it is an axis.
    """
    given = {key: list(values) for key, values in axes.items()}
    merged = [{key: _values(value) for key, value in block.items()} for block in blocks] or [{}]
    if "arm" in given:
        kept = [
            {**block, "arm": [arm for arm in block["arm"] if arm in given["arm"]]}
            for block in merged
            if set(block.get("arm", [])) & set(given["arm"])
        ]
        if kept:
            merged, _ = kept, given.pop("arm")
    asked = given.pop("seed.pair", None)
    of_block = [_pairs(block.pop("seed.pair", None), asked, pairs) for block in merged]
    cells = []
    for pair in asked or sorted(set().union(*of_block)):
        for block, some in zip(merged, of_block, strict=True):
            if pair not in some:
                continue
            levels = {**block, **given}
            for combination in itertools.product(*levels.values()):
                cells.append({**dict(zip(levels, combination, strict=True)), "seed.pair": pair})
    return cells
