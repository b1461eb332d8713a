"""Multiple choice by likelihood, and answers that a program verifies."""

import json

import numpy as np
import pandas as pd
import pytest

from curate import UserError
from experiments import table as tables
from experiments.claims import Claim, judge
from experiments.suites.build import build_suites
from experiments.suites.checks import CHECKS, passed
from experiments.suites.choice import Choice, graded, load_choices
from experiments.suites.config import EvaluationConfig
from experiments.suites.evaluate import evaluate
from experiments.suites.teacher_forced import Question, answer

TEMPLATE = {"without_input": "<q> {instruction} <a>", "with_input": "<q> {instruction} {input} <a>"}


def test_the_likeliest_option_is_the_answer_and_length_may_be_taken_out():
    nats, tokens = np.array([2.0, 3.0, 1.0, 1.0, 4.0, 5.0]), np.array([1, 3, 1, 1, 2, 5])
    found = graded(nats, tokens, [(2, 1), (2, 0), (2, 1)])
    assert found["accuracy"].tolist() == [0, 0, 0]  # the second question is a tie, which is no answer
    assert found["accuracy_norm"].tolist() == [1, 0, 1]
    assert found["chance"].tolist() == [0.5] * 3


def test_forms_of_files_are_known(tmp_path):
    listed = "Which day?\nOptions:\n(A) 12/11/1937\n(B) 12/25/1937"
    dashed = "Back again?\nOptions:\n- Yes\n- No"
    files = {
        "date.json": {"examples": [{"input": listed, "target": "(B)"}]},
        "navigate.json": {"examples": [{"input": dashed, "target": "No"}]},
        "sports.json": {"examples": [{"input": "plausible?", "target": t} for t in ("yes", "no")]},
        "own.json": [{"question": "q", "options": ["a", "b"], "right": 1}],
    }
    for name, tree in files.items():
        (tmp_path / name).write_text(json.dumps(tree))
    (tmp_path / "t.csv").write_text("\ufeffQuestion,Best Answer,Incorrect Answers\nWhy?,Because,No; Never\n")
    read = {path.name: load_choices(str(path), "k") for path in tmp_path.iterdir()}
    assert read["date.json"] == [Choice(listed, ("(A) 12/11/1937", "(B) 12/25/1937"), 1)]
    assert read["navigate.json"] == [Choice(dashed, ("Yes", "No"), 1)]
    assert [c.right for c in read["sports.json"]] == [1, 0] and read["sports.json"][0].options == ("no", "yes")
    assert read["own.json"] == [Choice("q", ("a", "b"), 1)]
    assert read["t.csv"] == [Choice("Why?", ("Because", "No", "Never"), 0)]


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"examples": [{"input": f"how many {i}", "target": str(i)} for i in range(9)]}, "9 different targets"),
        ([{"question": "q", "options": ["a"], "right": 0}], "no answer among two options"),
        ({"examples": [{"input": "x\nOptions:\n- a\n- b", "target": "c"}]}, "no answer among two options"),
        ([], "holds no question"),
        ([{"instruction": "q"}], "something else"),
    ],
)
def test_what_is_no_choice_is_refused_by_name(tmp_path, tree, said):
    (tmp_path / "a.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match=f"^k: .*{said}"):
        load_choices(str(tmp_path / "a.json"), "k")
    with pytest.raises(UserError, match="is no file"):
        load_choices(str(tmp_path / "b.json"), "k")


GOOD = {
    0: "Green", 2: "The sea is wide.", 3: "They rest. They mend.",
    6: "- apple\n- pear\n- fig", 8: "1. Spain\n2. Italy\n3. Malta",
    10: "snow falls quietly", 12: "HELLO!", 14: "The river wore the Stone down.",
    16: "A loyal friend.", 17: "It is full of old trees",
    18: "In short, it helps.", 20: "What did you do?", 22: "red, green, blue", 23: '{"city": "Rome"}',
}  # fmt: skip
BAD = {
    0: "It is green", 2: "The sea is wide. It is blue.", 3: "They rest.",
    6: "- apple\n- pear", 8: "1. Spain\n3. Italy\n2. Malta",
    10: "Snow falls", 12: "Hello", 14: "The rivers wore a stone.",
    16: "An animal.", 17: "Trees, and more of them here",
    18: "It helps", 20: "I went out.", 22: "red, green", 23: 'Sure: {"city": "Rome"}',
}  # fmt: skip


def test_each_verifier_tells_the_done_from_the_undone():
    for answers, wanted in ((GOOD, True), (BAD, False)):
        said = {i: passed([CHECKS[i]], [answer]) for i, answer in answers.items()}
        assert said == {i: [wanted] for i in answers}
    assert not any(passed(CHECKS, [""] * len(CHECKS)))  # nothing said does nothing


def suites_of(tmp_path):
    rows = [{"question": f"w{i}", "options": [f"w{i + 1}", f"w{i + 2} w3"], "right": i % 2} for i in range(9)]
    (tmp_path / "own.json").write_text(json.dumps(rows))
    (tmp_path / "v.json").write_text(json.dumps([{"instruction": f"w{i}", "output": "w1"} for i in range(4)]))
    tree = {
        "suites": {
            "v": {"path": "v.json", "ood": True, "metrics": "likelihood"},
            "w": {"path": "v.json", "ood": False, "metrics": "likelihood"},
            "mc": {"path": "own.json", "ood": False, "metrics": "choice", "at": "end", "items": 6},
            "told": {"ood": False, "metrics": "checks", "at": "end", "max_new_tokens": 3, "items": 5},
        },
        "items": 8, "point_items": 8, "token_budget": 256, "primary": "ood/nll", "mode": "min",
        "best": {"suite": "w", "metric": "nll", "mode": "min"},
    }  # fmt: skip
    evaluation = EvaluationConfig(**tree)
    return build_suites(evaluation, TEMPLATE, world=0, root=tmp_path), evaluation


def test_they_are_asked_beside_the_likelihoods_and_in_no_mean(tmp_path, tokenizer, make_model):
    suites, evaluation = suites_of(tmp_path)
    found = evaluate(make_model().eval(), tokenizer, suites, evaluation, items=8, max_length=32)
    assert set(found.metrics["mc"]) == {"accuracy", "accuracy_norm", "chance"}
    assert found.metrics["mc"]["chance"] == {"value": 0.5, "n": 6}
    assert found.metrics["told"]["passed"]["n"] == 5
    assert set(found.metrics["ood"]) == {"nll", "nll_answer", "gap"}
    own = [item["accuracy"] for item in found.items if item["suite"] == "mc"]
    assert np.mean(own) == found.metrics["mc"]["accuracy"]["value"]


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        ({"metrics": "choice", "ood": True, "path": "a"}, "set ood: false"),
        ({"metrics": "choice", "ood": False, "world": "id"}, "give path"),
        ({"metrics": "checks", "ood": False, "path": "a"}, "instructions of its own"),
        ({"metrics": "likelihood", "ood": True, "path": "a", "max_new_tokens": 4}, "only metrics: checks"),
        ({"metrics": "likelihood", "ood": True, "path": "a"}, "is what is tested"),
    ],
)
def test_suites_that_make_no_sense_are_refused(suite, said):
    rest = {"items": 1, "point_items": 1, "token_budget": 1, "primary": "a/b", "mode": "max"}
    with pytest.raises(ValueError, match=said):
        EvaluationConfig(suites={"a": suite}, best={"suite": "a", "metric": "nll", "mode": "min"}, **rest)


