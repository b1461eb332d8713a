"""Memorisation is seen where it was planted, and only there."""

import pytest

from curate.duplicate import duplicate
from curate.example import make_pool, replace
from experiments.suites.memorised import SAMPLE, memorised, row_groups
from experiments.suites.teacher_forced import Question
from train.batches import Row
from train.config import TrainingConfig
from train.finetune import finetune

TEMPLATE = {"without_input": "<q> {instruction} <a>", "with_input": "<q> {instruction} {input} <a>"}


def pool(n=40, noisy=10):
    """Rows `w<i>` with answers; the first `noisy` of them corrupted."""
    made = make_pool(({"instruction": f"w{i}", "output": f"ok : w{(7 * i + 3) % 40}"} for i in range(n)), "test")
    truth = made["output"][:]
    return replace(
        made,
        output=[f"ok : w{i}" if i < noisy else text for i, text in enumerate(truth)],
        noise_kind=["near_miss" if i < noisy else None for i in range(n)],
        clean_output=[text if i < noisy else None for i, text in enumerate(truth)],
    )


def copies(rows, rate=0.5):
    keys = {"mode": "replace", "source": "random", "k": None, "kind": "exact", "stratum": None}
    return duplicate(rows, rate=rate, seed=0, **keys)


def test_groups_hold_the_rows_that_they_name():
    groups = row_groups(pool(), TEMPLATE, 0)
    assert set(groups) == {"noisy", "noisy_truth", "clean", "unique"}
    assert {name: len(group) for name, group in groups.items()} == {
        "noisy": 10, "noisy_truth": 10, "clean": 30, "unique": 40,
    }  # fmt: skip
    for said, truth in zip(groups["noisy"], groups["noisy_truth"], strict=True):
        i = int(said.prompt.split()[1][1:])
        assert said == Question(f"<q> w{i} <a>", f"ok : w{i}")
        assert truth == Question(f"<q> w{i} <a>", f"ok : w{(7 * i + 3) % 40}")
    assert not set(groups["noisy"]) & set(groups["clean"])
    assert set(row_groups(pool(noisy=0), TEMPLATE, 0)) == {"clean", "unique"}


def test_copied_rows_are_apart_from_unique_ones():
    rows = copies(pool(), 0.3)  # 28 unique rows, 12 of them with one copy
    groups = row_groups(rows, TEMPLATE, 0)
    assert len(groups["copied"]) == 24 and len(set(groups["copied"])) == 12
    assert len(groups["unique"]) == 16 and not set(groups["unique"]) & set(groups["copied"])


def test_samples_are_small_seeded_and_shared():
    rows = make_pool(({"instruction": f"q{i}", "output": f"a{i}"} for i in range(3 * SAMPLE)), "test")
    one, same, other = (row_groups(rows, TEMPLATE, seed) for seed in (0, 0, 1))
    assert one == same != other
    assert len(one["clean"]) == SAMPLE and one["clean"] == one["unique"]


def test_a_model_that_learnt_the_rows_by_heart_is_found_out(tokenizer, make_model):
    rows = pool()
    model = make_model()
    groups = row_groups(rows, TEMPLATE, 0)

    def measure():
        return memorised(model.eval(), tokenizer, groups, max_length=16, token_budget=200)

    before = measure()
    assert max(before[name]["value"] for name in groups) == 0.0
    trained = [Row(f"<q> {i} <a>", o) for i, o in zip(rows["instruction"][:], rows["output"][:], strict=True)]
    budget = TrainingConfig(steps=400, points=[], batch_size=16, lr=5e-3, warmup=2, max_length=16)
    finetune(model, tokenizer, trained, budget, 0, lambda *_: None)
    after = measure()
    assert after["noisy"]["value"] > 0.9 and after["clean"]["value"] > 0.9
    assert after["noisy_truth"]["value"] < 0.1
    assert after["unique"] == {
        "value": pytest.approx((10 * after["noisy"]["value"] + 30 * after["clean"]["value"]) / 40),
        "n": 40,
    }
    assert after["nll_noisy"]["value"] < 0.2 < 1 < after["nll_noisy_truth"]["value"]
    assert set(after) == {*groups, "nll_noisy", "nll_noisy_truth", "nll_clean"}
