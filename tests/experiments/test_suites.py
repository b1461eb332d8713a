"""Evaluation: one teacher-forced pass says what greedy decoding would have said."""

import json

import numpy as np
import pytest
import torch

from curate import UserError
from experiments.suites.build import Suite, build_suites, load_questions
from experiments.suites.config import EvaluationConfig
from experiments.suites.evaluate import evaluate
from experiments.suites.teacher_forced import Question, _predictive, answer
from train.batches import Row
from train.config import TrainingConfig
from train.finetune import finetune

TEMPLATE = {"without_input": "<q> {instruction} <a>", "with_input": "<q> {instruction} {input} <a>"}


@pytest.fixture
def half_trained(tokenizer, make_model):
    """Right on some questions, wrong on others: what a test of exact match needs."""
    model = make_model()
    rows = [Row(f"<q> w{i} <a>", f"ok : w{(7 * i + 3) % 40}" + " w1" * (i % 3)) for i in range(40)]
    training = TrainingConfig(steps=230, points=[], batch_size=16, lr=5e-3, warmup=2, max_length=16)
    finetune(model, tokenizer, rows, training, 0, lambda *_: None)
    return model.eval(), rows


def greedy(model, tokenizer, prompts, tokens):
    tokenizer.padding_side = "left"
    batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    out = model.generate(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], do_sample=False, max_new_tokens=tokens
    )
    return [row[batch["input_ids"].shape[1] :].tolist() for row in out]


