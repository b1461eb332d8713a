"""Every value is checked before any work; every mistake is one line."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from curate.config import (
    SCORER_KEYS,
    SELECTION_KEYS,
    DataConfig,
    DuplicationConfig,
    EndpointConfig,
    NoiseConfig,
    RewriteConfig,
    ScorerConfig,
    SelectionConfig,
    explain,
)  # fmt: skip

CONF = Path(__file__).parents[2] / "conf"
GROUPS: dict[str, type[BaseModel]] = {
    "data": DataConfig,
    "noise": NoiseConfig,
    "scorer": ScorerConfig,
    "selection": SelectionConfig,
    "rewrite": RewriteConfig,
    "duplication": DuplicationConfig,
}
# What cannot have a default: the user's file, the number of rows, the threshold.
NEEDED: dict[str, dict[str, Any]] = {
    "data/file": {"path": "x.json"},
    "data/stories": {"path": "x.txt"},
    "selection/top_k": {"k": 3},
    "selection/threshold": {"threshold": 1.5},
    "selection/from_file": {"path": "x.json"},
    "scorer/own": {"_target_": "module.function"},
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
    assert set(values) == keys_of(group, values.get("kind", values.get("by", values.get("name"))))
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert [line for line in lines[1:] if line and not line.startswith(" ") and "#" not in line] == []


def keys_of(group: str, kind: Any) -> set[str]:
    """The keys that mean something to this kind."""
    if group == "scorer":
        names = {"target": "_target_"}
        return {"kind", *(names.get(key, key) if kind == "own" else key for key in SCORER_KEYS.get(kind, ()))}
    if group == "selection":
        # sizes stand in every file, so that a sweep over them may cross arms
        return {"kind", "k", "fraction", "threshold", *SELECTION_KEYS.get(kind, ())}
    if group == "rewrite":
        return {"by", "endpoint"} if kind == "teacher" else {"by"}
    if group == "data":
        made = {"drop_asked"} if kind in ("microworld", "text", "world_text") else set()  # of no asked prompts
        one_sided = set() if kind == "preferences" else {"side", "max_length_ratio"}
        return set(DataConfig.model_fields) - made - one_sided
    return set(GROUPS[group].model_fields)


def test_there_is_a_file_for_every_kind() -> None:
    for group, key in (("noise", "kind"), ("scorer", "kind"), ("selection", "kind"), ("rewrite", "by")):
        names = {path.stem for path in (CONF / group).glob("*.yaml")}
        kinds = set(GROUPS[group].model_fields[key].annotation.__args__)  # type: ignore[union-attr]
        assert names - {"reward_model_bt", "biased_long", "biased_style"} == kinds


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
        ("duplication", {"rate": 0.2, "source": "concentrated"}, "duplication.k=null: copies of how many"),
        ("duplication", {"rate": 0.2, "source": "important"}, "duplication.stratum=null"),
        ("duplication", {"rate": 2.0, "mode": "append"}, "duplication.rate=2.0: should be less than"),
        ("scorer", {"kind": "reward_model", "features": ["heart"]}, "scorer.features.0=heart: should be 'head'"),
        ("scorer", {"kind": "guess"}, "scorer.kind=guess: should be 'none'"),
        ("scorer", {"kind": "judge"}, "scorer.endpoint=null: which server and model?"),
        ("scorer", {"kind": "length", "model": "x", "modle": "y"}, "scorer.modle=y: there is no such key"),
        ("scorer", {"kind": "ensemble", "members": [{"kind": "length"}]}, "scorer.members="),
        ("scorer", {"kind": "ensemble", "members": None}, "scorer.members=null: which scorers?"),
        ("scorer", {"kind": "own", "_target_": "score"}, "scorer._target_=score: which function?"),
        ("scorer", {"kind": "ifd", "max_length": 2}, "scorer.max_length=2: should be greater"),
        ("scorer", {"kind": "judge", "endpoint": {"model": "m", "max_cost": 1.0}}, "scorer.endpoint.max_cost=1.0"),
        ("scorer", {"kind": "judge", "endpoint": {"model": "m", "prices": {"m": [1.0]}}}, "scorer.endpoint.prices: m"),
        ("selection", {"kind": "band", "low": 0.9, "high": 0.5}, "selection.low=0.9 high=0.5: give two quantiles"),
        ("selection", {"kind": "from_file"}, "selection.path=null: whose selection?"),
        ("selection", {"kind": "diversity", "k": 3, "floor": 1.0}, "selection.floor=1.0: should be less than 1"),
        ("rewrite", {"by": "teacher"}, "rewrite.endpoint=null: which teacher?"),
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


def test_a_scorer_keeps_what_its_kind_reads() -> None:
    assert ScorerConfig(kind="length", model="x", max_length=64) == ScorerConfig(kind="length")
    assert ScorerConfig(kind="ifd", model="x", template="pair") == ScorerConfig(kind="ifd", model="x")
    own = ScorerConfig.model_validate({"kind": "length", "_target_": "a.b", "options": {"c": 1}})
    assert (own.kind, own.target, own.options) == ("own", "a.b", {"c": 1})
    two = ScorerConfig(kind="ensemble", members=[{"kind": "length"}, {"kind": "ifd", "model": "x"}])
    assert [one.kind for one in two.models()] == ["length", "ifd"]
    assert EndpointConfig(model="m", prices={"m": [1.0, 2.0]}, max_cost=3.0).max_cost == 3.0


def test_configs_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        NoiseConfig(kind="none", rate=0.0).rate = 1.0


def test_a_sweep_over_rates_of_duplication_need_not_say_how_few_rows_are_left_at_1() -> None:
    assert [DuplicationConfig(rate=rate).k for rate in (0, 0.25, 1)] == [None, None, 16]
    assert DuplicationConfig(rate=1.0, k=4).k == 4
    assert DuplicationConfig(rate=1.0, mode="append").k is None  # every row twice
