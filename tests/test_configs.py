"""Every file of conf/ composes to a config that passes its checks, and every experiment to a plan."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from experiments.claim_files import load
from experiments.config import NOT_OF_A_RUN, Config, validate, validate_experiment
from experiments.run import CONF

# what some options need beside their name
NEEDS = {
    "data=file": ["data.path=pool.jsonl"],
    "arm=lima": ["data=alpaca"],
    "data=stories": ["data.path=stories.txt"],
    "experiment=lima_judge": ["model.path=gpt2", "data.path=lima.json"],
    "experiment=source_setting": ["data.path=stories.txt"],
    "model=hf": ["model.path=gpt2"],
    "model=scratch": ["data=world_text"],
    "scorer=own": ["scorer._target_=mine.score"],
    "selection=from_file": ["selection.path=rows.json"],
    "selection=threshold": ["selection.threshold=0.5"],
    "selection=top_k": ["selection.k=10"],
}
GROUPS = [group.name for group in sorted(CONF.iterdir()) if group.is_dir() and group.name != "claim"]
OPTIONS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
CLAIMS = sorted(path.stem for path in (CONF / "claim").glob("*.yaml"))
EXTRAS = {"launcher=slurm": "hydra_plugins.hydra_submitit_launcher", "launcher=ray": "hydra_plugins.hydra_ray_launcher"}


def tree_of(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_passes_its_checks(option):
    if option in EXTRAS:
        pytest.importorskip(EXTRAS[option])
    tree = tree_of(option, *NEEDS.get(option, []))
    config = validate(tree)
    validate_experiment(tree)
    group, name = option.split("=")
    if group == "arm":
        assert config.arm == name
    if group in ("noise", "selection"):
        assert getattr(config, group).kind == name
    if group == "experiment":
        assert tree.experiment.name == name


def test_the_default_has_every_key_that_a_run_has():
    tree = tree_of()
    assert set(tree) - set(NOT_OF_A_RUN) == set(Config.model_fields)


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_is_read(name):
    assert load([name])[0].id == name


def test_every_group_says_what_it_is_in_its_first_lines():
    for path in Path(CONF).rglob("*.yaml"):
        first = path.read_text(encoding="utf-8").splitlines()[:2]
        assert any(line.startswith("# ") and not line.startswith("# @package") for line in first), path


def test_the_quick_experiment_measures_what_it_says():
    """What published verdicts rest on; a change here is another experiment, and not the one that is reported."""
    trees = {
        name: tree_of("experiment=quickstart", *overrides)
        for name, overrides in {
            "full": ["arm=full"],
            "quarter": ["arm=duplicated", "duplication=random"],
            "all": ["arm=duplicated", "duplication=concentrated"],
        }.items()
    }
    tree = trees["full"]
    assert (tree.noise.kind, tree.noise.rate, tree.data.rows) == ("mixture", 0.5, 4096)
    assert (tree.training.steps, tree.training.lr, tree.training.batch_size) == (384, 2e-3, 32)
    assert list(tree.training.tokens_trained) == ["<q>", "<a>", "<eos>", "ok", ":"]
    assert dict(tree.evaluation.best) == {"suite": "validation", "metric": "em", "mode": "max"}
    assert dict(tree.model.pretraining.pass_at) == {"top": 0.95, "middle": 0.9}
    assert dict(tree.model.pretraining.cools_at) == {"top": 0.9, "middle": 0.8}
    assert [name for name, suite in tree.evaluation.suites.items() if suite.ood] == ["entity", "wording", "composition"]
    copies = {name: trees[name].duplication for name in ("quarter", "all")}
    assert [(c.mode, c.source) for c in copies.values()] == [("replace", "random"), ("replace", "concentrated")]
    alpaca = tree_of("experiment=alpaca_smoke", "data.path=rows.json")
    assert alpaca.data.template.without_input.startswith("Below is an instruction that describes a task.")
    assert alpaca.evaluation.must_move
