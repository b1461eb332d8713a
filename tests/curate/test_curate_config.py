"""Every value is checked before any work; every mistake is one line."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from curate.config import DataConfig, DuplicationConfig, NoiseConfig, ScorerConfig, SelectionConfig, explain

CONF = Path(__file__).parents[2] / "conf"
GROUPS: dict[str, type[BaseModel]] = {
    "data": DataConfig,
    "noise": NoiseConfig,
    "scorer": ScorerConfig,
    "selection": SelectionConfig,
    "duplication": DuplicationConfig,
}
# What cannot have a default: the user's file, the number of rows, the threshold.
NEEDED: dict[str, dict[str, Any]] = {
    "data/file": {"path": "x.json"},
    "selection/top_k": {"k": 3},
    "selection/threshold": {"threshold": 1.5},
}
FILES = sorted(path for group in GROUPS for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_is_valid_complete_and_documented(path: Path) -> None:
    group, values = path.parent.name, yaml.safe_load(path.read_text())
    needed = NEEDED.get(f"{group}/{path.stem}", {})
    GROUPS[group].model_validate(values | needed)
    if needed:
        with pytest.raises(ValidationError):
            GROUPS[group].model_validate(values)
    assert set(values) == set(GROUPS[group].model_fields)
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert [line for line in lines[1:] if line and not line.startswith(" ") and "#" not in line] == []


def test_there_is_a_file_for_every_kind() -> None:
    for group in ("noise", "scorer", "selection"):
        names = {path.stem for path in (CONF / group).glob("*.yaml")}
        kinds = set(GROUPS[group].model_fields["kind"].annotation.__args__)  # type: ignore[union-attr]
        assert names - {"reward_model_bt"} == kinds


DATA = {
    "name": "file",
    "path": "x",
    "template": {"without_input": "{instruction}", "with_input": "{instruction}{input}"},
}


@pytest.mark.parametrize(
    ("group", "values", "message"),
    [
        ("noise", {"kind": "mixture", "rate": 1.5}, "noise.rate=1.5: should be less than or equal to 1"),
        ("noise", {"kind": "mixture", "rate": -0.1}, "noise.rate=-0.1: should be greater than or equal to 0"),
        ("noise", {"kind": "mixture", "rate": float("nan")}, "noise.rate=nan: should be a finite number"),
        ("noise", {"kind": "mixture", "rate": "high"}, "noise.rate=high: should be a valid number"),
        ("noise", {"kind": "none", "rate": 0.2}, "noise.rate=0.2: noise of which kind?"),
        ("noise", {"kind": "mix", "rate": 0.2}, "noise.kind=mix: should be 'none', 'swapped_response'"),
        ("noise", {"kind": "none", "rate": 0.0, "rat": 1}, "noise.rat=1: there is no such key"),
        ("noise", {"kind": "none"}, "noise.rate is not set"),
        ("selection", {"kind": "top_k", "k": -3}, "selection.k=-3: should be greater than or equal to 1"),
        ("selection", {"kind": "top_k", "k": 1.5}, "selection.k=1.5: should be a valid integer"),
        ("selection", {"kind": "top_k", "fraction": 0.5}, "selection.k=null: how many rows?"),
        ("selection", {"kind": "threshold"}, "selection.threshold=null: which score"),
        ("selection", {"kind": "longest"}, "selection.k=null: how many rows?"),
        ("selection", {"kind": "random", "fraction": 0.0}, "selection.fraction=0.0: should be greater than 0"),
        ("duplication", {"rate": 1.0}, "duplication.k=null: at rate 1.0"),
        ("duplication", {"rate": 0.2, "source": "concentrated"}, "duplication.k=null: copies of how many"),
        ("duplication", {"rate": 0.2, "source": "important"}, "duplication.stratum=null"),
        ("duplication", {"rate": 2.0, "mode": "append"}, "duplication.rate=2.0: should be less than"),
        ("scorer", {"kind": "reward_model", "features": ["heart"]}, "scorer.features.0=heart: should be 'head'"),
        ("scorer", {"kind": "judge"}, "scorer.kind=judge: should be 'none'"),
        ("data", {**DATA, "path": None}, "data.path=null: which file?"),
        ("data", {**DATA, "rows": 0}, "data.rows=0: should be greater"),
        ("data", {**DATA, "max_bad_share": 2.0}, "data.max_bad_share=2.0: should be less"),
        ("data", {**DATA, "fields": {"instrction": "q"}}, "data.fields.instrction=instrction: should be 'instruction'"),
        ("data", {**DATA, "template": {"without_input": "{instruction}"}}, "data.template: with_input must hold"),
        ("data", {**DATA, "paraphrases": ["please"]}, "data.paraphrases: 'please' must hold {instruction}"),
    ],
)
def test_a_mistake_is_one_line_that_names_key_and_value(group: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        GROUPS[group].model_validate(values)
    text = explain(error.value, group)
    assert text.startswith(message)
    assert "\n" not in text


def test_several_mistakes_are_counted() -> None:
    with pytest.raises(ValidationError) as error:
        NoiseConfig.model_validate({"kind": "x", "rate": 3.0})
    assert explain(error.value, "noise").endswith("(and 1 more)")


def test_what_a_kind_does_not_use_is_dropped() -> None:
    assert SelectionConfig(kind="all", k=7, fraction=0.5) == SelectionConfig(kind="all")
    assert SelectionConfig(kind="random", k=7, fraction=0.5) == SelectionConfig(kind="random", k=7)
    assert SelectionConfig(kind="random", fraction=0.5).fraction == 0.5
    assert SelectionConfig(kind="top_k", k=7, threshold=0.5) == SelectionConfig(kind="top_k", k=7)
    assert SelectionConfig(kind="threshold", k=7, threshold=0.5) == SelectionConfig(kind="threshold", threshold=0.5)


def test_configs_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        NoiseConfig(kind="none", rate=0.0).rate = 1.0
