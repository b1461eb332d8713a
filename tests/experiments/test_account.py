"""What a run's folder says for reading: rows kept and dropped, kinds of noise, answers; none of it in the record."""

import json

import pytest

from curate.example import make_pool, replace
from experiments import account, store
from experiments.config import run_id
from experiments.subset import manifest
from tests.experiments.runs import run


def rows(n, long=()):
    made = [{"instruction": f"i{k}", "input": "", "output": "x " * 500 if k in long else f"o {k}"} for k in range(n)]
    return make_pool(made, "test")


def test_a_run_writes_what_its_selection_did_and_its_model_says(make):
    config = make("noise=mixture", "arm=oracle", "seed.pair=1")
    record, folder = run(config)
    found = account.read(folder / account.SELECTION)
    assert found["pool"]["rows"] == record["data"]["pool_rows"]
    assert found["subset"]["rows"] == record["data"]["rows"]
    noisy = sum(n for kind, n in found["pool"]["kinds"].items() if kind != account.CLEAN)
    assert noisy / found["pool"]["rows"] == pytest.approx(record["data"]["noise_rate"])
    assert found["subset"]["kinds"] == {"clean": record["data"]["rows"]}
    assert {row["noise_kind"] for row in found["kept"]} == {None} and len(found["kept"]) == account.ROWS
    assert all(row["noise_kind"] or row["output"] for row in found["dropped"])
    said = account.read(folder / account.ANSWERS)
    assert {one["suite"] for one in said} == {"entity", "wording", "composition"}
    assert all(one["prompt"] and one["gold"] for one in said)
    assert {account.SELECTION, account.ANSWERS, store.SUBSET} <= set(store.sums(folder))
    listed = [line.split(",") for line in (folder / store.SUBSET).read_text().splitlines()]
    assert listed[0] == ["id", "hash"]
    assert len(listed) == 1 + record["data"]["rows"]
    assert all(len(row_hash) == 16 for _, row_hash in listed[1:])
    assert "kept" not in json.dumps(record["data"].get("kinds", {}))
    assert record["run_id"] == run_id(config)


def test_arms_of_a_pair_show_the_same_rows_as_far_as_they_agree():
    pool = rows(40)
    one = account.account(pool, range(20), pool.select(range(20)), 3)
    two = account.account(pool, range(1, 20), pool.select(range(1, 20)), 3)
    shown = [[row["instruction"] for row in found["kept"]] for found in (one, two)]
    assert shown[1][: len(shown[0]) - 1] == [name for name in shown[0] if name != "i0"][: len(shown[0]) - 1]
    assert {row["instruction"] for row in one["dropped"]} <= {f"i{k}" for k in range(20, 40)}
    assert account.account(pool, range(20), pool.select(range(20)), 4)["kept"] != one["kept"]


def test_long_texts_are_cut_and_say_so():
    pool = rows(3, long={0, 1, 2})
    shown = account.account(pool, [0], pool.select([0]), 0)["kept"][0]["output"]
    assert shown.endswith("… (1,000 characters)") and len(shown) < account.LONGEST + 30
    assert account.cut(None) == "" and account.cut("a" * account.LONGEST) == "a" * account.LONGEST


def test_an_empty_selection_and_a_broken_file_are_no_trouble(tmp_path):
    pool = rows(4)
    found = account.account(pool, [], pool.select([]), 0)
    assert found["kept"] == [] and len(found["dropped"]) == 4 and found["subset"]["response_words"] is None
    assert account.read(tmp_path / "none.json") is None
    (tmp_path / "half.json").write_text('{"pool"')
    assert account.read(tmp_path / "half.json") is None


def test_a_question_that_is_too_long_is_not_asked(make_model, tokenizer):
    from experiments.suites.build import Suite
    from experiments.suites.teacher_forced import Question

    questions = tuple(Question(" ".join(["w1"] * n) + " ", "ok : w2") for n in (3, 60))
    suite = Suite("far", True, "exact", questions, ("a", "b"))
    near = Suite("near", False, "exact", questions, ("a", "b"))
    found = account.answers(make_model(), tokenizer, [suite, near], max_length=20)
    assert [(one["suite"], one["item"]) for one in found] == [("far", 0)]
    assert isinstance(found[0]["answer"], str)


def test_a_subset_is_listed_by_ids_and_hashes_of_what_is_trained_on():
    pool = rows(3)
    changed = replace(pool, output=["o 0", "wrong", "o 2"])
    turned = replace(pool, turns=[None, None, '[["user", "hi"]]'])
    plain, noisy, talk = ([line.split(",") for line in manifest(p).splitlines()] for p in (pool, changed, turned))
    assert plain == [["id", "hash"], *([i, i] for i in pool["id"][:])]
    assert [a == b for a, b in zip(plain, noisy, strict=True)] == [True, True, False, True]
    assert [row[0] for row in noisy] == [row[0] for row in plain]
    assert [a == b for a, b in zip(plain, talk, strict=True)] == [True, True, True, False]
    assert "wrong" not in manifest(changed)