def test_teacher_forcing_equals_batched_greedy_decoding(tokenizer, half_trained):
    model, rows = half_trained
    questions = [Question(r.prompt, r.response) for r in rows]
    found = answer(model, tokenizer, questions, max_length=64, token_budget=100)
    decoded = greedy(model, tokenizer, [r.prompt for r in rows], 8)
    for right, row, ids in zip(found.em, rows, decoded, strict=True):
        gold = [*tokenizer(row.response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        assert right == (ids[: len(gold)] == gold)
    assert 5 < found.em.sum() < 40, "the test needs right and wrong answers"


def test_an_accepted_stop_may_follow_the_answer(tokenizer, half_trained):
    model, rows = half_trained
    asked = [Question(r.prompt, " ".join(r.response.split()[:3]), stop=("<eos>", "w1")) for r in rows]
    found = answer(model, tokenizer, asked, max_length=64, token_budget=1000)
    decoded = greedy(model, tokenizer, [r.prompt for r in rows], 8)
    ends = tokenizer.convert_tokens_to_ids(["<eos>", "w1"])
    for right, question, ids in zip(found.em, asked, decoded, strict=True):
        gold = tokenizer(question.answer, add_special_tokens=False)["input_ids"]
        assert right == (ids[: len(gold)] == gold and ids[len(gold)] in ends)
    strict = answer(
        model, tokenizer, [Question(q.prompt, q.answer, ("w9",)) for q in asked], max_length=64, token_budget=99
    )
    assert strict.em.sum() == 0


def test_format_free_asks_for_the_rest_after_the_format(tokenizer, half_trained):
    model, rows = half_trained
    broken = [Question(r.prompt, r.response.replace("ok :", "w9 :"), given="w9 :") for r in rows]
    found = answer(model, tokenizer, broken, max_length=64, token_budget=1000)
    assert found.em.sum() == 0
    for free, question in zip(found.em_format_free, broken, strict=True):
        prompt = tokenizer(f"{question.prompt} {question.given}", add_special_tokens=False)["input_ids"]
        rest = tokenizer(question.answer, add_special_tokens=False)["input_ids"][2:]
        ids = model.generate(input_ids=torch.tensor([prompt]), do_sample=False, max_new_tokens=len(rest))
        assert free == (ids[0, len(prompt) :].tolist() == rest)


def test_likelihood_is_that_of_the_plain_forward_pass_whatever_the_batch(tokenizer, half_trained):
    model, rows = half_trained
    questions = [Question(r.prompt, r.response) for r in rows]
    small = answer(model, tokenizer, questions, max_length=64, token_budget=1)
    large = answer(model, tokenizer, questions, max_length=64, token_budget=10_000)
    np.testing.assert_allclose(small.nats, large.nats, atol=1e-4)
    ids = tokenizer(f"{rows[3].prompt} {rows[3].response} <eos>", add_special_tokens=False, return_tensors="pt")[
        "input_ids"
    ]
    logs = model(input_ids=ids).logits.log_softmax(-1)[0]
    wanted = -sum(logs[i - 1, ids[0, i]].item() for i in range(3, ids.shape[1]))
    assert small.nats[3] == pytest.approx(wanted, abs=1e-4)
    assert small.tokens[3] == ids.shape[1] - 3


def test_entropy_is_that_of_the_value_tokens(tokenizer, half_trained):
    model, rows = half_trained
    asked = [Question(r.prompt, r.response, stop=("<eos>", "w1")[: i % 2], given="ok :") for i, r in enumerate(rows)]
    found = answer(model, tokenizer, asked, max_length=64, token_budget=200, predictive=True)
    for i in (2, 3, 5, 8):
        ids = tokenizer(f"{rows[i].prompt} {rows[i].response}", add_special_tokens=False, return_tensors="pt")
        chances = model(input_ids=ids["input_ids"]).logits[0].softmax(-1).double()
        each = -(chances * chances.log()).sum(-1)[4:-1]  # <q> w <a> ok and then : , after which the value comes
        assert len(each) == 1 + i % 3
        assert found.entropy[i] == pytest.approx(each.mean().item(), abs=1e-4)
        assert found.entropy_first[i] == pytest.approx(each[0].item(), abs=1e-4)
        assert found.top_first[i] == pytest.approx(chances[4].max().item(), abs=1e-4)
    assert 0 < found.top_first.min() < 0.5 < found.top_first.max() < 1
    plain = answer(model, tokenizer, asked, max_length=64, token_budget=200)
    assert plain.entropy is None and np.array_equal(plain.nats, found.nats)


def test_a_sure_model_has_no_entropy_and_an_even_one_the_most():
    logits = torch.zeros(5, 8)
    logits[0, 3] = logits[1, 2] = 200.0
    mean, first, top = _predictive(logits, [(0, 1), (1, 3), (2, 5)])
    np.testing.assert_allclose(mean, [0, np.log(8) / 2, np.log(8)], atol=1e-6)
    np.testing.assert_allclose(first, [0, 0, np.log(8)], atol=1e-6)
    np.testing.assert_allclose(top, [1, 1, 1 / 8], atol=1e-6)


def evaluation(tmp_path, metrics, **keys):
    suites = {
        "validation": {"path": str(tmp_path / "v.jsonl"), "ood": False, "metrics": metrics},
        "a": {"path": str(tmp_path / "a.jsonl"), "ood": True, "metrics": metrics},
        "b": {"path": str(tmp_path / "b.jsonl"), "ood": True, "metrics": metrics},
    }
    defaults = {
        "suites": suites, "items": 100, "point_items": 5, "token_budget": 512, "primary": "ood/nll", "mode": "min",
        "best": {"suite": "validation", "metric": "nll", "mode": "min"},
    }  # fmt: skip
    return EvaluationConfig(**{**defaults, **keys})


@pytest.fixture
def files(tmp_path):
    for name, offset in (("v", 0), ("a", 1), ("b", 2)):
        rows = [
            {"instruction": f"w{i}", "input": "", "output": f"ok : w{(7 * i + 3) % 40}"} for i in range(offset, 40, 3)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def test_ood_is_the_mean_of_the_ood_suites_and_a_users_file_is_a_suite(files, tokenizer, half_trained):
    model, _ = half_trained
    config = evaluation(files, "exact")
    suites = build_suites(config, TEMPLATE, world=0, root=None)
    found = evaluate(model, tokenizer, suites, config, items=100, max_length=64)
    m = found.metrics
    assert m["ood"]["em"]["value"] == pytest.approx((m["a"]["em"]["value"] + m["b"]["em"]["value"]) / 2)
    assert m["ood"]["em"]["n"] == m["a"]["em"]["n"] + m["b"]["em"]["n"] == 26
    of_a = [i for i in found.items if i["suite"] == "a"]
    for name in ("entropy", "entropy_first", "confident"):
        assert m["a"][name]["value"] == pytest.approx(np.mean([i[name] for i in of_a]))
        assert m["ood"][name]["n"] == 26
    assert m["a"]["em"]["value"] == pytest.approx(np.mean([i["em"] for i in of_a]))
    assert m["a"]["nll"]["value"] == pytest.approx(sum(i["nats"] for i in of_a) / sum(i["tokens"] for i in of_a))
    few = evaluate(model, tokenizer, suites, config, items=5, max_length=64)
    assert few.metrics["a"]["em"]["n"] == 5
    assert [i["nats"] for i in few.items if i["suite"] == "a"] == pytest.approx([i["nats"] for i in of_a[:5]], abs=1e-4)


def test_gap_is_what_the_right_prompt_is_worth(files, tokenizer, half_trained, make_model):
    config = evaluation(files, "likelihood")
    suites = build_suites(config, TEMPLATE, world=0, root=None)
    tuned = evaluate(half_trained[0], tokenizer, suites, config, items=100, max_length=64).metrics["ood"]
    fresh = evaluate(make_model().eval(), tokenizer, suites, config, items=100, max_length=64).metrics["ood"]
    assert tuned["gap"]["value"] > 0.3 > abs(fresh["gap"]["value"])
    assert tuned["nll"]["value"] < fresh["nll"]["value"]
    assert not {"em", "entropy", "confident"} & set(tuned)


def test_self_instructs_layout_is_unfolded_and_bad_files_are_named(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text(
        json.dumps({"instruction": "do", "instances": [{"input": "x", "output": "y"}, {"input": "", "output": "z"}]})
    )
    assert load_questions(path, "k") == [
        {"instruction": "do", "input": "x", "output": "y"},
        {"instruction": "do", "input": "", "output": "z"},
    ]
    for text, message in (
        ("{", "line 1.*malformed JSON"),
        ("", "holds no question"),
        ('{"prompt": "a"}', "line 1.*output"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            load_questions(path, "evaluation.suites.x.path")
    with pytest.raises(UserError, match=r"^k=.*no such file"):
        load_questions(tmp_path / "none.jsonl", "k")


def test_the_world_has_no_such_part():
    config = EvaluationConfig(
        suites={"x": {"world": "moon", "ood": True}, "v": {"world": "validation", "ood": False}},
        items=1, point_items=1, token_budget=1, primary="ood/em", mode="max",
        best={"suite": "v", "metric": "em", "mode": "max"},
    )  # fmt: skip
    with pytest.raises(UserError, match=r"evaluation\.suites\.x\.world: 'moon'"):
        build_suites(config, TEMPLATE, world=0, root=None)


def test_references_may_be_any_layout_and_lie_on_the_hub(tmp_path, monkeypatch):
    import datasets

    rows = [{"prompt": "do", "completion": "y"}]
    monkeypatch.setattr(datasets, "load_dataset", lambda name, *_, **__: rows if name == "who/refs" else None)
    assert load_questions("hub:who/refs", "k") == [{"instruction": "do", "input": "", "output": "y"}]
    path = tmp_path / "refs.csv"
    path.write_text("instruction,input,output\ndo,,y\n")
    assert load_questions(str(path), "k") == [{"instruction": "do", "input": "", "output": "y"}]


def test_what_a_suite_asks_is_left_out_of_the_pool():
    from curate.example import column, make_pool
    from experiments.asked import without_asked

    pool = make_pool([{"instruction": f"Say {i}!", "input": "", "output": "x"} for i in range(5)], "test")
    suites = [Suite("a", True, "likelihood", (), ("say 3", "Say  1")), Suite("b", False, "likelihood", (), ("say 9",))]
    assert column(without_asked(pool, suites), "instruction") == ["Say 0!", "Say 2!", "Say 4!"]
    assert without_asked(pool, suites[1:]) is pool
