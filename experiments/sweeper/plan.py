"""From an experiment and the command line to the runs that are wanted, each once, in the order they are made in.

A full composition by Hydra costs tens of milliseconds; so each choice of groups is composed once and plain values are
set afterwards, in which order Hydra does it too. Ten thousand cells take seconds.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, Transformer
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from experiments import UserError, store
from experiments.config import OF_NO_MATTER, Config, check_paths, expand, run_id, validate, validate_experiment
from experiments.suites.config import EvaluationConfig
from experiments.table import Cell


@dataclass(frozen=True)
class Plan:
    """What is wanted. `configs` and `overrides` are by run id, in the order of running; cells may share a run."""

    cells: list[Cell]
    configs: dict[str, Config]
    overrides: dict[str, list[str]]
    root: Path
    config_yaml: str
    narrowed: bool  # the command line has axes of its own, so that not every claim may be decided

    @property
    def evaluation(self) -> EvaluationConfig:
        """What the report leads with: that of the first run."""
        return next(iter(self.configs.values())).evaluation


@dataclass(frozen=True)
class Composed:
    """One choice of groups: the tree to set values in, and what was chosen."""

    tree: dict[str, Any]
    choices: dict[str, str]
    interpolated: bool


def make_plan(loader: ConfigLoader, master: DictConfig, arguments: list[str]) -> Plan:
    """Expand `arguments` (the overrides of the command line) and the experiment that they choose.

    Raises `UserError` or Hydra's own errors for whatever is wrong with any cell, before anything is run.
    """
    experiment = validate_experiment(master)
    swept = {key for block in experiment.sweep for key in block} | {"arm", "seed.pair"}
    axes: dict[str, list[Any]] = {}
    fixed: list[str] = []
    for override in OverridesParser.create(config_loader=loader).parse_overrides(arguments):
        key = override.get_key_element()
        if override.is_sweep_override() or key in swept:
            axes[key] = _axis(override)
        else:
            fixed.append(override.input_line or "")
    if experiment.name is None:
        axes.setdefault("seed.pair", [OmegaConf.select(master, "seed.pair")])

    @cache
    def is_group(key: str) -> bool:
        return bool(loader.get_group_options(key, ObjectType.CONFIG))

    @cache
    def compose(groups: tuple[tuple[str, str], ...]) -> Composed:
        cfg = loader.load_sweep_config(master, fixed + [f"{key}={choice}" for key, choice in groups])
        choices = OmegaConf.to_container(cfg.hydra.runtime.choices)
        with read_write(cfg), open_dict(cfg):
            del cfg["hydra"]
        tree = OmegaConf.to_container(cfg, resolve=False)
        assert isinstance(tree, dict)
        assert isinstance(choices, dict)
        return Composed(tree, choices, interpolated="${" in json.dumps(tree))  # type: ignore[arg-type]

    checked: list[tuple[Config, dict[str, Any], dict[str, Any], list[str]]] = []
    cells, configs, overrides = list[Cell](), dict[str, Config](), dict[str, list[str]]()
    columns: dict[str, None] = {}
    for point in expand(experiment.sweep, axes, experiment.pairs):
        columns |= dict.fromkeys(key for key in point if key not in ("arm", "seed.pair"))
        groups = tuple((key, str(value)) for key, value in point.items() if is_group(key))
        composed = compose(groups)
        tree = _set(composed, {key: value for key, value in point.items() if not is_group(key)})
        given = fixed + [f"{key}={_encode(value)}" for key, value in point.items()]
        checked.append((validate(tree), tree, composed.choices, given))
    for config, tree, choices, given in checked:  # every key is checked before any file is read
        check_paths(config)
        name = run_id(config)
        configs.setdefault(name, config)
        overrides.setdefault(name, given)
        cells.append(
            Cell(
                run_id=name,
                arm=config.arm,
                seeds=config.seed.model_dump(exclude={"bases"}),
                levels={key: _level(key, tree, choices) for key in columns},
                model=config.model.model_dump_json(exclude={"save", "reward"}),
            )
        )
    return Plan(
        cells=cells,
        configs=configs,
        overrides=overrides,
        root=Path(str(OmegaConf.select(master, "store.root"))),
        config_yaml=_yaml(master),
        narrowed=bool(axes.keys() - {"seed.pair"}),
    )


def _axis(override: Override) -> list[Any]:
    """The values of one key of the command line, as Python values."""
    if override.is_delete() or override.is_add():
        raise UserError(f"{override.input_line}: an axis must be a key that exists; leave out the + or ~")
    if override.is_interval_sweep():
        raise UserError(
            f"{override.input_line}: an interval has no first and last run; use range(...) or a list of values"
        )
    values = override.sweep_iterator(Transformer.identity) if override.is_sweep_override() else [override.value()]
    return [value.text if isinstance(value, QuotedString) else value for value in values]


def _encode(value: Any) -> str:
    """A value in the grammar of Hydra's overrides: JSON, but names are left unquoted."""
    if (
        isinstance(value, str)
        and value.isascii()
        and value.isidentifier()
        and value.lower() not in ("true", "false", "null", "inf", "nan")
    ):
        return value
    return json.dumps(value, ensure_ascii=False)


def _set(composed: Composed, values: dict[str, Any]) -> dict[str, Any]:
    """A copy of the tree with `values` (dotted keys) set; keys must exist."""
    tree = _copied(composed.tree)
    for key, value in values.items():
        *parents, last = key.split(".")
        node: Any = tree
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            known = f"use one of {', '.join(node)}" if isinstance(node, dict) else "see --help"
            raise UserError(f"{key}={value}: no such key; {known}")
        node[last] = value
    if composed.interpolated:
        tree = OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    return tree


def _copied(tree: Any) -> Any:
    """A copy of dicts and lists; what they hold is never changed (copy.deepcopy takes eight times as long)."""
    if isinstance(tree, dict):
        return {key: _copied(value) for key, value in tree.items()}
    return [_copied(value) for value in tree] if isinstance(tree, list) else tree


def _level(key: str, tree: dict[str, Any], choices: dict[str, str]) -> Any:
    """What a cell has for a swept key: the option of a group, or the value as a scalar."""
    if key in choices:
        return choices[key]
    value: Any = tree
    for part in key.split("."):
        value = value[part]
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _yaml(master: DictConfig) -> str:
    """What a report shows of the config: all that bears on its results, and nothing of this machine's folders.

    Nor what was asked for this time: a report that is made again says the same.
    """
    tree = {
        key: OmegaConf.to_container(master[key]) if OmegaConf.is_config(master[key]) else master[key] for key in master
    }
    for key in ("hydra", "plan", *OF_NO_MATTER):
        tree.pop(key, None)
    return yaml.safe_dump(store.redact(tree), sort_keys=False, allow_unicode=True)