@pytest.mark.parametrize(("level", "decides"), [(0.3, False), (0.8, True)])
def test_what_is_at_chance_decides_nothing(level, decides):
    rows, rng = [], np.random.default_rng(0)
    for arm in ("filtered", "random"):
        for pair in range(6):
            identity = {"run_id": f"{arm}{pair}", "arm": arm, "seed_pair": pair, "seed_base": 0}
            identity |= {"seed_data": pair, "seed_select": pair, "seed_train": pair}
            value = level + rng.normal(0, 0.01) - 0.2 * (arm == "random")
            for suite, metric, cell, n in (
                ("mc", "accuracy", value, 40), ("mc", "chance", 0.25, 40), ("run", "done", 1.0, None),
            ):  # fmt: skip
                rows.append({**identity, "point": "end", "suite": suite, "metric": metric, "value": cell, "n": n})
    claim = Claim(
        id="x", title="t", source="s", quoted={"figure": "f", "at": "a"}, reading="r", kind="greater",
        metric="mc/accuracy", point="end", margin=0.02, treatment={"arm": "filtered"}, control={"arm": "random"},
    )  # fmt: skip
    frame = pd.DataFrame(rows).assign(tokens=9)
    [entry] = judge([claim], frame, best=tables.Best("v", "nll", "min"), experiment="e")
    assert entry["verdict"] == ("reproduced" if decides else "inconclusive")
    assert ("both arms are at chance (0.25 on 40 questions)" in entry["note"]) is not decides


def test_an_options_likelihood_is_that_of_the_harness(tokenizer, make_model):
    pytest.importorskip("lm_eval", reason="extra `harness` is not installed")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model, asked = make_model().eval(), [(f"w{i} w{i + 1} w3", f" w{7 * i % 40} w{3 * i % 40}") for i in range(8)]
    questions = [Question(prompt, option, stop=("<eos>",)) for prompt, option in asked]
    ours = answer(model, tokenizer, questions, max_length=64, token_budget=64).nats
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, device="cpu")
    theirs = harness.loglikelihood([Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(asked)])
    assert ours == pytest.approx([-found[0] for found in theirs], abs=1e-5)
